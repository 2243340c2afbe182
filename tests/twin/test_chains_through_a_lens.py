"""Fresh chains are of days seen through the first model's lens; what goes on, what comes late and what it costs stays."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from tests.twin.lens_kit import later, lens_of, release_trained, seen_through, with_habits, withdraw_model
from tests.twin.worker_kit import (
    CLOSED,
    OCTOBER,
    RETAIL_DAILY,
    SEPTEMBER,
    TwinWorld,
    another_vault,
    carried_of,
    charges,
    days_made,
    epsilon,
    erase,
    every_day,
    made_at,
    renew,
)
from tests.vault_kit import MONTH, NOW, PURCHASE
from vault.budget.ledger import State
from vault.db import Database
from vault.imprint.block import DAILY, LATE
from vault.imprint.features import Cadence, feature_map
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.signing import SigningKey, new_seed
from vault.twin import refresh as refreshing
from vault.twin import release
from vault.twin.children import Children
from vault.twin.refresh import Outcome

BREAD, MILK = RETAIL_DAILY.codes[:2]
MODEL = with_habits()
SEEN = seen_through(MODEL)
FIRST = date(2026, 9, 1)


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys, cadence=Cadence.DAILY)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, cadence=Cadence.DAILY)


def chains_of(world: TwinWorld) -> list[tuple[date, bytes, int]]:
    """Return the chains there are: from when on, of which map and how wide."""
    return sorted({(block.start, block.map_digest, block.values.shape[1]) for block in world.blocks()})


def plain(start: date) -> tuple[date, bytes, int]:
    return start, RETAIL_DAILY.digest, RETAIL_DAILY.size


def projected(start: date) -> tuple[date, bytes, int]:
    return start, SEEN.digest, SEEN.size


def exact_days(world: TwinWorld) -> np.ndarray:
    """Return y - e of every day."""
    pairs = zip(world.blocks(), carried_of(world), strict=True)
    return np.concatenate([block.values - errors for block, (_, errors) in pairs])


def test_a_chain_goes_on_plain_to_the_years_end_and_the_next_year_begins_through_the_lens(
    lite: TwinWorld, children: Children
) -> None:
    lite.extend(Period("2026-12"), Period("2027-01"))
    until = int((NOW + timedelta(days=90)).timestamp())
    version = lite.keep_twin(data_to=Period("2027-01"), not_after=until)
    lite.refresh(children, version)
    assert chains_of(lite) == [plain(FIRST)]  # there is no model yet
    release_trained(lite.database, MODEL, lite.worker_key)
    lite.clock.at += timedelta(days=1)
    assert lite.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
    assert chains_of(lite) == [plain(FIRST)]
    lite.clock.at = NOW.replace(year=2027, month=1, day=9)
    lite.refresh(children, version)
    assert chains_of(lite) == [plain(FIRST), projected(date(2027, 1, 1))]
    lite.clock.at += timedelta(days=1)
    assert lite.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
    assert chains_of(lite) == [plain(FIRST), projected(date(2027, 1, 1))]
    assert days_made(lite) == every_day(FIRST, date(2027, 1, 7))
    assert epsilon(lite, Period("2027-01")) == epsilon(lite, OCTOBER) <= 3.0


def test_what_is_stored_is_each_day_as_the_lens_shows_it_and_noise(world: TwinWorld, children: Children) -> None:
    like, version = another_vault(world.database, world.shortkeys, world), world.keep_twin()
    like.refresh(children, like.keep_twin())
    release_trained(world.database, MODEL, world.worker_key)
    world.buy(BREAD, MILK, day=5)
    world.buy(BREAD, day=6)
    world.buy(MILK, "acme:unheard-of", period=MONTH, day=20)
    world.buy(*RETAIL_DAILY.codes[:200], day=30)
    assert world.refresh(children, version) == Outcome(rows=4, reason="", failed=False)
    assert chains_of(world) == [projected(FIRST)]
    expected = np.zeros((81, SEEN.size), dtype=np.int64)
    bought = ((34, [BREAD, MILK]), (35, [BREAD]), (80, [MILK, "acme:unheard-of"]), (59, RETAIL_DAILY.codes[:200]))
    for day, codes in bought:
        expected[day] = SEEN.day_vector(codes)
        assert expected[day].any()
    assert (exact_days(world) == expected).all()
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, version).rows == 1
    assert not exact_days(world)[-1].any()
    for period in (SEPTEMBER, OCTOBER, MONTH):
        assert epsilon(world, period) == epsilon(like, period) <= 3.0
        costs = [{row.mu2_micro for row in one.stored(period) if row.mechanism == DAILY} for one in (world, like)]
        assert costs[0] == costs[1]
    assert {row.map_digest for row in world.stored() if row.mechanism == DAILY} == {SEEN.digest}


def test_after_an_erasure_the_fresh_chain_is_through_the_lens(world: TwinWorld, children: Children) -> None:
    version = world.keep_twin()
    world.refresh(children, version)
    release_trained(world.database, MODEL, world.worker_key)
    gone = world.owner.compartment(PURCHASE, OCTOBER).id
    erase(world, gone)
    world.extend(OCTOBER)
    renewed = renew(world, version, gone)
    world.clock.at += timedelta(days=2)
    assert world.refresh(children, renewed).rows == 1
    assert chains_of(world) == [plain(FIRST), projected(date(2026, 11, 21))]
    assert days_made(world) == every_day(FIRST, date(2026, 9, 30)) + every_day(date(2026, 11, 1), date(2026, 11, 22))
    assert epsilon(world, MONTH) <= 3.0


def test_a_run_that_died_before_it_stored_makes_the_same_releases_at_no_further_cost(
    world: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_trained(world.database, MODEL, world.worker_key)
    world.buy(BREAD)
    version = world.keep_twin()

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refreshing, "_store", die)
    with pytest.raises(KeyboardInterrupt):
        world.refresh(children, version)
    monkeypatch.undo()
    months = (SEPTEMBER, OCTOBER, MONTH)
    reserved = {one.charge.release_id for period in months for one in charges(world, period)}
    cost = epsilon(world, OCTOBER)
    assert world.refresh(children, version) == Outcome(rows=4, reason="", failed=False)
    assert {row.release_id for row in world.stored()} == reserved
    assert {one.charge.release_id for period in months for one in charges(world, period)} == reserved
    assert {one.state for period in months for one in charges(world, period)} == {State.COMMITTED}
    assert epsilon(world, OCTOBER) == cost <= 3.0
    assert chains_of(world) == [projected(FIRST)]


@pytest.mark.parametrize("change", ["released", "withdrawn"])
def test_another_lens_between_charge_and_rows_makes_no_day_twice_and_costs_nothing_more(
    world: TwinWorld, children: Children, change: str
) -> None:
    manifest = None if change == "released" else release_trained(world.database, MODEL, world.worker_key)
    worker, vault = world.worker(children), world.owner.vault
    version = world.keep_twin()
    world.buy(BREAD)
    stale = made_at(world, worker, version, NOW)
    cost = epsilon(world, OCTOBER)
    assert 2.9 < cost <= 3.0
    if manifest is None:
        release_trained(world.database, MODEL, world.worker_key)
    else:
        withdraw_model(world.database, manifest)
    assert world.refresh(children, version) == Outcome(rows=4, reason="", failed=False)
    made = [projected(FIRST) if change == "released" else plain(FIRST)]
    assert chains_of(world) == made
    before = world.stored()
    assert refreshing._store(worker, [stale])[vault].rows == 0
    assert world.stored() == before
    assert days_made(world) == every_day(FIRST, CLOSED)
    for period in (SEPTEMBER, OCTOBER, MONTH):
        assert epsilon(world, period) == cost
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
    assert chains_of(world) == made


def test_rows_that_were_stored_first_are_gone_on_with_under_their_own_map(world: TwinWorld, children: Children) -> None:
    worker, vault, version = world.worker(children), world.owner.vault, world.keep_twin()
    stale = made_at(world, worker, version, NOW)
    release_trained(world.database, MODEL, world.worker_key)
    newer = made_at(world, worker, version, NOW + timedelta(days=1))
    assert refreshing._store(worker, [stale])[vault].rows == 4
    assert refreshing._store(worker, [newer])[vault].rows == 0
    assert world.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
    assert chains_of(world) == [plain(FIRST)]
    assert days_made(world) == every_day(FIRST, date(2026, 11, 21))
    assert epsilon(world, MONTH) <= 3.0


@pytest.mark.usefixtures("quiet")
def test_what_comes_late_is_in_a_row_of_the_plain_map(world: TwinWorld, children: Children) -> None:
    release_trained(world.database, MODEL, world.worker_key)
    world.buy(BREAD, day=5)
    version = world.keep_twin(not_after=int((NOW + timedelta(days=90)).timestamp()))
    world.refresh(children, version)
    world.buy(MILK, day=5)
    world.clock.at = NOW.replace(month=12, day=20)
    world.refresh(children, version)
    late = {row.period: row for row in world.stored() if row.mechanism == LATE}
    assert late.keys() == {SEPTEMBER, OCTOBER}
    assert {row.map_digest for row in late.values()} == {RETAIL_DAILY.digest}
    assert (world.read(late[OCTOBER]).values == RETAIL_DAILY.day_vector([MILK])).all()
    assert not world.read(late[SEPTEMBER]).values.any()
    assert chains_of(world) == [projected(FIRST)]
    assert all(epsilon(world, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH))


@pytest.mark.parametrize("kept", [False, True])
def test_a_chain_goes_on_through_a_lens_as_long_as_a_model_that_was_not_withdrawn_has_it(
    world: TwinWorld, children: Children, kept: bool
) -> None:
    manifest = release_trained(world.database, MODEL, world.worker_key)
    version = world.keep_twin()
    world.refresh(children, version)
    if kept:
        release_trained(world.database, later(MODEL), world.worker_key)
    withdraw_model(world.database, manifest)
    for days in (1, 2):
        world.clock.at = NOW + timedelta(days=days)
        assert world.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
    assert chains_of(world) == [projected(FIRST)] + [plain(date(2026, 11, 21))] * (not kept)
    assert days_made(world) == every_day(FIRST, date(2026, 11, 22))
    assert epsilon(world, MONTH) <= 3.0


def test_the_oldest_models_lens_stays_and_a_model_of_a_strangers_key_frames_nothing(
    lite: TwinWorld, children: Children
) -> None:
    stranger, forged = SigningKey(new_seed()), with_habits(seed=2)
    release_trained(lite.database, forged, stranger)
    worker = lite.worker(children)
    with lite.database.snapshot() as session:
        assert release.framing(session, RETAIL_DAILY, worker.row_keys) is None
    release_trained(lite.database, MODEL, lite.worker_key)
    release_trained(lite.database, with_habits(seed=3), lite.worker_key)
    with lite.database.snapshot() as session:
        framed = release.framing(session, RETAIL_DAILY, worker.row_keys)
    assert framed is not None
    assert lens_of(framed).digest == lens_of(MODEL).digest
    lite.refresh(children, lite.keep_twin())
    assert chains_of(lite) == [projected(FIRST)]


def test_a_lens_is_of_one_category(sqlite_database: Database, shortkeys: Database, children: Children) -> None:
    clicked = Category("pd:LinkClicked")
    both = frozenset({PURCHASE, clicked})
    world = TwinWorld(sqlite_database, shortkeys, categories=both, cadence=Cadence.DAILY)
    release_trained(sqlite_database, MODEL, world.worker_key)
    world.refresh(children, world.keep_twin(necessary=both))
    assert chains_of(world) == [projected(FIRST)]
    with sqlite_database.snapshot() as session:
        others = refreshing.rows.rows_for(session, world.owner.vault, clicked)
    assert {row.map_digest for row in others} == {feature_map(clicked, Cadence.DAILY).digest}
    assert epsilon(world, MONTH) <= 3.0


def test_a_month_keeps_the_noise_it_was_paid_with_though_its_consent_covers_fewer_categories_now(
    sqlite_database: Database, shortkeys: Database, children: Children
) -> None:
    both = frozenset({PURCHASE, Category("pd:LinkClicked")})
    world = TwinWorld(sqlite_database, shortkeys, categories=both, cadence=Cadence.DAILY)
    release_trained(sqlite_database, MODEL, world.worker_key)
    shared = world.keep_twin(necessary=both)
    world.refresh(children, shared)
    (sigma,) = {block.sigma for block in world.blocks()}
    world.withdraw(shared)
    alone = world.keep_twin()
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, alone) == Outcome(rows=1, reason="", failed=False)
    assert {block.sigma for block in world.blocks()} == {sigma}
    assert chains_of(world) == [projected(FIRST)]
    assert epsilon(world, MONTH) <= 3.0
