"""Daily rows of several categories: a share of the cap for each, one noise for a month, one for a chain."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from tests.twin.worker_kit import (
    CLOSED,
    OCTOBER,
    RETAIL_DAILY,
    SEPTEMBER,
    TwinWorld,
    another_vault,
    charges,
    days_made,
    epsilon,
    every_day,
)
from tests.vault_kit import MONTH, NOW, PURCHASE
from tests.waiting import together
from vault.budget import ledger
from vault.budget.days import sigma_of
from vault.db import Database
from vault.imprint.block import DAILY, LATE, block_id, strategy_from
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.rows import parse_row
from vault.schema.category import Category
from vault.schema.consent import ConsentVersion
from vault.schema.trace import Period
from vault.seal.ids import ConsentId
from vault.twin import refresh as refreshing
from vault.twin import routes
from vault.twin.children import Children
from vault.twin.levels import MONTH_DAYS, read_level
from vault.twin.refresh import Outcome, refresh

EVERY = mapped_for(Cadence.DAILY)
_, BROWSING, CLICKED, HEALTH = EVERY
DECEMBER = Period("2026-12")
START = date(2026, 9, 1)


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys, categories=EVERY, cadence=Cadence.DAILY)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, categories=EVERY, cadence=Cadence.DAILY)


def twin_of(world: TwinWorld, *categories: Category, **changed: Any) -> ConsentVersion:
    allowed = {
        "necessary": frozenset(categories),
        "optional": frozenset(),
        "explicit_special": frozenset({HEALTH} & {*categories}),
        "data_to": DECEMBER,
        "not_after": int((NOW + timedelta(days=90)).timestamp()),
    }
    return world.keep_twin(**allowed | changed)


def mapped_of(category: Category) -> FeatureMap:
    return feature_map(category, Cadence.DAILY)


def noises(world: TwinWorld, category: Category) -> list[tuple[date, date, int]]:
    """Return start of chain, first day and noise of every block."""
    return [(block.start, block.first, block.sigma) for block in world.blocks(category)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_category_of_the_consent_gets_its_share_of_a_days_cap(
    world: TwinWorld, children: Children, count: int
) -> None:
    shared = EVERY[:count]
    assert world.refresh(children, twin_of(world, *shared)) == Outcome(4 * count, "", failed=False)
    for category in shared:
        sigma = sigma_of(mapped_of(category), count, late=False)
        assert noises(world, category) == [(START, START.replace(month=month), sigma) for month in (9, 10, 11)]
        (late,) = (row for row in world.stored(category=category) if row.mechanism == LATE)
        assert parse_row(world.payload(late)).sigma == sigma_of(mapped_of(category), count, late=True)
    assert all(2.9 < epsilon(world, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH))
    assert not any(world.stored(category=category) for category in EVERY[count:])


def test_whoever_shares_one_category_has_the_rows_and_names_that_daily_rows_always_had(
    lite: TwinWorld, children: Children
) -> None:
    lite.refresh(children, twin_of(lite, PURCHASE))
    names = [row.release_id for row in lite.stored() if row.mechanism == DAILY]
    ends = (date(2026, 9, 30), date(2026, 10, 31), CLOSED)
    assert names == [
        block_id(RETAIL_DAILY, lite.owner.vault, START, (end.replace(day=1), end), sigma=12_833, batch_hashes=())
        for end in ends
    ]


def test_a_category_that_joins_in_mid_month_begins_with_the_next_and_the_other_goes_on(
    world: TwinWorld, children: Children
) -> None:
    world.extend(DECEMBER)
    alone = sigma_of(RETAIL_DAILY, late=False)
    world.refresh(children, twin_of(world, PURCHASE))
    both = twin_of(world, PURCHASE, BROWSING)
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, both) == Outcome(1, "budget-exhausted", failed=False)
    assert world.blocks(BROWSING) == []
    assert noises(world, PURCHASE)[-1] == (START, date(2026, 11, 21), alone)
    world.clock.at = NOW.replace(month=12, day=5)
    world.refresh(children, both)
    first = date(2026, 12, 1)
    assert noises(world, BROWSING) == [(first, first, sigma_of(mapped_of(BROWSING), 2, late=False))]
    assert noises(world, PURCHASE)[-2:] == [
        (START, date(2026, 11, 22), alone),
        (first, first, sigma_of(RETAIL_DAILY, 2, late=False)),
    ]
    assert days_made(world) == every_day(START, date(2026, 12, 2))
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, both).rows == 2
    assert {start for start, day, _ in noises(world, PURCHASE) if day >= first} == {first}, "and goes on from there"
    assert all(2.9 < epsilon(world, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH, DECEMBER))


def test_a_month_keeps_the_noise_that_it_was_paid_with_when_a_category_leaves(
    world: TwinWorld, children: Children
) -> None:
    world.extend(DECEMBER)
    world.refresh(children, twin_of(world, PURCHASE, CLICKED, HEALTH))
    third = sigma_of(RETAIL_DAILY, 3, late=False)
    left = twin_of(world, PURCHASE)
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, left) == Outcome(1, "", failed=False)
    assert noises(world, PURCHASE)[-1] == (START, date(2026, 11, 21), third)
    world.clock.at = NOW.replace(month=12, day=9)
    assert world.refresh(children, left).reason == ""
    first = date(2026, 12, 1)
    assert noises(world, PURCHASE)[-2:] == [
        (START, date(2026, 11, 22), third),
        (first, first, sigma_of(RETAIL_DAILY, late=False)),
    ]
    (late,) = (row for row in world.stored(OCTOBER) if row.mechanism == LATE)
    assert parse_row(world.payload(late)).sigma == sigma_of(RETAIL_DAILY, 3, late=True), "its late row too"
    assert days_made(world) == every_day(START, date(2026, 12, 6))
    back = twin_of(world, PURCHASE, CLICKED, HEALTH)
    world.clock.at += timedelta(days=1)
    # November was paid for with three, and so were its days that they had no row of; of December there is nothing left.
    assert world.refresh(children, back) == Outcome(5, "budget-exhausted", failed=False)
    assert days_made(world, HEALTH) == every_day(START, date(2026, 11, 30))
    assert {(start, sigma) for start, _, sigma in noises(world, HEALTH)} == {(START, third)}
    assert all(epsilon(world, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH, DECEMBER))


def test_a_stored_chain_ends_with_the_month_after_which_its_noise_changes(lite: TwinWorld, children: Children) -> None:
    lite.extend(DECEMBER)
    alone, both = twin_of(lite, PURCHASE), twin_of(lite, PURCHASE, CLICKED)
    lite.clock.at = NOW.replace(month=12, day=3)
    lite.refresh(children, alone)
    assert max(days_made(lite)) == date(2026, 11, 30)
    first, half = date(2026, 12, 1), sigma_of(RETAIL_DAILY, 2, late=False)
    for day in (1, 2):
        lite.clock.at += timedelta(days=1)
        assert lite.refresh(children, both).rows == 2
        assert noises(lite, PURCHASE)[-1] == (first, first.replace(day=day), half)
    assert {sigma for start, _, sigma in noises(lite, PURCHASE) if start == START} == {
        sigma_of(RETAIL_DAILY, late=False)
    }


def test_a_month_that_was_paid_by_a_run_that_died_keeps_its_noise_too(
    lite: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    both, alone = twin_of(lite, PURCHASE, HEALTH), twin_of(lite, PURCHASE)
    monkeypatch.setattr(refreshing, "_store", die)
    with pytest.raises(KeyboardInterrupt):
        lite.refresh(children, both)
    monkeypatch.undo()
    assert lite.refresh(children, alone) == Outcome(4, "", failed=False)
    assert {sigma for _, _, sigma in noises(lite, PURCHASE)} == {sigma_of(RETAIL_DAILY, 2, late=False)}
    assert all(epsilon(lite, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH))


def test_two_workers_that_race_under_consents_of_different_breadth_agree_on_a_months_noise(
    world: TwinWorld, children: Children
) -> None:
    both, alone = twin_of(world, PURCHASE, BROWSING), twin_of(world, PURCHASE)
    outcomes = together(*(lambda given=given: world.refresh(children, given) for given in (both, alone, both)))
    assert not any(outcome.failed for outcome in outcomes)
    assert days_made(world) == every_day(START, CLOSED)
    for period in (SEPTEMBER, OCTOBER, MONTH):
        drawn = {one.charge.mechanism["sigma"] for one in charges(world, period) if one.charge.category == PURCHASE}
        stored = {block.sigma for block in world.blocks() if f"{block.first:%Y-%m}" == period}
        assert len(drawn) == 1
        assert stored == drawn
        assert 2.9 < epsilon(world, period) <= 3.0


def test_what_was_not_explicitly_allowed_takes_no_share(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, twin_of(lite, PURCHASE, HEALTH, explicit_special=frozenset()))
    assert {sigma for _, _, sigma in noises(lite, PURCHASE)} == {sigma_of(RETAIL_DAILY, late=False)}
    assert lite.blocks(HEALTH) == []
    assert {one.charge.category for one in charges(lite, OCTOBER)} == {PURCHASE}


def test_vaults_of_different_shares_are_drawn_at_once_each_with_the_noise_that_it_pays_for(
    lite: TwinWorld, shortkeys: Database, children: Children
) -> None:
    other = another_vault(lite.database, shortkeys, lite)
    wanted = [(lite, EVERY), (other, (PURCHASE,))]
    versions = {world.owner.vault: ConsentId(twin_of(world, *shared).consent_id) for world, shared in wanted}
    refresh(lite.worker(children), versions)
    for world, shared in wanted:
        for category in shared:
            mapped, blocks = mapped_of(category), world.blocks(category)
            values = np.concatenate([block.values for block in blocks])
            matrix = strategy_from(START).matrix[: len(values), : len(values)]
            white = matrix @ values / sigma_of(mapped, len(shared), late=False)  # there was no trace
            # Of 81 days of 42 numbers or more, a true deviation of 1 misses this less than once in 10^8 runs.
            assert abs(white.std() - 1) < 0.07, (mapped.version, len(shared))


def test_the_noise_that_an_owner_is_told_of_is_that_of_every_chain(lite: TwinWorld, children: Children) -> None:
    lite.extend(DECEMBER)
    lite.refresh(children, twin_of(lite, PURCHASE))
    lite.clock.at = NOW.replace(month=12, day=20)
    lite.refresh(children, twin_of(lite, PURCHASE, CLICKED))
    assert len({sigma for _, _, sigma in noises(lite, PURCHASE)}) == 2
    today = lite.clock.at.date()
    for category in (PURCHASE, CLICKED):
        level = read_level(mapped_of(category), lite.blocks(category), today)
        assert level is not None
        (told,) = routes._noise_json(lite.stored(category=category), [], today)
        assert told["sd"] == pytest.approx(level.sigma / MONTH_DAYS / mapped_of(category).content)


def test_months_are_locked_in_their_order_whatever_the_categories_owe(
    lite: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.refresh(children, twin_of(lite, BROWSING))
    both, locked, held = twin_of(lite, PURCHASE, BROWSING), [], ledger._locked
    monkeypatch.setattr(ledger, "_locked", lambda session, scope: locked.append(scope.window) or held(session, scope))
    lite.clock.at += timedelta(days=1)
    lite.refresh(children, both)  # of browsing a day of November, of purchases every month
    reserving = locked[: locked.index(MONTH) + 1]
    assert {*reserving} == {SEPTEMBER, OCTOBER, MONTH}
    assert reserving == sorted(reserving), "two workers that lock in different orders wait for each other for ever"
