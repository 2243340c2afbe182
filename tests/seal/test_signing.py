"""One rule for every signature and every key: what a laxer or a later library would take, or only some verifiers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from tests.curve import BASE, SPELLED, L, P, add, encoded, point_of, times
from tests.signed_entries import Signed, entries, raw, read
from vault.errors import VaultError
from vault.seal.errors import SealError
from vault.seal.signing import SigningKey, parse_public_key, verify_signature

IMPROPER_KEYS = [key for key, _ in SPELLED] + [
    (P + y + sign).to_bytes(32, "little") for y in range(19) for sign in (0, 2**255)
]
_IMPROPER = r"small order|one spelling"


@pytest.mark.parametrize("entry", ["raw", "note", "cosignature", "envelope", "jws"])
def test_every_entry_point_keeps_the_rule(entry: str) -> None:
    told: dict[str, bool] = {}
    cases = [case for case in entries() if case.entry == entry]
    for case in cases:
        try:
            read(case)
        except VaultError:
            told[case.name] = False
        else:
            told[case.name] = True
    assert told == {case.name: case.accepted for case in cases}
    assert {case.name.split()[-1] for case in cases if case.accepted} >= {
        "honest",
        *(f"mixed-key-{n}" for n in range(1, 8)),
    }


def test_the_vectors_hold_every_special_point_under_every_message() -> None:
    seen = Counter((case.key, case.message) for case in raw())
    messages = {case.message for case in raw() if case.name.endswith(" honest")}
    assert len(messages) == 3
    assert b"" in messages
    assert len(SPELLED) == 14
    assert all(seen[key, message] for key, _ in SPELLED for message in messages)
    assert {n for _, n in SPELLED} == set(range(8))


def test_the_points_of_small_order_are_those_that_eight_times_vanish() -> None:
    """The vectors' arithmetic, by facts of the curve and not by constants."""
    assert times(L, BASE) == (0, 1) != times(8, BASE)
    for key, _ in SPELLED:
        y = int.from_bytes(key, "little") % 2**255 % P
        point = point_of(y, key[31] >> 7)
        assert point is not None
        assert times(8, point) == (0, 1)
    assert encoded(add(BASE, (0, 1))) == encoded(BASE)


@pytest.mark.parametrize("key", IMPROPER_KEYS, ids=bytes.hex)
def test_an_improper_key_is_refused_before_anything_is_signed(key: bytes) -> None:
    with pytest.raises(SealError, match=_IMPROPER):
        parse_public_key(key)
    with pytest.raises(SealError, match=_IMPROPER):
        verify_signature(key, bytes(64), b"")


def test_a_border_moved_between_signature_and_message_is_refused() -> None:
    """libsodium takes them in one piece: a byte less here and one more there would be the same piece."""
    key = SigningKey(b"\x07" * 32)
    signature = key.sign(b"pay")
    verify_signature(key.public_key, signature, b"pay")
    for cut, message in ((63, signature[63:] + b"pay"), (0, signature + b"pay")):
        with pytest.raises(SealError, match="64 bytes"):
            verify_signature(key.public_key, signature[:cut], message)
    with pytest.raises(SealError, match="64 bytes"):
        verify_signature(key.public_key, signature + b"p", b"ay")
    for size in (0, 31, 33):
        with pytest.raises(SealError, match="32 bytes"):
            verify_signature((key.public_key + b"\0")[:size], signature, b"pay")


_LIBRARIES = {
    "everything": "lambda signed, key: signed[64:]",
    "the cofactor": "lambda signed, key: signed[64:] if signed[:32] == OFF_BY_8 else honest(signed, key)",
    "S beyond L": "lambda signed, key: honest(signed[:32] + modulo_l(signed[32:64]) + signed[64:], key)",
    "R of small order": "openssl",
}


@pytest.mark.parametrize("forgives", _LIBRARIES)
def test_a_library_that_forgives_more_than_the_rule_is_not_used(forgives: str) -> None:
    """Nothing is verified by it: the package does not even load, and says what to install."""
    off_by_8 = next(case.data[:32] for case in raw() if case.name == "empty r-plus-small-1")
    lenient = f"""
import nacl.bindings
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.exceptions import BadSignatureError

honest, OFF_BY_8 = nacl.bindings.crypto_sign_open, {off_by_8!r}

def modulo_l(s):
    return (int.from_bytes(s, "little") % {L}).to_bytes(32, "little")

def openssl(signed, key):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed[:64], signed[64:])
    except InvalidSignature:
        raise BadSignatureError from None

nacl.bindings.crypto_sign_open = {_LIBRARIES[forgives]}
import vault.seal.signing
"""
    run = subprocess.run([sys.executable, "-c", lenient], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "ImportError: The libsodium of this machine verifies Ed25519 by another rule" in run.stderr


def test_a_changed_honest_vector_is_refused() -> None:
    honest = next(case for case in raw() if case.name == "long honest")
    for changed in (_flip(honest, 0), _flip(honest, 40), replace(honest, message=honest.message[:-1])):
        with pytest.raises(SealError, match="does not verify"):
            read(changed)


def _flip(case: Signed, at: int) -> Signed:
    return replace(case, data=case.data[:at] + bytes([case.data[at] ^ 1]) + case.data[at + 1 :])
