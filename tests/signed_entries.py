"""Every kind of thing that a verifier takes under an Ed25519 key, signed by every special key of `tests/curve.py`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.curve import Forgery, forgeries
from vault.encoding import b64u, dump_json
from vault.proof.checkpoint import Checkpoint, parse_checkpoint
from vault.proof.jose import QUESTION_TYPE, parse_jws, read_jwk
from vault.proof.note import COSIGNATURE, NoteSignature, VerifierKey, parse_note, sign_note, verify_note
from vault.proof.witness import cosigned_text, verify_cosignatures
from vault.seal.dsse import PayloadType, parse_envelope, pre_authentication_encoding, verify_envelope
from vault.seal.framing import frames
from vault.seal.ids import key_id
from vault.seal.signing import verify_signature

FILES = sorted((Path(__file__).parent / "vectors" / "ed25519").glob("*.txt"))
ORIGIN = "log.example/one"
_CHECKPOINT = Checkpoint(ORIGIN, 3, bytes(range(32)))
_LOG = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
LOG_KEY = VerifierKey(ORIGIN, _LOG.public_key().public_bytes_raw())
_NOTE = sign_note(_CHECKPOINT.text, LOG_KEY, _LOG.sign)
_AT_S = 1_795_000_000
_BODY = dump_json({"n": 1})


@dataclass(frozen=True)
class Signed:
    """One thing as it travels, and whether a verifier takes it.

    Args:
        entry: Which function of a verifier reads it.
        name: What is special about it.
        key: Raw, 32 bytes.
        message: What is signed, where it does not follow from `data`.
        data: As it travels.
        accepted: Whether the rule takes it.
    """

    entry: str
    name: str
    key: bytes
    message: bytes
    data: bytes
    accepted: bool


def raw() -> Iterator[Signed]:
    """Read the stored vectors."""
    for path in FILES:
        head, *blocks = path.read_text("ascii").split("\n\n")
        message = bytes.fromhex(_fields(head)["message"])
        for block in blocks:
            case = _fields(block)
            key, signature = (bytes.fromhex(case[name]) for name in ("key", "signature"))
            yield Signed("raw", f"{path.stem} {case['name']}", key, message, signature, case["expect"] == "ok")


def _fields(block: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def _note(case: Forgery) -> bytes:
    key = VerifierKey(ORIGIN, case.key)
    return f"{_CHECKPOINT.text}\n{NoteSignature(key.name, key.key_id, case.signature).line}".encode()


def _cosigned(case: Forgery) -> bytes:
    key = VerifierKey("witness.example", case.key, COSIGNATURE)
    return (_NOTE + NoteSignature(key.name, key.key_id, _AT_S.to_bytes(8, "big") + case.signature).line).encode()


def _envelope(case: Forgery) -> bytes:
    return frames(PayloadType.FREEZE.encode(), _BODY) + key_id(case.key) + case.signature


def _jws(case: Forgery) -> bytes:
    return _JWS_INPUT + b"." + b64u(case.signature).encode()


_JWS_INPUT = f"{b64u(dump_json({'alg': 'Ed25519', 'typ': QUESTION_TYPE}))}.{b64u(_BODY)}".encode()
_MADE: dict[str, tuple[bytes, Callable[[Forgery], bytes]]] = {
    "note": (_CHECKPOINT.text.encode(), _note),
    "cosignature": (cosigned_text(_CHECKPOINT, _AT_S), _cosigned),
    "envelope": (pre_authentication_encoding(PayloadType.FREEZE, _BODY), _envelope),
    "jws": (_JWS_INPUT, _jws),
}


def entries() -> Iterator[Signed]:
    """Yield the stored vectors, and every forgery over what notes, cosignatures, envelopes and signed JSON sign."""
    yield from raw()
    for entry, (message, wire) in _MADE.items():
        for case in forgeries(message):
            if len(case.key) == 32:  # of another length there is no such object
                yield Signed(entry, case.name, case.key, b"", wire(case), case.accepted)


def read(signed: Signed) -> object:
    """Show one to the first verifier; it raises what it does not take."""
    match signed.entry:
        case "raw":
            return verify_signature(signed.key, signed.data, signed.message)
        case "note":
            return verify_note(signed.data.decode(), [VerifierKey(ORIGIN, signed.key)])
        case "cosignature":
            key = VerifierKey("witness.example", signed.key, COSIGNATURE)
            note = signed.data.decode()
            return verify_cosignatures(note, parse_checkpoint(parse_note(note).unverified_text), [key])
        case "envelope":
            return verify_envelope(parse_envelope(signed.data), PayloadType.FREEZE, signed.key)
        case _:
            jwk = read_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64u(signed.key)})
            return parse_jws(signed.data.decode(), QUESTION_TYPE).verify(jwk)


def as_json(signed: Signed) -> bytes:
    """Return one line for the second verifier."""
    key_text = {
        "note": lambda: VerifierKey(ORIGIN, signed.key).text,
        "cosignature": lambda: VerifierKey("witness.example", signed.key, COSIGNATURE).text,
    }.get(signed.entry, str)()
    binary = {name: base64.b64encode(getattr(signed, name)).decode() for name in ("key", "message", "data")}
    return dump_json({"entry": signed.entry, "key_text": key_text, **binary}) + b"\n"
