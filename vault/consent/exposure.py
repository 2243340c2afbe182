"""What one person met in a month over all companies together: stimuli shown, candidates ranked, variations tried.

Whoever tries one candidate after another on one person, or one small change of a set after another, is
looking for what moves that person. The shape is counted, not the intention, so that nobody has to guess it.
Ranked candidates are kept as short tags under a key that is not in the database, and for one month.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import bindparam, delete, func, select
from sqlmodel import Session

from vault.clock import month_of
from vault.consent.models import exposure
from vault.db import Prepared
from vault.schema.category import Category
from vault.seal.ids import VaultId

STIMULI_PER_MONTH: Final = 1_000
"""How many stimuli a person meets in one calendar month (UTC), over all companies together."""

CANDIDATES_PER_MONTH: Final = 2_000
"""How many different candidates are ranked for a person in one calendar month (UTC), over all companies together."""

VARIATIONS_PER_MONTH: Final = 200
"""How many variations are ranked for a person in one calendar month (UTC), over all companies together."""

KEY_BYTES: Final = 32
_TAG_CHARS: Final = 8
_NO_LIMIT: Final = 2**31 - 1


class RankedMeanwhile(Exception):  # never leaves the service: the question is decided again
    """Another question added candidates of this person after the exposure was read."""


class ExposureSpent(Exception):  # never leaves the service: a company is told no more than of a rule about the person
    """The person's month holds no more of this, over all companies; another question was faster."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What one answer adds to a person's exposure.

    Args:
        stimuli: How many stimuli it shows the person.
        variations: 1 if it varies what was ranked this month already, else 0.
        new: Tags of the candidates that were not ranked this month, one after the other.
        seen_chars: How long the list of tags was when this was decided.
    """

    stimuli: int = 0
    variations: int = 0
    new: str = ""
    seen_chars: int = 0

    @property
    def candidates(self) -> int:
        """How many candidates are new."""
        return len(self.new) // _TAG_CHARS


NOTHING: Final = Addition()


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a person met so far in one month.

    Args:
        stimuli: Shown.
        variations: Ranked.
        ranked: Tags of the candidates ranked, one after the other.
        tag_key: Makes this person's tags of this month, 32 bytes.
    """

    stimuli: int
    variations: int
    ranked: str
    tag_key: bytes = field(repr=False)

    @property
    def candidates(self) -> int:
        """How many different candidates were ranked."""
        return len(self.ranked) // _TAG_CHARS

    def exceeded_by(self, addition: Addition) -> list[str]:
        """Return the names of the limits that an answer would pass, sorted; what adds nothing passes none.

        Guarantees: of a permitted answer this is empty, so its record tells the company nothing about
            what others showed or ranked.
        """
        used = {
            "candidates": (addition.candidates, self.candidates, CANDIDATES_PER_MONTH),
            "stimuli": (addition.stimuli, self.stimuli, STIMULI_PER_MONTH),
            "variations": (addition.variations, self.variations, VARIATIONS_PER_MONTH),
        }
        return [name for name, (more, so_far, most) in used.items() if more > 0 and so_far + more > most]

    def ranking(self, category: Category, codes: Iterable[str], shown: int) -> Addition:
        """Return what it adds to rank candidates and show the best.

        A ranking is a variation if at most half of its candidates, or at most one, is new this month.
        What is said about a candidate does not make it another one.

        Args:
            category: Of the candidates.
            codes: Each once.
            shown: How many of them are shown.
        """
        tags = [_tag(self.tag_key, category, code) for code in codes]
        known = {self.ranked[at : at + _TAG_CHARS] for at in range(0, len(self.ranked), _TAG_CHARS)}
        new = [tag for tag in tags if tag not in known]
        varied = len(new) <= max(1, len(tags) // 2)
        return Addition(shown, int(varied), "".join(new), len(self.ranked))


_ADDED: Final = {
    "stimuli": exposure.c.stimuli + bindparam("more_stimuli"),
    "variations": exposure.c.variations + bindparam("more_variations"),
    "ranked": exposure.c.ranked + bindparam("more_ranked"),
}
_ADD: Final = {
    dialect: module.insert(exposure)
    .values(
        vault_id=bindparam("vault_id"),
        month=bindparam("month"),
        stimuli=bindparam("more_stimuli"),
        variations=bindparam("more_variations"),
        ranked=bindparam("more_ranked"),
    )
    .on_conflict_do_update(
        index_elements=["vault_id", "month"],
        set_=_ADDED,
        where=(bindparam("most_stimuli") >= _ADDED["stimuli"])
        & (bindparam("most_variations") >= _ADDED["variations"])
        & (bindparam("most_chars") >= func.length(_ADDED["ranked"])),
    )
    .returning(func.length(exposure.c.ranked).label("chars"))
    for dialect, module in (("sqlite", sqlalchemy.dialects.sqlite), ("postgresql", sqlalchemy.dialects.postgresql))
}
_OF_MONTH: Final = Prepared(
    select(exposure.c.stimuli, exposure.c.variations, exposure.c.ranked).where(
        exposure.c.vault_id == bindparam("vault_id"), exposure.c.month == bindparam("month")
    )
)


def read(session: Session, vault_id: VaultId, now: datetime, key: bytes) -> Exposure:
    """Return what a person met so far this month.

    Args:
        session: Any transaction.
        vault_id: Whose.
        now: The current time.
        key: The service's secret for tags, 32 bytes. Under another key every candidate counts as new.
    """
    month = month_of(now)
    row = _OF_MONTH.one(session, vault_id=vault_id, month=month)
    tag_key = hashlib.blake2b(vault_id + month.encode(), key=key, digest_size=KEY_BYTES).digest()
    return Exposure(0, 0, "", tag_key) if row is None else Exposure(row.stimuli, row.variations, row.ranked, tag_key)


def add(session: Session, vault_id: VaultId, addition: Addition, now: datetime) -> None:
    """Add what one answer shows and ranks, or refuse; in the transaction of the answer.

    Args:
        session: An open writing transaction.
        vault_id: Whose.
        addition: As decided on the exposure of this month.
        now: The time of the decision.

    Raises:
        ExposureSpent: A limit would be passed.
        RankedMeanwhile: What is new, or a variation, must be decided again.

    Guarantees:
        No limit is passed, whatever the concurrency. What adds nothing passes none, as `exceeded_by` decided: also
        where more was met before the limit was lowered.
    """
    if addition == NOTHING:
        return
    if Exposure(0, 0, "", b"").exceeded_by(addition):  # the statement checks no first row of a month
        raise ExposureSpent
    connection = session.connection()
    values = {
        "vault_id": vault_id,
        "month": month_of(now),
        "more_stimuli": addition.stimuli,
        "more_variations": addition.variations,
        "more_ranked": addition.new,
        "most_stimuli": STIMULI_PER_MONTH if addition.stimuli else _NO_LIMIT,
        "most_variations": VARIATIONS_PER_MONTH if addition.variations else _NO_LIMIT,
        "most_chars": CANDIDATES_PER_MONTH * _TAG_CHARS if addition.new else _NO_LIMIT,
    }
    chars = connection.execute(_ADD[connection.dialect.name], values).scalar_one_or_none()
    if chars is None:
        met = _OF_MONTH.one(session, vault_id=vault_id, month=values["month"])
        if addition.new and len(met.ranked) != addition.seen_chars:  # others may have ranked what was counted as new
            raise RankedMeanwhile
        raise ExposureSpent
    if addition.new and chars != addition.seen_chars + len(addition.new):
        raise RankedMeanwhile


def forget(session: Session, vault_id: VaultId) -> None:
    """Forget what a person met; erasure calls this."""
    session.connection().execute(delete(exposure).where(exposure.c.vault_id == vault_id))


def _tag(tag_key: bytes, category: Category, code: str) -> str:
    named = f"{category} {code}".encode()  # neither holds a blank
    return hashlib.blake2b(named, key=tag_key, digest_size=_TAG_CHARS // 2).hexdigest()
