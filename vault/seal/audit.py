"""What an auditor makes: its registration, and signed requests to be shown a stretch of the log, or its listing."""

from __future__ import annotations

from dataclasses import dataclass

from vault.encoding import JsonObject, b64u, dump_json, parse_json
from vault.seal.dsse import Envelope, PayloadType, sign_record, verify_envelope
from vault.seal.errors import SealError, as_seal_error
from vault.seal.fields import Fields
from vault.seal.person import NONCE_BYTES
from vault.seal.signing import Signer

MAX_CHOSEN = 1_000

_REGISTRATION = "twinvault-auditor/v1"


@dataclass(frozen=True, slots=True)
class Registration:
    """What an auditor gives the operator; the key proves itself with each request.

    Args:
        name: What the operator lists it under.
        public_key: Ed25519, 32 bytes.
    """

    name: str
    public_key: bytes


def dump_registration(registration: Registration) -> bytes:
    """Return the registration file."""
    record: JsonObject = {"name": registration.name, "public_key": b64u(registration.public_key)}
    return dump_json({"format": _REGISTRATION, **record})


def parse_registration(unverified_data: bytes) -> Registration:
    """Read a registration file.

    Raises:
        SealError: It is not one.
    """
    with as_seal_error():
        fields = Fields(parse_json(unverified_data))
    if fields.text("format") != _REGISTRATION:
        raise SealError(f"The file is no auditor's registration of the format {_REGISTRATION}.")
    registration = Registration(fields.text("name"), fields.public_key("public_key"))
    fields.end()
    return registration


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """Which leaves an auditor asks for.

    Args:
        origin: The issuer URL of the server asked, so that no other server can use the request.
        nonce: 32 random bytes, used once.
        issued_at: Unix seconds.
        first: Index of the first leaf.
        last: Index of the last leaf, not below `first`.
    """

    origin: str
    nonce: bytes
    issued_at: int
    first: int
    last: int


def sign_audit_request(request: AuditRequest, auditor: Signer) -> Envelope:
    """Return the request under the auditor's key."""
    record: JsonObject = {
        "origin": request.origin,
        "nonce": b64u(request.nonce),
        "issued_at": request.issued_at,
        "first": request.first,
        "last": request.last,
    }
    return sign_record(PayloadType.AUDIT, record, auditor)


def verify_audit_request(envelope: Envelope, auditor_key: bytes) -> AuditRequest:
    """Return the request; its age, server and single use are the receiver's to check.

    Args:
        envelope: What arrived.
        auditor_key: Raw Ed25519 key, 32 bytes, from the receiver's own register.

    Raises:
        SealError: Signed by another key, malformed, or a range that ends before it begins.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.AUDIT, auditor_key))
    request = AuditRequest(
        origin=fields.text("origin"),
        nonce=fields.binary("nonce", size=NONCE_BYTES),
        issued_at=fields.integer("issued_at"),
        first=fields.integer("first"),
        last=fields.integer("last"),
    )
    fields.end()
    if request.last < request.first:
        raise SealError("An auditor asks for leaves from a first to a last index, in this order.")
    return request


@dataclass(frozen=True, slots=True)
class ListingRequest:
    """What an auditor asks of its engagement's listing.

    Args:
        origin: The issuer URL of the server asked.
        nonce: 32 random bytes, used once.
        issued_at: Unix seconds.
        chosen: Pseudonyms of the consents to be opened from now on, 32 bytes each, at most 1,000.
    """

    origin: str
    nonce: bytes
    issued_at: int
    chosen: tuple[bytes, ...]


def sign_listing_request(request: ListingRequest, auditor: Signer) -> Envelope:
    """Return the request under the auditor's key."""
    record: JsonObject = {
        "origin": request.origin,
        "nonce": b64u(request.nonce),
        "issued_at": request.issued_at,
        "chosen": [b64u(name) for name in request.chosen],
    }
    return sign_record(PayloadType.AUDIT_LISTING, record, auditor)


def verify_listing_request(envelope: Envelope, auditor_key: bytes) -> ListingRequest:
    """Return the request; its age, server and single use are the receiver's to check.

    Args:
        envelope: What arrived.
        auditor_key: Raw Ed25519 key, 32 bytes, from the receiver's own register.

    Raises:
        SealError: Signed by another key, malformed, or it chooses a consent twice or too many.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.AUDIT_LISTING, auditor_key))
    request = ListingRequest(
        origin=fields.text("origin"),
        nonce=fields.binary("nonce", size=NONCE_BYTES),
        issued_at=fields.integer("issued_at"),
        chosen=tuple(fields.hashes("chosen")),
    )
    fields.end()
    if len(set(request.chosen)) != len(request.chosen) or len(request.chosen) > MAX_CHOSEN:
        raise SealError(f"An auditor chooses at most {MAX_CHOSEN} consents at a time, each once.")
    return request
