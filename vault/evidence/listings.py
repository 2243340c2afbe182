"""An engagement's listing: how often each consent was asked under, under pseudonyms, and those that the auditor chose."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import consents
from vault.encoding import JsonObject, b64u, parse_b64u, parse_json
from vault.errors import VaultError
from vault.evidence.auditors import Engagement, RangeTooFull
from vault.evidence.models import auditor, auditor_opened
from vault.proof.leaf import LeafKind, Opening
from vault.proof.listing import COUNTED, Listing, Named, Opened, Row, pseudonym
from vault.seal.ids import ConsentId
from vault.tlog import groups, log
from vault.tlog.log import Pending, append

MAX_ROWS: Final = 200_000

_PAGE: Final = 5_000


class BadChoice(VaultError):
    """Consents to be opened that the engagement does not list, or more than it may."""

    slug = "bad-audit-choice"
    title = "Choice is not acceptable"
    status = 422


@dataclass(slots=True)
class _Consent:
    """What a listing gathers of one consent."""

    subject: bytes
    grantee: str
    counts: Counter[LeafKind] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Built:
    """A listing, and which consents stand behind its rows.

    Args:
        listing: What the auditor is shown, with nothing opened.
        names: The consent and the subject of each row, by the consent's pseudonym.
    """

    listing: Listing
    names: dict[bytes, tuple[ConsentId, bytes]]


def build(session: Session, engagement: Engagement, first: int, end: int) -> Built:
    """Count what happened under each consent.

    Args:
        session: A snapshot.
        engagement: Whose pseudonyms.
        first: First leaf of its time.
        end: Leaf after its last.

    Raises:
        RangeTooFull: More consents have events in this time than one listing holds.

    Guarantees: of a row that is not opened nothing joins to a leaf but its counts and its grantee: no leaf index,
        no time, no order of the log.
    """
    found: dict[bytes, _Consent] = {}
    erased: Counter[LeafKind] = Counter()
    alone = 0
    for kind, personal in _events(session, first, end):
        if personal is None:
            erased[kind] += 1
            continue
        event = parse_json(personal.body)
        if "consent" not in event:
            alone += 1
            continue
        name = parse_b64u(event["consent"])
        party = str(event.get("grantee", event.get("requester")))
        known = found.setdefault(name, _Consent(parse_b64u(event["subject"]), party))
        known.counts[kind] += 1
        if len(found) > MAX_ROWS:
            raise RangeTooFull(f"More than {MAX_ROWS} consents have events in this time; ask for a shorter engagement.")
    named: dict[bytes, tuple[ConsentId, bytes]] = {}
    rows = []
    for name, known in found.items():
        row = Row(
            consent=pseudonym(Named.CONSENT, _salt(engagement, Named.CONSENT, name), name),
            person=pseudonym(Named.PERSON, _salt(engagement, Named.PERSON, known.subject), known.subject),
            grantee=known.grantee,
            counts=known.counts,
        )
        rows.append(row)
        named[row.consent] = ConsentId(name), known.subject
    rows.sort(key=lambda row: row.consent)
    return Built(Listing(first, end, tuple(rows), alone, erased), named)


def choose(
    session: Session, engagement: Engagement, built: Built, chosen: Sequence[bytes], now: datetime
) -> list[Pending]:
    """Open consents to an auditor from now on; each is an event that its owner sees.

    Args:
        session: An open writing transaction.
        engagement: Whose.
        built: Its listing.
        chosen: Pseudonyms of consents.
        now: The current time.

    Returns:
        The events, which must be in the log before anything is opened.

    Raises:
        BadChoice: The listing has no such row, or the engagement opens no more.
    """
    unknown = [name for name in chosen if name not in built.names]
    if unknown:
        raise BadChoice(f"The engagement's listing has no row {b64u(unknown[0])}; fetch it and choose from it.")
    if engagement.opened is None or not chosen:
        return []
    this = (auditor.c.key_id == engagement.key_id) & (auditor.c.pseudonym_key == engagement.pseudonym_key)
    connection = session.connection()
    left = connection.execute(select(auditor.c.opens_left).where(this).with_for_update()).scalar_one_or_none()
    before = connection.execute(
        select(auditor_opened.c.consent_id).where(auditor_opened.c.key_id == engagement.key_id)
    ).scalars()
    fresh = sorted({built.names[name][0] for name in chosen} - set(before))  # in the order of locks
    if left is None or left < len(fresh):
        raise BadChoice(f"The engagement opens {left or 0} more consents; these are {len(fresh)}.")
    if fresh:
        connection.execute(update(auditor).where(this).values(opens_left=left - len(fresh)))
        values = [{"key_id": engagement.key_id, "consent_id": name} for name in fresh]
        connection.execute(insert(auditor_opened), values)
    return [_log_opening(session, name, now) for name in fresh]


def shown(built: Built, engagement: Engagement, chosen: Sequence[bytes]) -> Listing:
    """Return a listing with the rows opened that the auditor chose now or before."""
    opened = {name for name, (consent, _) in built.names.items() if consent in (engagement.opened or ())} | {*chosen}
    rows = (
        replace(row, opened=_opened(engagement, *built.names[row.consent])) if row.consent in opened else row
        for row in built.listing.rows
    )
    return replace(built.listing, rows=tuple(rows))


def _events(session: Session, first: int, end: int) -> Iterator[tuple[LeafKind, Opening | None]]:
    """Yield every event of a consent, in a leaf of its own or in one that many share."""
    for start in range(first, end, _PAGE):
        leaves = log.between(session, (*COUNTED, LeafKind.DENIALS), start, min(start + _PAGE, end) - 1)
        yield from ((leaf.kind, leaf.personal) for leaf in leaves if leaf.kind is not LeafKind.DENIALS)
        for leaf in leaves:
            if leaf.kind is LeafKind.DENIALS:
                kept = groups.members(session, {leaf.pending_id: leaf.index})
                yield from ((LeafKind.DENIAL, one.member.personal) for one in kept)


def _salt(engagement: Engagement, named: Named, name: bytes) -> bytes:
    return hmac.new(engagement.pseudonym_key, named.encode() + b"\n" + name, hashlib.sha256).digest()


def _opened(engagement: Engagement, consent: ConsentId, subject: bytes) -> Opened:
    salts = _salt(engagement, Named.CONSENT, consent), _salt(engagement, Named.PERSON, subject)
    return Opened(consent, salts[0], subject, salts[1])


def _log_opening(session: Session, consent_id: ConsentId, now: datetime) -> Pending:
    consents.lock(session, consent_id)
    found = consents.find(session, consent_id)
    if found is None:
        raise BadChoice("A consent that was chosen was erased meanwhile; fetch the listing again.")
    personal: JsonObject = {"opened": b64u(consent_id), "grantee": found.current.terms.grantee}
    public: JsonObject = {"at": unix_s(now), "shown": "opened"}
    return append(session, LeafKind.AUDITOR_ACCESS, public, personal, about=found.vault_id)
