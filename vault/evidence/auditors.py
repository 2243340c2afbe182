"""Auditors: registered by the operator, recognised by their key, every access of theirs logged."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import Row, delete, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import JsonObject, b64u
from vault.errors import VaultError
from vault.evidence.models import auditor, auditor_opened
from vault.parties.once import spend
from vault.proof.leaf import LeafKind
from vault.seal.audit import AuditRequest, ListingRequest, verify_audit_request, verify_listing_request
from vault.seal.dsse import Envelope
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, key_id, sha256
from vault.seal.signing import parse_public_key
from vault.tlog import groups, log
from vault.tlog.log import Pending, append

MAX_AGE_S: Final = 60
MAX_LEAVES: Final = 10_000
MAX_OPENS: Final = 100_000

SETTLED_S: Final = 600  # after which no transaction that was open when an engagement's time ended still runs

_EVER_S: Final = 2**32
_KEY_BYTES: Final = 32
_NAME: Final = re.compile(r"\S(?:.{0,78}\S)?")


class BadAuditor(VaultError):
    """A registration of an auditor that cannot be kept."""

    slug = "bad-auditor"
    title = "Auditor is not acceptable"
    status = 422


class AuditRefused(VaultError):
    """A request that no auditor registered here signed for this server and this moment."""

    slug = "audit-refused"
    title = "Audit request refused"
    status = 403


class RangeTooFull(VaultError):
    """A range of leaves to which more belongs than one bundle holds."""

    slug = "audit-range-too-full"
    title = "Audit range holds too much"
    status = 422


class RangeTooWide(VaultError):
    """A range of leaves that the log does not have or that one bundle does not hold."""

    slug = "bad-audit-range"
    title = "Audit range is not acceptable"
    status = 422


@dataclass(frozen=True, slots=True)
class AuditScope:
    """The stretch of time that an engagement is about.

    Args:
        from_s: First unix second.
        to_s: Unix second after the last.
    """

    from_s: int = 0
    to_s: int = _EVER_S


@dataclass(frozen=True, slots=True)
class Engagement:
    """What an auditor whose request was recognised may see.

    Args:
        key_id: The auditor.
        scope: What was recorded in this time, and nothing else, is shown to it.
        opens_left: How many more consents it may have opened; None where all of them are.
        pseudonym_key: What this engagement's pseudonyms are made with, 32 bytes.
        opened: The consents that it chose so far; None where all are open.
    """

    key_id: bytes
    scope: AuditScope
    opens_left: int | None
    pseudonym_key: bytes
    opened: frozenset[ConsentId] | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """An auditor's request for a bundle that may be followed once its access is in the log.

    Args:
        engagement: What it may see.
        request: What it asked for.
        access: The access, not logged yet.
    """

    engagement: Engagement
    request: AuditRequest
    access: Pending


@dataclass(frozen=True, slots=True)
class AdmittedListing:
    """An auditor's request for its listing; `log_listing` records what it is shown before it is shown.

    Args:
        engagement: What it may see.
        public_key: The auditor's.
        chosen: Pseudonyms to open.
        first: First leaf of the engagement's time.
        end: Leaf after its last.
    """

    engagement: Engagement
    public_key: bytes
    chosen: tuple[bytes, ...]
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Auditor:
    """A registered auditor.

    Args:
        name: For the operator.
        public_key: Ed25519, 32 bytes.
        not_after_s: Unix second from which on its requests are refused.
        scope: What was recorded in this time, and nothing else, is shown to it.
        opens_left: How many more consents it may have opened; None where all of them are.
    """

    name: str
    public_key: bytes
    not_after_s: int
    scope: AuditScope
    opens_left: int | None


def register_auditor(
    session: Session,
    name: str,
    public_key: bytes,
    not_after: datetime,
    scope: AuditScope | None = None,
    *,
    opens: int | None = None,
) -> Pending:
    """Begin an engagement of a key until a time, instead of the one that it had; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        name: What the operator calls the auditor, at most 80 printable characters.
        public_key: Raw Ed25519 key, 32 bytes.
        not_after: When the access ends; a past time ends it now.
        scope: What it may be shown; the whole log by default.
        opens: How many consents, of its choice, it may have opened; every one without asking by default.

    Raises:
        BadAuditor: The name, the key, the scope or the number cannot be used.

    Guarantees: the key of the engagement's pseudonyms is new, and that of the one before is gone: nothing that
        this database holds joins the two.
    """
    scope = scope or AuditScope()
    if not 0 <= scope.from_s < scope.to_s <= _EVER_S:
        raise BadAuditor("An engagement is about the time from one day until a later one.")
    if opens is not None and not 0 <= opens <= MAX_OPENS:
        raise BadAuditor(f"An engagement opens none to {MAX_OPENS} consents of the auditor's choice, or every one.")
    if not name.isprintable() or _NAME.fullmatch(name) is None:
        raise BadAuditor("An auditor's name has 1 to 80 printable characters.")
    try:
        parse_public_key(public_key)
    except SealError as error:
        raise BadAuditor(f"The auditor's key cannot be used: {error.detail}") from error
    sqlite = session.get_bind().dialect.name == "sqlite"
    dialect = sqlalchemy.dialects.sqlite if sqlite else sqlalchemy.dialects.postgresql
    values: dict[str, Any] = {
        "public_key": public_key,
        "name": name,
        "not_after_s": unix_s(not_after),
        "scope_from_s": scope.from_s,
        "scope_to_s": scope.to_s,
        "opens_left": opens,
        "pseudonym_key": secrets.token_bytes(_KEY_BYTES),
    }
    session.connection().execute(
        dialect.insert(auditor)
        .values(key_id=key_id(public_key), **values)
        .on_conflict_do_update(index_elements=["key_id"], set_=values)
    )
    public: JsonObject = {
        "auditor": b64u(sha256(public_key)),
        "until": unix_s(not_after),
        "scope_from": scope.from_s,
        "scope_to": scope.to_s,
        **({} if opens is None else {"opens": opens}),
    }
    chosen_before = auditor_opened.c.key_id == key_id(public_key)
    session.connection().execute(delete(auditor_opened).where(chosen_before))
    return append(session, LeafKind.AUDITOR_ACCESS, public, {})


def end_all(session: Session, *, now: datetime) -> int:
    """End every engagement that goes on: a restored database forgot which ended early and what each had opened since.

    Returns:
        How many there were. Each was logged with a later end than it has now.
    """
    going_on = auditor.c.not_after_s > unix_s(now)
    return session.connection().execute(update(auditor).where(going_on).values(not_after_s=unix_s(now))).rowcount


def list_auditors(session: Session) -> list[Auditor]:
    """Return every auditor ever registered, by name."""
    return [_auditor(row) for row in session.connection().execute(select(auditor).order_by(auditor.c.name))]


def admit(session: Session, envelope: Envelope, *, origin: str, now: datetime) -> Admitted:
    """Accept an auditor's request: uses it up and logs the access, which must be in the log before anything is shown.

    Args:
        session: An open writing transaction.
        envelope: The signed request.
        origin: This server's issuer URL.
        now: The current time.

    Returns:
        What may be shown once the pending leaf is covered by a checkpoint.

    Raises:
        AuditRefused: Nobody registered signed it, the engagement ended or is about another time, it was
            made for another server or more than a minute away from now, or it was used before.
        RangeTooWide: The log ends before the range does, or it is wider than one bundle.
        RangeTooFull: More denials share its leaves than one bundle holds.
        NotInLog: The log has not been started.
    """
    row = _known(session, envelope, now)
    try:
        request = verify_audit_request(envelope, row.public_key)
    except SealError as error:
        raise AuditRefused(error.detail) from error
    _require_fresh(request, origin, now)
    size, _ = log.head(session)
    if request.last >= size or request.last - request.first >= MAX_LEAVES:
        raise RangeTooWide(f"The log has {size} leaves; ask for at most {MAX_LEAVES} of them at a time.")
    # A leaf that many denials share is shown whole, however many.
    if request.first < request.last and groups.count(session, request.first, request.last) > MAX_LEAVES:
        raise RangeTooFull(
            f"More than {MAX_LEAVES} denials share leaves of this range; ask for fewer leaves at a time."
        )
    engagement = _engagement(session, row)
    scope = engagement.scope
    first, end = (0, size) if scope == AuditScope() else log.range_between(session, scope.from_s, scope.to_s)
    if request.first < first or request.last >= end:
        raise AuditRefused(
            f"The engagement is about the leaves from {first} to {end - 1}; ask the operator for another scope."
        )
    _use_up(session, row, request, now)
    shown: JsonObject = {} if engagement.opened is None else {"shown": "chosen"}
    said: JsonObject = {"first": request.first, "last": request.last, **shown}
    return Admitted(engagement, request, _log_access(session, row.public_key, said, now=now))


def admit_listing(session: Session, envelope: Envelope, *, origin: str, now: datetime) -> AdmittedListing:
    """Accept an auditor's request for its listing and use it up; `log_listing` must follow before anything is shown.

    Args:
        session: An open writing transaction.
        envelope: The signed request.
        origin: This server's issuer URL.
        now: The current time.

    Raises:
        AuditRefused: As for `admit`; or the time that the engagement is about is not over, or nothing was
            recorded in it.
        NotInLog: The log has not been started.

    Guarantees: an engagement has one listing, about all of its time: two of different stretches would tell by
        their difference which rows a leaf belongs to.
    """
    row = _known(session, envelope, now)
    try:
        request = verify_listing_request(envelope, row.public_key)
    except SealError as error:
        raise AuditRefused(error.detail) from error
    _require_fresh(request, origin, now)
    engagement = _engagement(session, row)
    if unix_s(now) < engagement.scope.to_s + SETTLED_S:
        raise AuditRefused(
            "A listing is about a time that is over: this engagement's is not, or ended less than ten minutes ago."
        )
    first, end = log.range_between(session, engagement.scope.from_s, engagement.scope.to_s)
    if first == end:
        raise AuditRefused("Nothing was recorded in the time that the engagement is about.")
    _use_up(session, row, request, now)
    return AdmittedListing(engagement, row.public_key, request.chosen, first, end)


def log_listing(session: Session, admitted: AdmittedListing, digest: bytes, *, now: datetime) -> Pending:
    """Record which listing is about to be shown, so that nobody can say later that it was another.

    Args:
        session: An open writing transaction.
        admitted: Whose.
        digest: From `listing_digest`.
        now: The current time.
    """
    said: JsonObject = {
        "first": admitted.first,
        "last": admitted.end - 1,
        "shown": "listing",
        "listing": b64u(digest),
    }
    return _log_access(session, admitted.public_key, said, now=now)


def _known(session: Session, envelope: Envelope, now: datetime) -> Row[Any]:
    known = session.connection().execute(select(auditor).where(auditor.c.key_id == envelope.signatures[0][0]))
    row = known.one_or_none()
    if row is None or row.not_after_s <= unix_s(now):
        raise AuditRefused("No auditor whose access has not ended signed the request; ask the operator to register it.")
    return row


def _require_fresh(request: AuditRequest | ListingRequest, origin: str, now: datetime) -> None:
    if request.origin != origin or abs(unix_s(now) - request.issued_at) > MAX_AGE_S:
        raise AuditRefused(f"The request must be signed for {origin} within {MAX_AGE_S} seconds of being sent.")


def _use_up(session: Session, row: Row[Any], request: AuditRequest | ListingRequest, now: datetime) -> None:
    expires_at_s = request.issued_at + MAX_AGE_S + 1
    if not spend(session, b"audit", row.key_id, request.nonce, expires_at_s=expires_at_s, now=now):
        raise AuditRefused("The request was used before; sign a new one.")


def _log_access(session: Session, public_key: bytes, said: JsonObject, *, now: datetime) -> Pending:
    """Record what is about to be shown: a bundle that opens every consent, or `chosen` ones, or a `listing`."""
    public: JsonObject = {"auditor": b64u(sha256(public_key)), "at": unix_s(now), **said}
    return append(session, LeafKind.AUDITOR_ACCESS, public, {})


def _engagement(session: Session, row: Row[Any]) -> Engagement:
    chosen = select(auditor_opened.c.consent_id).where(auditor_opened.c.key_id == row.key_id)
    opened = frozenset(map(ConsentId, session.connection().execute(chosen).scalars()))
    scope = AuditScope(row.scope_from_s, row.scope_to_s)
    all_open = row.opens_left is None
    return Engagement(row.key_id, scope, row.opens_left, row.pseudonym_key, None if all_open else opened)


def _auditor(row: Row[Any]) -> Auditor:
    scope = AuditScope(row.scope_from_s, row.scope_to_s)
    return Auditor(row.name, row.public_key, row.not_after_s, scope, row.opens_left)
