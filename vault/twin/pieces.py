"""Pieces: each row that a refresh makes, from its charge to its sealed bytes. Only the worker makes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from vault.budget.days import Days
from vault.budget.ledger import Reservation
from vault.imprint.block import DAILY, Block, dump_block, dump_carried, mu2_micro, strategy_from
from vault.imprint.chain import errors
from vault.imprint.features import FeatureMap
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.rows import Row, dump_row, noisy
from vault.twin.months import Month
from vault.twin.opening import Ask
from vault.twin.rows import Place


@dataclass(eq=False)
class Run:
    """Consecutive days of one chain that are made together.

    Args:
        mapped: Map of the category.
        start: First day of the chain.
        sigma: Its noise, the same for its whole life.
        known: int64[days, K] e of the chain's days before: as private as the traces.
        pieces: Their blocks, by day.
    """

    mapped: FeatureMap
    start: date
    sigma: int
    known: Integers = field(repr=False)
    pieces: list[Piece] = field(default_factory=list, repr=False)

    @property
    def days(self) -> int:
        """How many days it makes."""
        return sum(piece.ask.shape[0] for piece in self.pieces)

    @property
    def following(self) -> date:
        """The day after its last one."""
        return self.start + timedelta(days=len(self.known) + self.days)


@dataclass(frozen=True, eq=False)
class Piece:
    """One row to make.

    Args:
        month: Which category and month.
        mapped: Map of the category.
        mechanism: How it is made.
        sensitivity: What one day changes it by, in units of its noise.
        sigma: Its noise.
        reservation: Its charge.
        ask: What of the traces goes into it.
        days: Which days, where they are not all of the month alike.
        run: Its chain, of a daily row.
    """

    month: Month
    mapped: FeatureMap
    mechanism: str
    sensitivity: int
    sigma: int
    reservation: Reservation
    ask: Ask
    days: Days | None = None
    run: Run | None = None

    @property
    def mu2_micro(self) -> int:
        """What it costs each of its days: millionths of (sensitivity / sigma)^2, rounded up."""
        return mu2_micro(self.sensitivity, self.sigma)

    @property
    def place(self) -> Place | None:
        """Where the row is stored."""
        if self.days is None:
            return None
        return Place(self.days.first, len(self.days), None if self.run is None else self.run.start)

    def payload(self, drawn: Drawn) -> bytes:
        """Return what is sealed under the imprint key."""
        name, mapped = self.reservation.release_id, self.mapped
        if self.run is None or self.days is None:
            return dump_row(Row(name, mapped.digest, self.month.period, 0, mapped.clip, self.sigma, drawn.values))
        first = self.days.first
        return dump_block(Block(name, mapped.digest, self.run.start, first, mapped.clip, self.sigma, drawn.values))

    def carried(self, drawn: Drawn) -> bytes:
        """Return what the chain goes on with; nothing where there is none."""
        return b"" if drawn.errors is None else dump_carried(self.month.heads, drawn.errors)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Noisy numbers.

    Args:
        values: What is released: int64[K], or int64[days, K] of a daily row.
        errors: e of a daily row's days.
    """

    values: Integers
    errors: Integers | None = field(default=None, repr=False)


def nothing(pieces: Iterable[Piece]) -> dict[Piece, Integers]:
    """Return the exact numbers of months without a batch."""
    return {piece: np.zeros(piece.ask.shape, dtype=np.int64) for piece in pieces}


def draw(exact: Mapping[Piece, Integers]) -> dict[Piece, Drawn]:
    """Draw the noise of many vaults' pieces at once: one draw for all that have the same noise."""
    alone: defaultdict[tuple[bytes, int], list[Piece]] = defaultdict(list)
    runs: defaultdict[tuple[bytes, date, int, int, int], list[Run]] = defaultdict(list)
    for piece in exact:
        if piece.mechanism != DAILY:
            alone[piece.mapped.digest, piece.sigma].append(piece)
        elif piece.run is not None and piece is piece.run.pieces[0]:
            run = piece.run
            runs[run.mapped.digest, run.start, run.sigma, len(run.known), run.days].append(run)
    found: dict[Piece, Drawn] = {}
    for (_, sigma), pieces in alone.items():
        values = noisy([exact[piece] for piece in pieces], DiscreteGaussian(sigma))
        found |= {piece: Drawn(row) for piece, row in zip(pieces, values, strict=True)}
    for alike in runs.values():
        for run, carried in zip(alike, _errors(alike), strict=True):
            at = 0
            for piece in run.pieces:
                mine = carried[at : at + piece.ask.shape[0]]
                found[piece] = Drawn(exact[piece] + mine, mine)
                at += piece.ask.shape[0]
    return found


def _errors(runs: Sequence[Run]) -> list[Integers]:
    """Return e of each run's days: runs of one strategy, one place in it and one noise."""
    one = runs[0]
    noise = DiscreteGaussian(one.sigma).sample((one.days, len(runs) * one.mapped.size))
    known = np.concatenate([run.known for run in runs], axis=1)
    return np.split(errors(strategy_from(one.start), noise, known), len(runs), axis=1)
