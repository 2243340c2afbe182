"""Envelopes: one encoding, one meaning, exactly the expected signers."""

from __future__ import annotations

import hashlib

import pytest

from tests.seal.world import WORLD
from vault.encoding import JsonObject
from vault.seal.dsse import (
    Envelope,
    PayloadType,
    parse_envelope,
    pre_authentication_encoding,
    sign_record,
    verify_envelope,
)
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import frames

RECORD: JsonObject = {"vault": "x", "n": 1}
OWNER, STRANGER = WORLD.owner, WORLD.stranger


def test_the_pre_authentication_encoding_is_the_standards() -> None:
    """The example of the DSSE specification's protocol document, with a type of ours."""
    assert pre_authentication_encoding(PayloadType.KEY, b"hello world") == b"DSSEv1 16 twinvault/key/v1 11 hello world"


def test_an_envelope_is_its_bytes_and_its_hash() -> None:
    envelope = sign_record(PayloadType.CONSENT, RECORD, OWNER)
    assert parse_envelope(envelope.encoded) == envelope
    assert envelope.digest == hashlib.sha256(envelope.encoded).digest()
    assert verify_envelope(envelope, PayloadType.CONSENT, OWNER.public_key) == RECORD


def test_exactly_the_expected_keys_must_have_signed() -> None:
    both = sign_record(PayloadType.CONSENT, RECORD, OWNER, STRANGER)
    one = sign_record(PayloadType.CONSENT, RECORD, OWNER)
    assert verify_envelope(both, PayloadType.CONSENT, [STRANGER.public_key, OWNER.public_key]) == RECORD
    for envelope, keys in [
        (both, [OWNER.public_key]),
        (one, [OWNER.public_key, STRANGER.public_key]),
        (one, [STRANGER.public_key]),
        (one, []),
    ]:
        with pytest.raises(SealError, match="expected keys"):
            verify_envelope(envelope, PayloadType.CONSENT, keys)


def test_a_signature_is_about_one_type() -> None:
    envelope = sign_record(PayloadType.CONSENT, RECORD, OWNER)
    with pytest.raises(SealError, match="is expected"):
        verify_envelope(envelope, PayloadType.FREEZE, OWNER.public_key)
    renamed = Envelope(PayloadType.FREEZE, envelope.payload, envelope.signatures)
    with pytest.raises(SealError, match="does not verify"):
        verify_envelope(renamed, PayloadType.FREEZE, OWNER.public_key)


def test_there_is_no_second_encoding() -> None:
    both = sign_record(PayloadType.CONSENT, RECORD, OWNER, STRANGER)
    (first, second), body = both.signatures, frames(both.payload_type.encode(), both.payload)
    for signatures in ([second, first], [first, first], [], [first, second, (bytes(15), b"")], [first] * 9):
        with pytest.raises(SealError):
            parse_envelope(body + b"".join(key + signature for key, signature in signatures))
    with pytest.raises(SealError):
        parse_envelope(frames(b"twinvault/other/v1", both.payload) + first[0] + first[1])
    with pytest.raises(SealError):
        sign_record(PayloadType.CONSENT, RECORD, OWNER, OWNER)
    with pytest.raises(SealError):
        sign_record(PayloadType.CONSENT, RECORD)


def test_a_payload_that_is_not_signed_json_is_refused_even_when_signed() -> None:
    for payload in (b"", b"[]", b'{"a":1,"a":1}', b'{"a":1.0}', b'{"a":null}', b"\xff", b"{" * 1000):
        message = pre_authentication_encoding(PayloadType.CONSENT, payload)
        key = sign_record(PayloadType.CONSENT, RECORD, OWNER).signatures[0][0]
        envelope = Envelope(PayloadType.CONSENT, payload, ((key, OWNER.sign(message)),))
        with pytest.raises(SealError):
            verify_envelope(parse_envelope(envelope.encoded), PayloadType.CONSENT, OWNER.public_key)


def test_a_length_beyond_the_end_or_the_limit_is_refused() -> None:
    for data in (b"\xff\xff\xff\xff", b"\0\0\0\x05abc", bytes((1 << 20) + 1)):
        with pytest.raises(SealError):
            parse_envelope(data)


def test_a_field_is_taken_once_and_none_is_left() -> None:
    fields = Fields({"a": 1, "b": "x"})
    assert fields.integer("a") == 1
    with pytest.raises(SealError, match="lacks"):
        fields.integer("a")
    with pytest.raises(SealError, match="does not know"):
        fields.end()
