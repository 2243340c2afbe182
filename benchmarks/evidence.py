"""What an auditor checks of every logged answer: its place in the tree, both openings, its company's signature.

A process of its own, so that its memory is what checking takes: `python -m benchmarks.evidence FILE JWK`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from twinvault.jws import key_of, sign_jws
from vault.encoding import b64u, dump_json, parse_json
from vault.proof.jose import QUESTION_TYPE, parse_jwk
from vault.proof.leaf import Opening, Part, make_entry, verify_opening
from vault.proof.merkle import Edge, leaf_hash
from vault.proof.question import dump_signed_question, parse_signed_question, verify_signature
from vault.seal.framing import Reader, frames
from vault.seal.signing import SigningKey

COMPANY = "bench"
ISSUER = "https://twin.example"
CONSENT = bytes(16)
AT_S = 1_795_000_000
PUBLIC = {"kind": "answer", "purpose": "service-provision", "model": "m" * 43, "period": "2026-11"}
PERSONAL = {"subject": "s" * 22, "consent": "c" * 22, "consent_seq": 3, "at": AT_S}
_DISTINCT = 256


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
        entry, opened = make_entry(PUBLIC, {**PERSONAL, "question": b64u(hashlib.sha256(record).digest())})
        halves = (opened.public.salt, opened.public.body, opened.personal.salt, opened.personal.body)
        framed = frames(entry, *halves, record)
        made.append((len(framed).to_bytes(4, "big") + framed, leaf_hash(entry)))
    with file.open("wb") as stream:
        stream.writelines(made[number % _DISTINCT][0] for number in range(count))
    return key_of(company).jwk, Edge().extend(made[number % _DISTINCT][1] for number in range(count)).root


def verify(file: Path, jwk: str) -> dict[str, Any]:
    """Check such a file, one answer after the other, and return the seconds, the peak of memory and the root."""
    key = parse_jwk(jwk)
    edge = Edge()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    with file.open("rb") as stream:
        while length := stream.read(4):
            framed = stream.read(int.from_bytes(length, "big"))
            reader = Reader(framed, len(framed))
            entry, public_salt, public_body, personal_salt, personal_body, record = (reader.frame() for _ in range(6))
            reader.end()
            verify_opening(entry, Part.PUBLIC, Opening(public_salt, public_body))
            personal = verify_opening(entry, Part.PERSONAL, Opening(personal_salt, personal_body))
            if personal["question"] != b64u(hashlib.sha256(record).digest()):
                raise ValueError("the record of a question is not the logged one")
            jws, body = parse_signed_question(record)
            number = parse_json(body)["number"]
            assert isinstance(number, int)
            verify_signature(
                jws, key, company_id=COMPANY, issuer=ISSUER, consent_id=CONSENT,
                question_id=number.to_bytes(16, "big"), body=body, at_s=AT_S,
            )  # fmt: skip
            edge = edge.extend([leaf_hash(entry)])
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    status = Path("/proc/self/status").read_text()  # what getrusage says counts whoever started this process too
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb, "root": edge.root.hex(), "size": edge.size}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(verify(Path(sys.argv[1]), sys.argv[2])) + "\n")
