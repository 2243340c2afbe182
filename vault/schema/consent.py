"""The consent record: what a person allows one grantee to do, version by version.

Field names follow ISO/IEC TS 27560:2023 where it has one; terms are DPV 2.3 IRIs in their
prefixed form (`dpv:` https://w3id.org/dpv#, `pd:` https://w3id.org/dpv/pd#, `x:` minted here).
Source: ISO/IEC TS 27560:2023 through the W3C DPV guide; GDPR articles 7 and 9.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vault.clock import DAY_S
from vault.encoding import JsonObject, b64u
from vault.schema.reader import Reader
from vault.schema.terms import BadConsent, ConsentKind, Terms, dump_terms, narrower_or_equal, parse_terms

SCHEMA_VERSION: Final = "twinvault-consent/1"
RENEW_WITHIN_S: Final = 7 * DAY_S
"""How long before its end a person is told that a consent ends."""

LAWFUL_BASIS: Final = "dpv:ExplicitlyExpressedConsent"

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


class ConsentEvent(StrEnum):
    """What made this version: the person withdraws, the operator revokes, a company gives back what it holds."""

    GIVEN = "given"
    NARROWED = "narrowed"
    RENEWED = "renewed"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    RETURNED = "returned"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"

    @property
    def state(self) -> str:
        """The DPV consent state that the event leads to."""
        return _STATES[self]

    @property
    def live(self) -> bool:
        """Whether a consent is in force after the event, inside its time window."""
        return self in _LIVE

    @property
    def renewable(self) -> bool:
        """Whether a version of the person's may still follow; what was ended for good has no further version."""
        return self in _RENEWABLE

    @property
    def by_person(self) -> bool:
        """Whether only the person can cause the event."""
        return self.live or self is ConsentEvent.WITHDRAWN


_STATES: Final = {
    ConsentEvent.GIVEN: "dpv:ConsentGiven",
    ConsentEvent.NARROWED: "dpv:ConsentGiven",
    ConsentEvent.RENEWED: "dpv:RenewedConsentGiven",
    ConsentEvent.WITHDRAWN: "dpv:ConsentWithdrawn",
    ConsentEvent.REVOKED: "dpv:ConsentRevoked",
    ConsentEvent.RETURNED: "dpv:ConsentRevoked",  # DPV tells the person from all others; entity_id names who
    ConsentEvent.EXPIRED: "dpv:ConsentExpired",
    ConsentEvent.INVALIDATED: "dpv:ConsentInvalidated",
}
_LIVE: Final = frozenset({ConsentEvent.GIVEN, ConsentEvent.NARROWED, ConsentEvent.RENEWED})
_RENEWABLE: Final = _LIVE | {ConsentEvent.EXPIRED}


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """What a company or the operator asks a person for; signed by the asker.

    Args:
        request_id: 16 random bytes.
        terms: The widest terms that an answer to this request may grant.
        issued_at: Unix seconds.
    """

    request_id: bytes
    terms: Terms
    issued_at: int


@dataclass(frozen=True, slots=True)
class Notice:
    """The text that the owner's own client showed before the person signed.

    Args:
        sha256: Digest of the exact UTF-8 text shown.
        language: BCP 47 tag of that text.
    """

    sha256: bytes
    language: str


@dataclass(frozen=True, slots=True)
class ConsentVersion:
    """One signed version of a consent; versions are only ever appended.

    Args:
        consent_id: 16 random bytes, the same in every version (27560 `record_id`, OAuth's `grant_id`).
        version: 1 for the first.
        consent_seq: Grows with every record that the pairwise key signs.
        prev: SHA-256 of the previous version's envelope, empty in version 1.
        event: What made this version.
        event_time: Unix seconds.
        principal_key: Ed25519 pairwise public key, 32 bytes; the subject is its digest.
        terms: What is granted.
        notice: What was shown.
        request_sha256: SHA-256 of the request's envelope; empty where nobody but the person asked.

    Raises:
        BadConsent: Version, event and prev contradict each other.
    """

    consent_id: bytes
    version: int
    consent_seq: int
    prev: bytes
    event: ConsentEvent
    event_time: int
    principal_key: bytes
    terms: Terms
    notice: Notice
    request_sha256: bytes

    def __post_init__(self) -> None:
        first = self.version == 1
        if (self.event is ConsentEvent.GIVEN) is not first or (self.prev == b"") is not first:
            raise BadConsent("Version 1, and only version 1, is given and has no predecessor.")
        if not self.request_sha256 and self.terms.kind is ConsentKind.COMPANY:
            raise BadConsent("A company consent answers a request; name the request's hash.")
        if self.event is ConsentEvent.RETURNED and self.terms.kind is not ConsentKind.COMPANY:
            raise BadConsent("Only a company gives a consent back.")

    @property
    def subject(self) -> bytes:
        """The person's pseudonym towards this grantee, 16 bytes (27560 `pii_principal_id`)."""
        return subject_of(self.principal_key)


def subject_of(principal_key: bytes) -> bytes:
    """Return the pairwise pseudonym of a pairwise public key: the first 16 bytes of its SHA-256.

    Args:
        principal_key: Ed25519 public key, 32 bytes.
    """
    return hashlib.sha256(principal_key).digest()[:16]


def verify_successor(following: ConsentVersion, previous: ConsentVersion, previous_sha256: bytes) -> ConsentVersion:
    """Check that one version may follow another and return it.

    Identity, kind and grantee never change; narrowing stays inside the previous terms;
    ending a consent changes no term; what was withdrawn, revoked or invalidated stays so.

    Args:
        following: The new version.
        previous: The version now in force.
        previous_sha256: SHA-256 of the previous version's envelope bytes.

    Raises:
        BadConsent: It may not follow.
    """
    if not previous.event.renewable:
        raise BadConsent(f"The consent was {previous.event}; it has no further version. Give a new consent.")
    if following.version != previous.version + 1 or following.prev != previous_sha256:
        raise BadConsent("The version does not follow the one in force; read the latest version and sign again.")
    if _identity(following) != _identity(previous):
        raise BadConsent("Consent id, pairwise key, kind and grantee never change; give a new consent instead.")
    if following.consent_seq <= previous.consent_seq or following.event_time < previous.event_time:
        raise BadConsent("consent_seq must grow and event_time must not go back.")
    if following.event is ConsentEvent.NARROWED:
        same_request = following.request_sha256 == previous.request_sha256
        if previous.event not in _LIVE or not same_request or not narrower_or_equal(following.terms, previous.terms):
            raise BadConsent("Narrowing keeps a live consent inside its previous terms; renew it to widen them.")
    elif following.event is not ConsentEvent.RENEWED and _matter(following) != _matter(previous):
        raise BadConsent("Ending a consent keeps its terms, notice and request as they were.")
    if following.event is ConsentEvent.EXPIRED and following.event_time < previous.terms.not_after:
        raise BadConsent("A consent expires only once its window is over.")
    return following


def verify_grant(granted: ConsentVersion, request: ConsentRequest, request_sha256: bytes) -> ConsentVersion:
    """Check that a version answers a request and grants nothing wider, and return it.

    Args:
        granted: What the owner signed.
        request: What the company asked, verified.
        request_sha256: Of the request as the company signed it.

    Raises:
        BadConsent: It names another request or grants more than was asked.
    """
    if granted.request_sha256 != request_sha256:
        raise BadConsent("The consent answers another request.")
    if not narrower_or_equal(granted.terms, request.terms):
        raise BadConsent("The consent grants more than was asked; grant the same or less.")
    return granted


def parse_consent(record: JsonObject) -> ConsentVersion:
    """Read one consent version.

    Args:
        record: The payload of a signed consent, as `parse_json` returned it.

    Raises:
        BadConsent: The record has another shape, an unknown field or contradicts itself.
    """
    r = Reader(record, BadConsent, "consent")
    r.exactly("schema_version", SCHEMA_VERSION)
    r.exactly("lawful_basis", LAWFUL_BASIS)
    notice = r.object("privacy_notice")
    version = ConsentVersion(
        consent_id=r.binary("record_id", 16),
        version=r.integer("version", 1),
        consent_seq=r.integer("consent_seq", 1),
        prev=r.binary("prev", 0, 32),
        event=r.word("event_type", ConsentEvent),
        event_time=r.time("event_time"),
        principal_key=r.binary("principal_key", 32),
        terms=parse_terms(r.object("terms")),
        notice=Notice(notice.binary("sha256", 32), notice.text("language", _LANGUAGE)),
        request_sha256=r.binary("request_sha256", 0, 32),
    )
    notice.end()
    r.exactly("pii_principal_id", b64u(version.subject))
    r.exactly("event_state", version.event.state)
    r.exactly("entity_id", _entity_id(version))
    r.end()
    return version


def parse_consent_request(record: JsonObject) -> ConsentRequest:
    """Read what a company or the operator asks for.

    Raises:
        BadConsent: The record has another shape, an unknown field or contradicts itself.
    """
    r = Reader(record, BadConsent, "consent request")
    r.exactly("schema_version", SCHEMA_VERSION)
    request = ConsentRequest(r.binary("request_id", 16), parse_terms(r.object("terms")), r.time("issued_at"))
    r.end()
    return request


def dump_consent(version: ConsentVersion) -> JsonObject:
    """Return the version as a signed record's object."""
    return {
        "schema_version": SCHEMA_VERSION,
        "lawful_basis": LAWFUL_BASIS,
        "record_id": b64u(version.consent_id),
        "version": version.version,
        "consent_seq": version.consent_seq,
        "prev": b64u(version.prev),
        "event_type": version.event.value,
        "event_state": version.event.state,
        "event_time": version.event_time,
        "entity_id": _entity_id(version),
        "pii_principal_id": b64u(version.subject),
        "principal_key": b64u(version.principal_key),
        "terms": dump_terms(version.terms),
        "privacy_notice": {"sha256": b64u(version.notice.sha256), "language": version.notice.language},
        "request_sha256": b64u(version.request_sha256),
    }


def dump_consent_request(request: ConsentRequest) -> JsonObject:
    """Return the request as a signed record's object."""
    return {
        "schema_version": SCHEMA_VERSION,
        "request_id": b64u(request.request_id),
        "terms": dump_terms(request.terms),
        "issued_at": request.issued_at,
    }


def _entity_id(version: ConsentVersion) -> str:
    if version.event.by_person:
        return b64u(version.subject)
    return version.terms.grantee if version.event is ConsentEvent.RETURNED else "operator"


def _identity(version: ConsentVersion) -> tuple[object, ...]:
    return version.consent_id, version.principal_key, version.terms.kind, version.terms.grantee


def _matter(version: ConsentVersion) -> tuple[object, ...]:
    return version.terms, version.notice, version.request_sha256
