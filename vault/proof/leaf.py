"""Log entries: two hiding commitments, so that a leaf can lose its personal half and still prove its public one.

An entry is `0x01 || public commitment || personal commitment`, 65 bytes. A commitment is
SHA-256(tag || salt || body). With 64-byte salts about 2**256 salts fit every body, so once salt
and body are deleted the commitment neither reveals nor lets anyone recognise the body: it is
statistically hiding with SHA-256 taken as a random function.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof, MalformedProof

ENTRY_VERSION = b"\x01"
ENTRY_BYTES = 65
SALT_BYTES = 64


class LeafKind(StrEnum):
    """Every kind of event that the log records; the public part names it."""

    VAULT_GENESIS = "vault-genesis"
    SUCCESSION = "succession"
    PROFILE = "profile"
    ACCOUNT = "account"
    RING_HEAD = "ring-head"
    UPLOAD = "upload"
    CONSENT_REQUEST = "consent-request"
    CONSENT = "consent"
    HANDOVER = "handover"
    RESEAL = "reseal"
    RELEASE = "release"
    MANIFEST = "manifest"
    MODEL_WITHDRAWN = "model-withdrawn"
    POLICY_SET = "policy-set"
    COMPANY = "company"
    COMPANY_STATUS = "company-status"
    KEY = "key"
    ANSWER = "answer"
    DENIAL = "denial"
    DENIALS = "denials"
    FREEZE = "freeze"
    ERASURE = "erasure"
    RETENTION = "retention"
    AUDITOR_ACCESS = "auditor-access"
    TRAINING = "training"
    TOMBSTONES = "tombstones"
    LEGACY_PLAN = "legacy-plan"
    LEGACY_CLAIM = "legacy-claim"
    LEGACY_FORCE = "legacy-force"
    LEGACY_OPEN = "legacy-open"
    LEGACY_VETO = "legacy-veto"


_KINDS = tuple(kind.value for kind in LeafKind)  # a tuple, so that asking about an unhashable value is no error


class Part(StrEnum):
    """The two halves of an entry."""

    PUBLIC = "public"
    PERSONAL = "personal"


_TAGS = {part: f"twinvault/leaf-{part}/v1\n".encode() for part in Part}


@dataclass(frozen=True)
class Opening:
    """What shows the content of one commitment; deleting it is what erases.

    Args:
        salt: 64 random bytes.
        body: JSON bytes exactly as committed.
    """

    salt: bytes = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Openings:
    """Both openings of one entry."""

    public: Opening
    personal: Opening


def make_entry(public: JsonObject, personal: JsonObject) -> tuple[bytes, Openings]:
    """Commit to both parts under fresh salts.

    Args:
        public: Open to every auditor; `kind` is a `LeafKind`. Holds nothing about a person.
        personal: Opened to the person and to whom the event concerns.

    Returns:
        The 65-byte entry and what opens it.

    Raises:
        MalformedInput: A part is not plain JSON, or the public part names no known kind.

    Guarantees:
        The salts come from the operating system and from nothing else, so that deleting an
        opening leaves no key from which it could be derived again.
    """
    _require_kind(public)
    salts = secrets.token_bytes(2 * SALT_BYTES)  # one call of the system
    openings = Openings(
        Opening(salts[:SALT_BYTES], dump_json(public)), Opening(salts[SALT_BYTES:], dump_json(personal))
    )
    entry = ENTRY_VERSION + _commit(Part.PUBLIC, openings.public) + _commit(Part.PERSONAL, openings.personal)
    return entry, openings


def verify_opening(entry: bytes, part: Part, opening: Opening) -> JsonObject:
    """Return the content that one half of a logged entry committed to.

    Args:
        entry: The entry, already shown to be in the log.
        part: Which half the opening claims to open.
        opening: Salt and body, from whoever keeps them.

    Raises:
        MalformedProof: The entry or salt has another size or version, or the body is not a record.
        InvalidProof: Salt and body are not what the entry committed to.
    """
    if len(entry) != ENTRY_BYTES or entry[:1] != ENTRY_VERSION:
        raise MalformedProof("A log entry is not 65 bytes of version 1.")
    if len(opening.salt) != SALT_BYTES:
        raise MalformedProof(f"An opening's salt has {len(opening.salt)} bytes where {SALT_BYTES} are expected.")
    match part:
        case Part.PUBLIC:
            committed = entry[1:33]
        case Part.PERSONAL:
            committed = entry[33:]
        case _:
            assert_never(part)
    if not hmac.compare_digest(_commit(part, opening), committed):
        raise InvalidProof(f"The {part} opening is not what the log entry committed to.")
    try:
        record = parse_json(opening.body)
        if part is Part.PUBLIC:
            _require_kind(record)
    except MalformedInput as error:
        raise MalformedProof(f"The {part} part of a log entry is not a record: {error.detail}") from error
    return record


def _commit(part: Part, opening: Opening) -> bytes:
    return hashlib.sha256(_TAGS[part] + opening.salt + opening.body).digest()


def _require_kind(public: JsonObject) -> None:
    kind = public.get("kind")
    if kind not in _KINDS:
        raise MalformedInput("The public part of a log entry names no known kind of event.")
