"""Signed records: DSSE in one binary encoding.

An envelope is two frames (payload type, payload) followed by 1 to 8 signatures of 80 bytes each
(16-byte key id, 64-byte Ed25519 signature) in ascending order of key id, and nothing after them.
The payload is JSON kept exactly as signed.

Source: DSSE v1.0.2, https://github.com/secure-systems-lab/dsse (pre-authentication encoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from vault.encoding import JsonObject, dump_json, parse_b64u, parse_json
from vault.seal.errors import SealError, as_seal_error
from vault.seal.framing import Reader, frames
from vault.seal.ids import ID_BYTES, key_id, sha256
from vault.seal.signing import SIGNATURE_BYTES, Signer, verify_signature

MAX_ENVELOPE_BYTES: Final = 1 << 20
_MAX_SIGNATURES: Final = 8


class PayloadType(StrEnum):
    """What a signature is about: its kind and version, so that none is taken for another."""

    GENESIS = "twinvault/genesis/v1"
    SUCCESSION = "twinvault/succession/v1"
    ACCOUNT = "twinvault/account/v1"
    RING_PAGE = "twinvault/ring-page/v1"
    RING_HEAD = "twinvault/ring-head/v1"
    BATCH = "twinvault/batch/v1"
    HEAD_LIST = "twinvault/head-list/v1"
    ACKNOWLEDGEMENT = "twinvault/acknowledgement/v1"
    HANDOVER = "twinvault/handover/v1"
    RESEAL = "twinvault/reseal/v1"
    ROW = "twinvault/row/v1"
    SIGN_IN = "twinvault/sign-in/v1"
    CONSENT = "twinvault/consent/v1"
    SUBJECT = "twinvault/subject/v1"
    ERASURE = "twinvault/erasure/v1"
    ERASED = "twinvault/erased/v1"
    SUBJECT_ERASURE = "twinvault/subject-erasure/v1"
    PROFILE = "twinvault/profile/v1"
    KEY = "twinvault/key/v1"
    MANIFEST = "twinvault/manifest/v1"
    LEGACY = "twinvault/legacy/v1"
    FREEZE = "twinvault/freeze/v1"
    EXECUTORS = "twinvault/executors/v1"
    AUDIT = "twinvault/audit/v1"
    AUDIT_LISTING = "twinvault/audit-listing/v1"


_TYPES: Final = {str(payload_type).encode(): payload_type for payload_type in PayloadType}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed record whose signatures nobody has checked yet.

    Args:
        payload_type: What the signature is about.
        payload: JSON bytes, exactly as signed.
        signatures: (16-byte key id, 64-byte signature), ascending by key id.
    """

    payload_type: PayloadType
    payload: bytes
    signatures: tuple[tuple[bytes, bytes], ...]

    @property
    def encoded(self) -> bytes:
        """The one binary encoding."""
        signatures = b"".join(key + signature for key, signature in self.signatures)
        return frames(self.payload_type.encode(), self.payload) + signatures

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding: what logs, `prev` fields and ring heads name."""
        return sha256(self.encoded)


def pre_authentication_encoding(payload_type: PayloadType, body: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def sign_record(payload_type: PayloadType, record: JsonObject, *signers: Signer) -> Envelope:
    """Return the record signed by each signer.

    Raises:
        SealError: No signer, one twice, or the record cannot be written as signed JSON.
    """
    with as_seal_error():
        payload = dump_json(record)
    message = pre_authentication_encoding(payload_type, payload)
    signatures = sorted((key_id(signer.public_key), signer.sign(message)) for signer in signers)
    envelope = Envelope(payload_type, payload, tuple(signatures))
    return parse_envelope(envelope.encoded)


def parse_envelope(data: bytes) -> Envelope:
    """Parse an envelope; its signatures are not checked.

    Raises:
        SealError: The bytes are not the one encoding of an envelope of a known type.
    """
    reader = Reader(data, MAX_ENVELOPE_BYTES)
    payload_type = _TYPES.get(reader.frame())
    if payload_type is None:
        raise SealError("A signed record has a type that TwinVault does not know.")
    payload = reader.frame()
    signatures: list[tuple[bytes, bytes]] = []
    while reader.left_bytes:
        signatures.append((reader.take(ID_BYTES), reader.take(SIGNATURE_BYTES)))
    keys = [key for key, _ in signatures]
    if not 0 < len(keys) <= _MAX_SIGNATURES or any(a >= b for a, b in pairwise(keys)):
        raise SealError("A signed record has no signature, too many, or not in ascending order of key.")
    return Envelope(payload_type, payload, tuple(signatures))


def parse_envelope_text(text: str) -> Envelope:
    """Parse an envelope as JSON carries it, in base64url; its signatures are not checked.

    Raises:
        SealError: The text is not base64url, or its bytes are no envelope.
    """
    with as_seal_error():
        return parse_envelope(parse_b64u(text))


def verify_envelope(envelope: Envelope, payload_type: PayloadType, public_keys: Sequence[bytes] | bytes) -> JsonObject:
    """Check that a record of one type is signed by exactly these keys, and return it.

    Args:
        envelope: What arrived.
        payload_type: The type expected here.
        public_keys: One raw Ed25519 key, or all that must have signed.

    Raises:
        SealError: Another type, another set of signers, a bad signature or malformed JSON.
    """
    keys = [public_keys] if isinstance(public_keys, bytes) else list(public_keys)
    if envelope.payload_type is not payload_type:
        raise SealError(f"A signed record is {envelope.payload_type} where {payload_type} is expected.")
    expected = {key_id(key): key for key in keys}
    if [key for key, _ in envelope.signatures] != sorted(expected):
        raise SealError("A signed record is not signed by the expected keys.")
    message = pre_authentication_encoding(payload_type, envelope.payload)
    for key, signature in envelope.signatures:
        verify_signature(expected[key], signature, message)
    with as_seal_error():
        return parse_json(envelope.payload)


def unverified_record(envelope: Envelope) -> JsonObject:
    """Return the record before any signature is checked: only to find out which key should have signed it.

    Raises:
        SealError: The payload is not signed JSON.
    """
    with as_seal_error():
        return parse_json(envelope.payload)


def named_key(envelope: Envelope, keys: Sequence[bytes]) -> bytes:
    """Return the one of several public keys that a record's first signature names; nothing is checked.

    Where it names none of them it is the last one, by which the record does not verify.
    """
    return next((key for key in keys if key_id(key) == envelope.signatures[0][0]), keys[-1])
