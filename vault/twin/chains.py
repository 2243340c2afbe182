"""Which daily rows a refresh owes: every closed day once on time, every month's late row, each paid before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
from sqlmodel import Session

from vault.budget import days as charging
from vault.budget import ledger
from vault.budget.charge import owner_day
from vault.budget.days import Days, day_charge
from vault.budget.ledger import BudgetExhausted, ChargeConflict, Reservation
from vault.imprint.block import (
    DAILY,
    LATE,
    LATE_AFTER,
    block_id,
    late_id,
    late_sigma,
    mu2_micro,
    parse_carried,
    sensitivity,
)
from vault.imprint.features import FeatureMap
from vault.imprint.noise import Integers
from vault.proof.accounting import OWNER_DAY_CAP
from vault.schema.category import Category
from vault.schema.freshness import closes_at
from vault.schema.trace import periods_from
from vault.seal.derive import chain_key
from vault.seal.framing import frames
from vault.seal.ids import VaultId
from vault.seal.wrap import lock, unlock
from vault.twin import release, rows
from vault.twin.months import Month, Opening, Worker
from vault.twin.opening import Ask, Made, Wanted
from vault.twin.pieces import Piece, Run
from vault.twin.reader import maps_of
from vault.twin.rows import StoredRow


@dataclass(frozen=True)
class Owed:
    """What may be made now.

    Args:
        pieces: Reserved.
        refused: Slug of what was not, or empty.
    """

    pieces: tuple[Piece, ...]
    refused: str


def reserve(session: Session, worker: Worker, opening: Opening, code_hash: bytes) -> Owed:
    """Reserve the rows of every closed day that never had one, and the late rows that are due.

    Months are locked in their order, each for all categories at once: two workers never wait for each other.

    Args:
        session: An open writing transaction; the caller commits it before anything is opened.
        worker: The worker.
        opening: Names the months.
        code_hash: Of the code that makes them.

    Raises:
        SealError: What a chain goes on with does not open.
    """
    planned = {
        category: _Planned(session, worker, opening, category, code_hash)
        for category in sorted({month.category for month in opening.months})
    }
    pieces = [piece for month in opening.months for piece in planned[month.category].add(month)]
    return Owed(tuple(pieces), next((one.refused for one in planned.values() if one.refused), ""))


def seal_carried(carried: bytes, vault: VaultId, release_id: bytes, seed: bytes) -> bytes:
    """Return what a chain goes on with, locked to the seed of its rows' compartment."""
    return lock(chain_key(seed), carried, _context(vault, release_id)) if carried else b""


class _Planned:
    """One category's rows as they are planned, month by month."""

    def __init__(
        self, session: Session, worker: Worker, opening: Opening, category: Category, code_hash: bytes
    ) -> None:
        self.refused = ""
        self._session, self._worker, self._opening, self._mapped = session, worker, opening, worker.map_of(category)
        self._code_hash = code_hash
        self._vault = opening.permit.vault_id
        self._stored = rows.of_days(session, self._vault, category)
        self._carried: dict[bytes, tuple[dict[tuple[bytes, bytes], int], Integers]] = {}
        self._run: Run | None = None

    @cached_property
    def _maps(self) -> tuple[FeatureMap, ...]:
        """The maps under which chains go on; the last one is that of a fresh chain."""
        framing = release.framing(self._session, self._mapped, self._worker.row_keys)
        return (self._mapped,) if framing is None else maps_of(self._mapped, framing)

    def add(self, month: Month) -> list[Piece]:
        """Reserve what one month owes; months come in order."""
        first = date(int(month.period[:4]), int(month.period[5:]), 1)
        following = periods_from(month.period, 2)[1]
        end = date(int(following[:4]), int(following[5:]), 1) - timedelta(days=1)
        closed = [first + timedelta(days=at) for at in range((min(end, self._opening.closed) - first).days + 1)]
        mine = [row for row in self._stored if row.period == month.period]
        on_time = [row for row in mine if row.mechanism == DAILY]
        held_days = {day for row in on_time for day in _days_of(row)}
        due = self._worker.clock.now() >= closes_at(end, ZoneInfo(self._opening.keys.time_zone)) + LATE_AFTER
        late_due = due and len(on_time) == len(mine)
        if held_days >= set(closed) and not late_due:
            return []
        held = ledger.hold(self._session, owner_day(self._vault, month.period))
        sigma = charging.month_sigma(held, self._mapped, len(self._opening.permit.categories))
        gone = charging.gone(held, self._mapped.category, late=False)
        fresh = [self._block(month, days, sigma) for days in _stretches(day for day in closed if day not in gone)]
        made = [piece for piece in fresh if piece is not None]
        if late_due and not charging.gone(held, self._mapped.category, late=True):
            made += filter(None, [self._late(month, on_time, made, sigma)])
        return made

    def _block(self, month: Month, days: Days, sigma: int) -> Piece | None:
        run = self._run
        if run is None or (run.following, run.start.year, run.sigma) != (days.first, days.first.year, sigma):
            run = self._continued(days.first, sigma)
        mapped, place = run.mapped, (days.first, days.last)
        name = block_id(mapped, self._vault, run.start, place, sigma=sigma, batch_hashes=month.batch_hashes)
        # A child knows published maps alone: what a lens makes of its vectors is made here.
        ask = Ask(Wanted.VECTORS, self._mapped, month.period, (Made(days.first, len(days), {}),))
        reserved = self._reserved(mapped, days, name, sigma)
        if reserved is None:
            return None
        piece = Piece(month, mapped, DAILY, sensitivity(mapped.clip), sigma, reserved, ask, days, run)
        run.pieces.append(piece)
        self._run = run
        return piece

    def _late(self, month: Month, on_time: Iterable[StoredRow], fresh: Iterable[Piece], sigma: int) -> Piece | None:
        seeds, mapped = self._opening.keys.seeds, self._mapped
        known = [row for row in on_time if row.compartment_id in seeds and row.place is not None]
        self._open(known)
        made = [
            Made(row.place.first, row.place.days, self._carried[row.release_id][0]) for row in known if row.place
        ] + [Made(piece.days.first, len(piece.days), month.heads) for piece in fresh if piece.days is not None]
        if not made:
            return None  # no day of it has a row of its own here
        last = max(one.first + timedelta(days=one.days - 1) for one in made)
        days = Days(min(one.first for one in made), last, late=True)
        own, place = late_sigma(mapped.clip, sigma), (days.first, days.last)
        name = late_id(mapped, self._vault, place, sigma=own, batch_hashes=month.batch_hashes)
        ask = Ask(Wanted.LATE, mapped, month.period, tuple(made))
        reserved = self._reserved(mapped, days, name, sigma)
        return None if reserved is None else Piece(month, mapped, LATE, mapped.clip, own, reserved, ask, days)

    def _reserved(self, mapped: FeatureMap, days: Days, name: bytes, sigma: int) -> Reservation | None:
        charge = day_charge(mapped, self._vault, days, sigma=sigma, release_id=name, code_hash=self._code_hash)
        try:
            return charging.reserve(self._session, charge, OWNER_DAY_CAP, at=self._worker.clock.now())
        except (BudgetExhausted, ChargeConflict) as error:
            self.refused = error.slug  # these days keep what they have
            return None

    def _continued(self, first: date, sigma: int) -> Run:
        """Return the chain of that noise whose rows end the day before, if all of it can be opened, or else a fresh one.

        A chain goes on under the map that it began with; a fresh one is of days seen through the lens, if there is one.
        """
        cost, maps = mu2_micro(sensitivity(self._mapped.clip), sigma), {one.digest: one for one in self._maps}
        chains: defaultdict[tuple[date, FeatureMap], list[StoredRow]] = defaultdict(list)
        for row in self._stored:
            if row.place and row.place.chain_start and row.map_digest in maps and row.mu2_micro == cost:
                chains[row.place.chain_start, maps[row.map_digest]].append(row)
        for (start, mapped), blocks in chains.items():
            held = [day for row in blocks for day in _days_of(row)]
            whole = held == [start + timedelta(days=at) for at in range((first - start).days)]
            openable = all(row.compartment_id in self._opening.keys.seeds for row in blocks)
            if whole and start.year == first.year and openable:
                self._open(blocks)
                known = np.concatenate([self._carried[row.release_id][1] for row in blocks])
                return Run(mapped, start, sigma, known)
        return Run(self._maps[-1], first, sigma, np.zeros((0, self._maps[-1].size), dtype=np.int64))

    def _open(self, blocks: Iterable[StoredRow]) -> None:
        wanted = {row.release_id: row for row in blocks if row.release_id not in self._carried}
        for name, sealed in rows.carried(self._session, self._vault, wanted).items():
            seed = self._opening.keys.seeds[wanted[name].compartment_id]
            self._carried[name] = parse_carried(unlock(chain_key(seed), sealed, _context(self._vault, name)))


def _days_of(row: StoredRow) -> Iterator[date]:
    if row.place is not None:
        yield from (row.place.first + timedelta(days=at) for at in range(row.place.days))


def _stretches(days: Iterable[date]) -> list[Days]:
    """Return rising days as runs without a gap."""
    found: list[Days] = []
    for day in days:
        if found and found[-1].last == day - timedelta(days=1):
            found[-1] = Days(found[-1].first, day)
        else:
            found.append(Days(day, day))
    return found


def _context(vault: VaultId, release_id: bytes) -> bytes:
    return frames(b"chain", vault, release_id)
