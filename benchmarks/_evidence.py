"""What an auditor checks of every logged answer: its place in the tree, both openings, whose it is, the company's signature.

A process of its own, so that its memory is what checking takes: `python -m benchmarks._evidence FILE JWK PROCESSES`.
"""

from __future__ import annotations

import hashlib
import json
import resource
import secrets
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children, current_process
from pathlib import Path
from typing import Any

from twinvault.jws import key_of, sign_jws
from twinvault.processes import Processes
from vault.encoding import JsonObject, b64u, dump_json, parse_json
from vault.proof.bound import bind, verify_bound_event
from vault.proof.deferred import check_signature
from vault.proof.jose import QUESTION_TYPE
from vault.proof.leaf import LeafKind, Opening, Part, make_entry, verify_opening
from vault.proof.merkle import Edge, leaf_hash
from vault.proof.question import dump_signed_question, parse_signed_question
from vault.seal.framing import Reader, frames
from vault.seal.ids import SubjectId
from vault.seal.signing import SigningKey

COMPANY = "bench"
ISSUER = "https://twin.example"
CONSENT = bytes(16)
AT_S = 1_795_000_000
SUBJECT = SubjectId(bytes(16))
PUBLIC: JsonObject = {
    "purpose": "dpv:ProvideProductRecommendations", "question_kind": "next_choice", "period": "2026-11",
    "classifier": "reveals-4", "manifest": "m" * 43, "model": "m" * 43, "policy_set": "p" * 43, "words": "w" * 43,
}  # fmt: skip
PERSONAL: JsonObject = {
    "subject": b64u(SUBJECT), "consent": b64u(CONSENT), "consent_seq": 3, "version": 1, "at": AT_S, "decision": "d" * 43,
    "prev": "p" * 43, "question_id": "q" * 22, "quota_left": 4, "record": "r" * 43, "requester": "r" * 22,
}  # fmt: skip
"""What a logged answer's halves hold, beside its question and whose it is bound to."""
_DISTINCT = 256


def halves_of(record: bytes) -> tuple[JsonObject, JsonObject]:
    """Return what the leaf of an answer to this question says in public, but for its kind, and to who may open it."""
    bound, opens = bind(SUBJECT)
    return {**PUBLIC, **bound}, {**PERSONAL, **opens, "question": b64u(hashlib.sha256(record).digest())}


def write(file: Path, count: int) -> tuple[str, bytes]:
    """Write so many logged answers; 256 are made and repeated, and checking remembers nothing of any.

    Returns:
        The company's question key, and the root of the tree over them.
    """
    company = SigningKey(secrets.token_bytes(32))
    made = []
    for number in range(_DISTINCT):
        body = dump_json({"question": "next_choice", "number": number})
        claims = {
            "iss": COMPANY, "aud": ISSUER, "consent": b64u(CONSENT), "question": b64u(number.to_bytes(16, "big")),
            "body": b64u(hashlib.sha256(body).digest()), "iat": AT_S,
        }  # fmt: skip
        signed = sign_jws(company, {"typ": QUESTION_TYPE, "kid": key_of(company).kid}, claims)
        record = dump_signed_question(signed, body, secrets.token_bytes(16))
        public, personal = halves_of(record)
        entry, opened = make_entry({"kind": LeafKind.ANSWER, **public}, personal)
        halves = (opened.public.salt, opened.public.body, opened.personal.salt, opened.personal.body)
        framed = frames(entry, *halves, record)
        made.append((len(framed).to_bytes(4, "big") + framed, leaf_hash(entry)))
    with file.open("wb") as stream:
        stream.writelines(made[number % _DISTINCT][0] for number in range(count))
    return key_of(company).jwk, Edge().extend(made[number % _DISTINCT][1] for number in range(count)).root


def entries(file: Path, jwk: str) -> Iterator[tuple[str, bytes]]:
    """Yield each logged answer as it lies in the file, behind the key that must have signed its question."""
    with file.open("rb") as stream:
        while length := stream.read(4):
            yield jwk, stream.read(int.from_bytes(length, "big"))


def verify_one(item: tuple[str, bytes]) -> bytes:
    """Check one logged answer and return the hash of its leaf."""
    jwk, framed = item
    reader = Reader(framed, len(framed))
    entry, public_salt, public_body, personal_salt, personal_body, record = (reader.frame() for _ in range(6))
    reader.end()
    public = verify_opening(entry, Part.PUBLIC, Opening(public_salt, public_body))
    personal = verify_opening(entry, Part.PERSONAL, Opening(personal_salt, personal_body))
    verify_bound_event(public, personal)
    if personal["question"] != b64u(hashlib.sha256(record).digest()):
        raise ValueError("the record of a question is not the logged one")
    jws, body = parse_signed_question(record)
    number = parse_json(body)["number"]
    assert isinstance(number, int)
    check_signature(
        jws, jwk, company_id=COMPANY, issuer=ISSUER, consent_id=CONSENT,
        question_id=number.to_bytes(16, "big"), body=body, at_s=AT_S,
    )  # fmt: skip
    return leaf_hash(entry)


def verify(file: Path, jwk: str, processes: int) -> dict[str, Any]:
    """Check such a file as `auditor verify` does, and return the seconds, the peak of all memory and the root."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    with Processes(processes) as each:
        edge = Edge().extend(each(verify_one, entries(file, jwk)))
        peak_mb = sum(peak_kb(child.pid) for child in [*active_children(), current_process()]) / 1024
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s += children.ru_utime + children.ru_stime
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb, "root": edge.root.hex(), "size": edge.size}


def peak_kb(process: int | None) -> int:
    """Return a process's peak of memory: what getrusage says counts whoever started it too."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(verify(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
