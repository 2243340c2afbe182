"""A sampled audit: an auditor opens some consents of a listing, and the others stay under pseudonyms.

Nothing shows which leaf a row that was not chosen stands for. But the rows together must count every event that
the log has, and each chosen row exactly the events that are opened: a consent left out of the listing, or an
event counted under another consent, shows as soon as one of the rows concerned is chosen. So the auditor
chooses, and the pseudonyms bind the service to the rows that it listed before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vault.encoding import b64u
from vault.errors import VaultError
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.proof.listing import COUNTED, Listing, Named, Opened, Row, listing_digest, pseudonym
from vault.proof.report import Failure, Report, Step


@dataclass
class Tally:
    """What the parts of an audit show of the events that a listing counts.

    Args:
        listing: What they are compared with at the end.
        opened: Events of each consent, opened.
        closed: Events of each kind that are not opened, because nobody chose their consent.
        erased: Events of each kind that a tombstone accounts for.
        alone: Denials, opened, that belong to no consent.
        logged: What leaves say of listings that were shown: digest, first and last leaf.
        given: To whom each opened consent was given, and the subject's name towards that grantee.
    """

    listing: Listing
    opened: Counter[tuple[str, LeafKind]] = field(default_factory=Counter)
    closed: Counter[LeafKind] = field(default_factory=Counter)
    erased: Counter[LeafKind] = field(default_factory=Counter)
    alone: int = 0
    logged: set[tuple[str, str, str]] = field(default_factory=set)
    given: dict[str, tuple[str, str]] = field(default_factory=dict)


def verify_listing(tally: Tally, looked_at: tuple[int | None, int]) -> Report:
    """Compare a listing with the log that it is about: step 19.

    Args:
        tally: What all parts of the audit showed.
        looked_at: The range that they cover: first leaf, and the one after the last.

    Returns:
        One check for the range, one for the leaf that the listing was logged with, one for each kind of event, one for each row that is opened or should be.
    """
    checked, failures = 0, []

    def attempt(check: Callable[..., None], *args: object) -> None:
        nonlocal checked
        checked += 1
        try:
            check(tally, *args)
        except VaultError as refusal:
            failures.append(Failure(Step.LISTING, None, refusal.detail))

    attempt(_verify_range, looked_at)
    attempt(_verify_logged)
    for kind in COUNTED:
        attempt(_verify_total, kind)
    rows = {b64u(row.opened.consent): row for row in tally.listing.rows if row.opened is not None}
    for row in rows.values():
        attempt(_verify_row, row, row.opened)
    for consent in sorted({consent for consent, _ in tally.opened} - rows.keys()):
        attempt(_unlisted, consent)
    return Report(0, {Step.LISTING: checked}, {}, tuple(failures))


def _verify_range(tally: Tally, looked_at: tuple[int | None, int]) -> None:
    listing = tally.listing
    if looked_at != (listing.first, listing.end):
        raise InvalidProof(
            f"The listing is about the leaves from {listing.first} until {listing.end}, but those from {looked_at[0]} "
            f"until {looked_at[1]} are shown: fetch the whole time of the engagement."
        )


def _verify_logged(tally: Tally) -> None:
    listing = tally.listing
    if (b64u(listing_digest(listing)), str(listing.first), str(listing.end - 1)) not in tally.logged:
        raise InvalidProof(
            "No leaf commits to this listing: it was changed since it was shown, or the parts were fetched before it."
        )


def _verify_total(tally: Tally, kind: LeafKind) -> None:
    alone = (tally.listing.alone, tally.alone) if kind is LeafKind.DENIAL else (0, 0)
    listed = sum(row.counts.get(kind, 0) for row in tally.listing.rows) + alone[0]
    logged = sum(count for (_, known), count in tally.opened.items() if known is kind) + tally.closed[kind] + alone[1]
    erased = tally.listing.erased.get(kind, 0), tally.erased[kind]
    if listed != logged or erased[0] != erased[1]:
        raise InvalidProof(
            f"The listing counts {listed} events of the kind {kind} and {erased[0]} that were erased; the log has "
            f"{logged} and {erased[1]}. Fetch both again if somebody was erased meanwhile; else something is left out."
        )


def _verify_row(tally: Tally, row: Row, opened: Opened) -> None:
    consent = b64u(opened.consent)
    shown = {
        row.consent: pseudonym(Named.CONSENT, opened.consent_salt, opened.consent),
        row.person: pseudonym(Named.PERSON, opened.subject_salt, opened.subject),
    }
    if any(listed != made for listed, made in shown.items()):
        raise InvalidProof(
            f"The row {b64u(row.consent)} was listed for another consent or person than it is opened as."
        )
    counted = {kind: tally.opened[consent, kind] for kind in COUNTED}
    if counted != {kind: row.counts.get(kind, 0) for kind in COUNTED}:
        raise InvalidProof(f"The row {b64u(row.consent)} counts other events than the log opens for its consent.")
    if tally.given.get(consent) != (row.grantee, b64u(opened.subject)):
        raise InvalidProof(f"The row {b64u(row.consent)} names another grantee or person than its signed consent.")


def _unlisted(_: Tally, consent: str) -> None:
    raise InvalidProof(f"Events of the consent {consent} are opened, but no row of the listing is opened as it.")
