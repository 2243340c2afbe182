"""An engagement's listing: how often each consent was asked under, under names that mean something in it alone.

A pseudonym is SHA-256(tag || salt || name). Its salt comes from a key that the service drew for this one
engagement, so that the pseudonym stays the same within it, and neither tells the name nor is found again in
another engagement. Whoever is shown the salt can check which name the pseudonym stood for all along: the
service cannot put another consent behind a row once the auditor has chosen it.

A listing has no leaf index, no time and no order but that of the pseudonyms: each would join it to the log,
which is the same for everybody.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.leaf import LeafKind

FORMAT: Final = "twinvault-listing/v1"
MAX_LISTING_BYTES: Final = 256 * 2**20
SALT_BYTES: Final = 32
PSEUDONYM_BYTES: Final = 32

COUNTED: Final = (LeafKind.CONSENT_REQUEST, LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.DENIAL)
"""The events of a consent, which a row counts."""

_HEADER: Final = {"format", "first", "end", "rows", "alone", "erased"}
_ROW: Final = {"consent", "person", "grantee", "events"}
_OPENED: Final = {"consent", "consent_salt", "subject", "subject_salt"}
_NAME_BYTES: Final = 16


class Named(StrEnum):
    """What a pseudonym stands for; each kind of name has pseudonyms of its own."""

    CONSENT = "consent"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Opened:
    """Whom a row is about, shown because the auditor chose the row.

    Args:
        consent: The consent's id, 16 bytes.
        consent_salt: What its pseudonym was made with, 32 bytes.
        subject: The person's pseudonym towards the grantee, 16 bytes.
        subject_salt: What its pseudonym was made with, 32 bytes.
    """

    consent: bytes
    consent_salt: bytes = field(repr=False)
    subject: bytes
    subject_salt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One consent of a listing.

    Args:
        consent: Its pseudonym, 32 bytes.
        person: The pseudonym of the grantee's subject, 32 bytes: rows of one person towards one grantee share it.
        grantee: To whom it was given.
        counts: How many events of each of the kinds `COUNTED` it has in the time of the engagement.
        opened: Whom it is about, if the auditor chose it.
    """

    consent: bytes
    person: bytes
    grantee: str
    counts: Mapping[LeafKind, int]
    opened: Opened | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed listing, not verified yet.

    Args:
        first: First leaf of the engagement.
        end: Leaf after its last.
        rows: In the order of their consents' pseudonyms.
        alone: Denials that belong to no consent kept here.
        erased: Events of each kind whose personal half was erased; they stand in no row.
    """

    first: int
    end: int
    rows: tuple[Row, ...]
    alone: int
    erased: Mapping[LeafKind, int]


def pseudonym(named: Named, salt: bytes, name: bytes) -> bytes:
    """Return what a name is called in one engagement.

    Args:
        named: What the name is of.
        salt: 32 bytes.
        name: 16 bytes.
    """
    return hashlib.sha256(f"twinvault/pseudonym-{named}/v1\n".encode() + salt + name).digest()


def listing_lines(listing: Listing) -> Iterator[bytes]:
    """Yield the lines of a listing's file: a header, then one row a line."""
    header: JsonObject = {
        "format": FORMAT,
        "first": listing.first,
        "end": listing.end,
        "rows": len(listing.rows),
        "alone": listing.alone,
        "erased": _dump_counts(listing.erased),
    }
    yield dump_json(header) + b"\n"
    for row in listing.rows:
        record: JsonObject = {
            "consent": b64u(row.consent),
            "person": b64u(row.person),
            "grantee": row.grantee,
            "events": _dump_counts(row.counts),
        }
        if row.opened is not None:
            record["opened"] = {name: b64u(getattr(row.opened, name)) for name in sorted(_OPENED)}
        yield dump_json(record) + b"\n"


def listing_digest(listing: Listing) -> bytes:
    """Return the digest of a listing with nothing opened, which the leaf of its access commits to.

    Guarantees: it tells nothing about anybody: whoever has not seen the listing knows none of its pseudonyms, 32
        random-looking bytes a row.
    """
    shut = replace(listing, rows=tuple(replace(row, opened=None) for row in listing.rows))
    digest = hashlib.sha256()
    for line in listing_lines(shut):
        digest.update(line)
    return digest.digest()


def parse_listing(unverified_data: bytes) -> Listing:
    """Read a listing.

    Raises:
        MalformedProof: It is none, cut short or out of order; the sentence names the line.
    """
    if len(unverified_data) > MAX_LISTING_BYTES:
        raise MalformedProof(f"A listing is larger than {MAX_LISTING_BYTES} bytes.")
    *lines, rest = unverified_data.split(b"\n")
    if rest or not lines:
        raise MalformedProof("The listing is cut short: its last line has no end.")
    header = _object(lines[0], 1, _HEADER)
    if header["format"] != FORMAT:
        raise MalformedProof(f"Line 1 of the listing does not name the format {FORMAT}.")
    first, end, count, alone = (_count(header[name], 1) for name in ("first", "end", "rows", "alone"))
    if len(lines) != 1 + count:
        raise MalformedProof(f"The listing has {len(lines)} lines where its header announces {1 + count}.")
    rows = tuple(_row(line, number) for number, line in enumerate(lines[1:], 2))
    for number, (before, after) in enumerate(pairwise(rows), 3):
        if after.consent <= before.consent:
            raise MalformedProof(f"Line {number} of the listing: rows must ascend by their consents' pseudonyms.")
    return Listing(first, end, rows, alone, _counts(header["erased"], 1))


def verify_unchanged(before: Listing, after: Listing) -> None:
    """Check that a listing is the one that was shown before, but for rows opened or erased since.

    What an auditor chose from binds the service only if the listing cannot change once the choice is known.

    Args:
        before: What the auditor chose from, or saw before.
        after: What it is shown now.

    Raises:
        InvalidProof: A row was added, counts otherwise, was shut again, or is gone and not counted as erased.
    """
    kept = {row.consent: row for row in after.rows}
    gone: Counter[LeafKind] = Counter()
    for row in before.rows:
        now = kept.pop(row.consent, None)
        if now is None:
            gone.update(row.counts)
        elif (now if row.opened else replace(now, opened=None)) != row:
            raise InvalidProof(f"The row {b64u(row.consent)} is not what it was when it was listed before.")
    erased = Counter(before.erased) + gone
    same = (before.first, before.end, before.alone) == (after.first, after.end, after.alone)
    if kept or not same or erased != +Counter(after.erased):
        raise InvalidProof("The listing is another than the one shown before, and not only for what was erased since.")


def _row(line: bytes, number: int) -> Row:
    record = _object(line, number, _ROW, optional={"opened"})
    grantee = record["grantee"]
    if not isinstance(grantee, str):
        raise MalformedProof(f"Line {number} of the listing: a grantee is a text.")
    return Row(
        consent=_binary(record["consent"], number, PSEUDONYM_BYTES),
        person=_binary(record["person"], number, PSEUDONYM_BYTES),
        grantee=grantee,
        counts=_counts(record["events"], number),
        opened=_opened(record["opened"], number) if "opened" in record else None,
    )


def _opened(value: JsonValue, number: int) -> Opened:
    if not isinstance(value, dict) or set(value) != _OPENED:
        raise MalformedProof(f"Line {number} of the listing: what is opened has {', '.join(sorted(_OPENED))}.")
    return Opened(
        consent=_binary(value["consent"], number, _NAME_BYTES),
        consent_salt=_binary(value["consent_salt"], number, SALT_BYTES),
        subject=_binary(value["subject"], number, _NAME_BYTES),
        subject_salt=_binary(value["subject_salt"], number, SALT_BYTES),
    )


def _object(line: bytes, number: int, fields: Iterable[str], optional: Iterable[str] = ()) -> JsonObject:
    try:
        record = parse_json(line)
    except MalformedInput as error:
        raise MalformedProof(f"Line {number} of the listing: {error.detail}") from error
    if not set(fields) <= set(record) <= {*fields, *optional}:
        raise MalformedProof(f"Line {number} of the listing must have the fields {', '.join(sorted(fields))}.")
    return record


def _dump_counts(counts: Mapping[LeafKind, int]) -> JsonObject:
    return {kind.value: counts[kind] for kind in COUNTED if counts.get(kind)}


def _counts(value: JsonValue, number: int) -> dict[LeafKind, int]:
    if not isinstance(value, dict) or not set(value) <= {kind.value for kind in COUNTED}:
        raise MalformedProof(f"Line {number} of the listing: events are counted by their kind.")
    return {kind: _count(value[kind.value], number) for kind in COUNTED if kind.value in value}


def _count(value: JsonValue, number: int) -> int:
    if not isinstance(value, int) or value < 0:
        raise MalformedProof(f"Line {number} of the listing: a count must be a whole number.")
    return value


def _binary(value: JsonValue, number: int, size: int) -> bytes:
    try:
        return parse_b64u(value, size=size)
    except MalformedInput as error:
        raise MalformedProof(f"Line {number} of the listing: {error.detail}") from error
