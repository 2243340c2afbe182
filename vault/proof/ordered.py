"""Who ordered what a tombstone accounts for: the person whose event it was, by their key, or somebody by their word.

Executors and operators hold no key of a subject, and after a restore nobody has the owner's order any more. What was
erased by them, or again, rests on the service's word: it is counted by whose, so that an auditor asks for the grounds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from vault.clock import DAY_S, month_of
from vault.encoding import JsonObject, JsonValue
from vault.proof.bound import verify_bound
from vault.proof.errors import InvalidProof
from vault.proof.event import LAST_S
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.errors import SealError
from vault.seal.framing import frames
from vault.seal.ids import SubjectId
from vault.seal.subject_erasure import SubjectErasure, verify_subject_erasure

OWNER: Final = "owner"
AGAIN: Final = "again"
AUTHORS: Final = (OWNER, "executors", "operator", AGAIN)
"""By whose order an event may be erased; `again` by the service after a restore."""

_SKEW_S: Final = 600
_WITHIN_S: Final = 2 * DAY_S + _SKEW_S  # an order is carried out within a day of being signed, some time on its day
_MONTH: Final = re.compile("[0-9]{4}-[0-9]{2}")
_BEGINS: Final = frames(PayloadType.SUBJECT_ERASURE.encode())


class _Erasable(Protocol):
    """What a tombstone says of whose event it is about."""

    @property
    def leaf(self) -> int: ...

    @property
    def member(self) -> int: ...

    @property
    def subject(self) -> bytes: ...

    @property
    def subject_salt(self) -> bytes: ...


class Shown(Protocol):
    """What this needs of the evidence."""

    @property
    def subject_erasures(self) -> Mapping[SubjectId, SubjectErasure]:
        """From `orders_by_subject`."""

    @property
    def hides_subjects(self) -> bool:
        """Whether the bundle leaves out whose events were erased."""

    @property
    def erased(self) -> Counter[str]:
        """How many events were erased, by author."""

    def hide_subject(self) -> None:
        """Count an order that is left out."""

    def dated_before(self, leaf: int) -> int:
        """Return the latest time that a leaf before this one says, unix seconds."""


def author_of(erasure: JsonObject) -> str:
    """Return by whose order the tombstones are that follow from an erasure, by its leaf's public half."""
    return AGAIN if erasure.get("again") else str(erasure.get("author"))


def is_subject_erasure(record: bytes) -> bool:
    """Say whether a record of a bundle claims to be a person's order to erase one subject."""
    return record.startswith(_BEGINS)


def orders_by_subject(unverified_records: Iterable[bytes], log: str) -> dict[SubjectId, SubjectErasure]:
    """Return the orders among a bundle's records that a subject's key signed; what does not hold orders nothing."""
    found: dict[SubjectId, SubjectErasure] = {}
    for record in filter(is_subject_erasure, unverified_records):
        with suppress(SealError):
            said = verify_subject_erasure(parse_envelope(record), log)
            if said.subject not in found or found[said.subject].day < said.day:
                found[said.subject] = said
    return found


def verify_ordered(shown: Shown, tombstone: _Erasable, author: str, public: JsonObject) -> None:
    """Check that what an owner is said to have had erased was this owner's; count it by author.

    Args:
        shown: The evidence.
        tombstone: One that holds.
        author: Of its group, one of `AUTHORS`.
        public: The verified public half of the erased event.

    Raises:
        InvalidProof: The key of the subject to whom the event is bound ordered nothing, or ordered it before.
    """
    if author == OWNER and shown.hides_subjects and not tombstone.subject:
        return shown.hide_subject()
    if author == OWNER:
        ordered = shown.subject_erasures.get(SubjectId(tombstone.subject))
        if ordered is None:
            raise InvalidProof("The tombstone says that its owner ordered it, but no key of the subject did.")
        verify_bound(public, tombstone.subject, tombstone.subject_salt)
        reaches_s = min(ordered.at_s + _WITHIN_S, LAST_S)
        later = not tombstone.member and shown.dated_before(tombstone.leaf) > reaches_s
        # A stretch of the log that begins with the event has nothing dated before it: the event itself says its month.
        if later or not _is_month_until(public.get("period"), reaches_s):
            raise InvalidProof("The owner's order is older than the event that it is said to have erased.")
    shown.erased[author] += 1
    return None


def _is_month_until(period: JsonValue | None, at_s: int) -> bool:
    is_month = isinstance(period, str) and _MONTH.fullmatch(period) is not None
    return is_month and str(period) <= month_of(datetime.fromtimestamp(at_s, UTC))
