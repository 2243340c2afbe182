"""Days that close together get their rows together, each day once, whatever its owner chooses when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tests.answers.test_daily import expected
from tests.twin.worker_kit import (
    OCTOBER,
    RETAIL_DAILY,
    SEPTEMBER,
    TwinWorld,
    charges,
    days_made,
    epsilon,
    every_day,
)
from tests.vault_kit import MONTH, NOW
from vault.budget.days import days_of
from vault.budget.ledger import State
from vault.db import Database
from vault.imprint.block import LATE
from vault.imprint.features import Cadence
from vault.jobs import queue
from vault.schema.consent import ConsentVersion
from vault.schema.freshness import Freshness, last_closed_day
from vault.schema.trace import Period
from vault.twin.children import Children
from vault.worker import schedule

BREAD, MILK = RETAIL_DAILY.codes[:2]
BEGUN = date(2026, 9, 1)
DECEMBER, JANUARY = Period("2026-12"), Period("2027-01")
PERIODS = (SEPTEMBER, OCTOBER, MONTH, DECEMBER, JANUARY)
ZONE = ZoneInfo("Europe/Berlin")


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, cadence=Cadence.DAILY, freshness=Freshness.MONTH)


def until_january(world: TwinWorld) -> ConsentVersion:
    world.extend(DECEMBER, JANUARY)
    return world.keep_twin(data_to=JANUARY, not_after=int((NOW + timedelta(days=120)).timestamp()))


def rows_of(world: TwinWorld) -> list[tuple[date, int]]:
    return [(block.first, len(block.values)) for block in world.blocks()]


def days_charged(world: TwinWorld) -> list[date]:
    """Return every day that the ledger says has had its on-time row, once for each time."""
    found = [
        days_of(one.charge) for period in PERIODS for one in charges(world, period) if one.state is State.COMMITTED
    ]
    return sorted(
        days.first + timedelta(at) for days in found if days is not None and not days.late for at in range(len(days))
    )


@pytest.mark.parametrize(
    ("freshness", "at", "rows"),
    [
        (Freshness.MONTH, datetime(2026, 12, 2, 22, 59, tzinfo=UTC), []),
        (Freshness.MONTH, datetime(2026, 12, 2, 23, tzinfo=UTC), [(date(2026, 11, 1), 30)]),
        (Freshness.WEEK, datetime(2026, 11, 24, 22, 59, tzinfo=UTC), [(date(2026, 11, 1), 15)]),
        (Freshness.WEEK, datetime(2026, 11, 24, 23, tzinfo=UTC), [(date(2026, 11, 1), 22)]),
        # The week of 30 November to 6 December lies in two months: two rows, of one chain.
        (Freshness.WEEK, datetime(2026, 12, 8, 22, 59, tzinfo=UTC), [(date(2026, 11, 1), 29)]),
        (Freshness.WEEK, datetime(2026, 12, 8, 23, tzinfo=UTC), [(date(2026, 11, 1), 30), (date(2026, 12, 1), 6)]),
        (Freshness.DAY, datetime(2026, 11, 24, 22, 59, tzinfo=UTC), [(date(2026, 11, 1), 21)]),
        (Freshness.DAY, datetime(2026, 11, 24, 23, tzinfo=UTC), [(date(2026, 11, 1), 22)]),
    ],
)
def test_rows_are_made_when_their_days_close_and_not_a_minute_before(
    lite: TwinWorld, children: Children, freshness: Freshness, at: datetime, rows: list[tuple[date, int]]
) -> None:
    version = until_january(lite)
    lite.choose(freshness)
    lite.clock.at = at
    lite.refresh(children, version)
    assert rows_of(lite) == [(BEGUN, 30), (date(2026, 10, 1), 31), *rows]
    assert {block.start for block in lite.blocks()} == {BEGUN}


@pytest.mark.parametrize(
    ("freshness", "steps"),
    [(Freshness.MONTH, [31]), (Freshness.WEEK, [6, 7, 7, 7, 4]), (Freshness.DAY, [1] * 31)],
)
def test_a_month_is_one_row_by_months_some_by_weeks_and_one_a_day_by_days(
    lite: TwinWorld, children: Children, freshness: Freshness, steps: list[int]
) -> None:
    version = until_january(lite)
    lite.choose(freshness)
    while lite.clock.at < datetime(2027, 1, 7, 12, tzinfo=UTC):
        lite.refresh(children, version)
        lite.clock.at += timedelta(days=1)
    assert [days for first, days in rows_of(lite) if first.month == 12] == steps
    assert days_made(lite) == days_charged(lite)


@pytest.mark.parametrize("seed", range(4))
def test_every_day_is_made_once_however_the_choice_goes_back_and_forth(
    lite: TwinWorld, children: Children, seed: int
) -> None:
    version, random, closed = until_january(lite), Random(seed), date.min
    before: list[object] = []
    while lite.clock.at < datetime(2027, 1, 31, tzinfo=UTC):
        freshness = random.choice(list(Freshness))
        lite.choose(freshness)
        closed = max(closed, last_closed_day(lite.clock.at, ZONE, freshness))
        lite.refresh(children, version)
        assert days_made(lite) == days_charged(lite) == every_day(BEGUN, closed)
        stored = lite.stored()
        assert [row for row in stored if row in before] == before  # byte for byte
        before = list(stored)
        lite.clock.at += timedelta(days=random.randint(1, 12), hours=random.randint(0, 23))
    assert {(block.start, block.first.year) for block in lite.blocks()} == {(BEGUN, 2026), (date(2027, 1, 1), 2027)}
    assert all(2.9 < epsilon(lite, period) <= 3.0 for period in PERIODS[:4])


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("freshness", Freshness)
def test_what_is_imported_late_in_its_month_is_answered_from_where_the_month_was_waited_for(
    lite: TwinWorld, children: Children, freshness: Freshness
) -> None:
    lite.choose(freshness)
    version = until_january(lite)
    for day in (23, 30, 32):
        lite.clock.at = datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(days=day - 1)
        lite.refresh(children, version)
    bought = range(1, 30)
    for day in bought:  # a month's export, imported on the second of the next one
        lite.buy(MILK, period=MONTH, day=day)
    lite.clock.at = datetime(2027, 1, 4, 12, tzinfo=UTC)
    lite.refresh(children, version)
    november = np.concatenate([block.values for block in lite.blocks() if block.first.month == 11])
    (late,) = [lite.read(row).values for row in lite.stored(MONTH) if row.mechanism == LATE]
    milk = RETAIL_DAILY.day_vector([MILK])
    # The Sunday of the 29th closed when 1 December ended.
    on_time = bought if freshness is Freshness.MONTH else range(0)
    assert np.flatnonzero(november.any(1)).tolist() == [day - 1 for day in on_time]
    assert (november.sum(0) + late == len(bought) * milk).all()
    empty = [replace(block, values=np.zeros_like(block.values)) for block in lite.blocks()]
    answer, nobody = (expected(blocks, date(2027, 1, 4)) for blocks in (lite.blocks(), empty))
    assert (answer.predictions[0].code == MILK) == bool(on_time)
    assert (answer.predictions == nobody.predictions) == (not on_time)


def test_the_schedule_asks_when_days_have_closed_and_not_before(lite: TwinWorld) -> None:
    until_january(lite)

    def due(day: int, hour: int, month: int = 12, minute: int = 0) -> int:
        at = datetime(2026, month, day, hour, minute, tzinfo=UTC)
        with lite.database.transaction() as session:
            found = schedule(session, at, Cadence.DAILY)
            if found:
                (job,) = queue.claim(session, now=at, lease_s=60)
                queue.finish(session, job)
        return found

    assert [due(23, 12, 11), due(30, 12, 11), due(2, 22, minute=59), due(2, 23), due(3, 12)] == [1, 0, 0, 1, 0]
    lite.choose(Freshness.WEEK)
    assert [due(8, 22, minute=59), due(8, 23), due(9, 12), due(12, 12), due(15, 23)] == [0, 1, 0, 0, 1]
    lite.choose(Freshness.DAY)
    assert [due(16, 22, minute=59), due(16, 23), due(17, 12), due(17, 23)] == [0, 1, 0, 1]
    lite.choose(Freshness.MONTH)
    assert [due(20, 23), due(31, 23)] == [0, 0]
