"""What a backbone is shown of a member of the cohort: released rows, opened by the seeds of their cohort consent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import assert_never
from zoneinfo import ZoneInfo

import numpy as np
from sqlmodel import Session

from vault.imprint.block import DAILY, Block, parse_block
from vault.imprint.features import Cadence, FeatureMap
from vault.imprint.noise import Integers
from vault.imprint.rows import Row, parse_row
from vault.schema.freshness import Freshness, last_closed_day
from vault.schema.trace import Period, period_of
from vault.seal import row as sealed_rows
from vault.seal.derive import imprint_key
from vault.seal.errors import SealError
from vault.twin import rows
from vault.twin.levels import Level, read_level
from vault.twin.months import Month, Opening, Worker
from vault.twin.rows import StoredRow

_ELSEWHERE = "A stored imprint row is not the one that it lies in the place of."


@dataclass(frozen=True, eq=False)
class Shown:
    """What a model reads beside a month's targets.

    Args:
        values: int64[K]: the month's own row; of daily rows, the level on its first day, as one month before it.
        sigma: Noise in them, at least 1.
        worth: How many months the values are worth; 0 where there was no daily row before.
    """

    values: Integers
    sigma: int
    worth: float = 1.0


def shown(
    session: Session, worker: Worker, opening: Opening, maps: Sequence[FeatureMap]
) -> dict[Month, tuple[Shown, ...]]:
    """Return what is shown beside each closed month that may be opened and has rows, by each of some maps.

    Args:
        session: Any transaction.
        worker: The worker.
        opening: From `plan`, to train.
        maps: From `vault.twin.reader.maps_of`: the category's, and of daily ones what a lens makes of it.

    Raises:
        SealError: A row is by no key that the operator stated for the worker, or not the one that its place says.
    """
    mapped = maps[0]
    zone = ZoneInfo(opening.keys.time_zone)
    closed = period_of(last_closed_day(worker.clock.now(), zone, Freshness.MONTH))
    months = {month.period: month for month in opening.months if month.category == mapped.category}
    read = {one.digest for one in maps}
    stored = [
        (one, _payload(worker, opening, one))
        for one in rows.rows_for(session, opening.permit.vault_id, mapped.category, months)
        if one.compartment_id in opening.keys.seeds and one.map_digest in read
    ]
    match mapped.cadence:
        case Cadence.MONTHLY:
            opened = {months[one.period]: _row(one, payload) for one, payload in stored}
            return {month: (Shown(row.values, row.sigma),) for month, row in opened.items()}
        case Cadence.DAILY:
            blocks = [_block(one, payload) for one, payload in stored if one.mechanism == DAILY]
            with_rows = {one.period for one, _ in stored}
            return {
                month: tuple(_level(mapped, blocks, _first(period)) for mapped in maps)
                for period, month in months.items()
                if period in with_rows and period <= closed
            }
        case _ as other:
            assert_never(other)


def _level(mapped: FeatureMap, blocks: Sequence[Block], asked: date) -> Shown:
    return _as_month(mapped, read_level(mapped, [one for one in blocks if one.map_digest == mapped.digest], asked))


def _as_month(mapped: FeatureMap, level: Level | None) -> Shown:
    if level is None:
        return Shown(np.zeros(mapped.size, dtype=np.int64), 1, 0.0)
    return Shown(np.rint(level.values).astype(np.int64), max(round(level.sigma), 1), level.months)


def _payload(worker: Worker, opening: Opening, stored: StoredRow) -> bytes:
    verified = sealed_rows.verify_row(sealed_rows.parse_row(stored.sealed), *worker.row_keys)
    header = verified.header
    place = header.vault, header.compartment, header.release
    if place != (stored.vault_id, stored.compartment_id, stored.release_id):
        raise SealError(_ELSEWHERE)
    return sealed_rows.open_row(verified, imprint_key(opening.keys.seeds[stored.compartment_id]))


def _row(stored: StoredRow, payload: bytes) -> Row:
    opened = parse_row(payload)
    if (opened.release_id, opened.period) != (stored.release_id, stored.period):
        raise SealError(_ELSEWHERE)
    return opened


def _block(stored: StoredRow, payload: bytes) -> Block:
    opened = parse_block(payload)
    place = rows.Place(opened.first, len(opened.values), opened.start)
    if (opened.release_id, place) != (stored.release_id, stored.place):
        raise SealError(_ELSEWHERE)
    return opened


def _first(period: Period) -> date:
    return date(int(period[:4]), int(period[5:]), 1)
