"""A daily row is made once: whatever crashes, races, is erased, withdrawn or set back."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import text

from tests.leaves import leaves
from tests.twin.worker_kit import (
    CLOSED,
    OCTOBER,
    RETAIL_DAILY,
    SEPTEMBER,
    TwinWorld,
    charges,
    days_made,
    epsilon,
    erase,
    every_day,
    made_at,
    renew,
)
from tests.vault_kit import MONTH, NOW, PURCHASE
from tests.waiting import together
from vault.budget import ledger
from vault.budget.ledger import State
from vault.db import Database
from vault.imprint.block import DAILY, LATE
from vault.imprint.features import Cadence
from vault.schema.trace import Period
from vault.twin import refresh as refreshing
from vault.twin.children import Children
from vault.twin.refresh import Outcome

BREAD, MILK = RETAIL_DAILY.codes[:2]


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys, cadence=Cadence.DAILY)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, cadence=Cadence.DAILY)


def test_a_run_that_died_before_it_stored_costs_nothing_more_though_its_batches_changed(
    world: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy(BREAD)
    version = world.keep_twin()

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refreshing, "_store", die)
    with pytest.raises(KeyboardInterrupt):
        world.refresh(children, version)
    monkeypatch.undo()
    assert world.stored() == []
    cost = epsilon(world, OCTOBER)
    assert 2.9 < cost <= 3.0
    world.buy(MILK, period=MONTH)
    world.buy(MILK)
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, version) == Outcome(rows=4, reason="", failed=False)
    assert days_made(world) == every_day(date(2026, 9, 1), date(2026, 11, 21))
    assert epsilon(world, OCTOBER) == epsilon(world, MONTH) == cost
    assert sorted(held.state for held in charges(world, OCTOBER)) == [State.COMMITTED, State.RESERVED]


def test_after_an_erased_month_later_days_begin_a_fresh_chain_and_erased_ones_stay_gone(
    world: TwinWorld, children: Children
) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    gone = world.owner.compartment(PURCHASE, OCTOBER).id
    erase(world, gone)
    world.extend(OCTOBER)
    world.buy(BREAD)  # imported again
    renewed = renew(world, version, gone)
    world.clock.at += timedelta(days=2)
    assert world.refresh(children, renewed).rows == 1
    assert days_made(world) == every_day(date(2026, 9, 1), date(2026, 9, 30)) + every_day(
        date(2026, 11, 1), date(2026, 11, 22)
    )
    assert [block.start for block in world.blocks()] == [date(2026, 9, 1), date(2026, 9, 1), date(2026, 11, 21)]
    assert 2.9 < epsilon(world, OCTOBER) <= 3.0
    assert epsilon(world, MONTH) <= 3.0


def test_a_day_whose_row_was_erased_by_itself_never_gets_another(world: TwinWorld, children: Children) -> None:
    version = world.keep_twin()
    world.refresh(children, version)
    world.extend(MONTH)  # a second epoch, which takes the rows of later days
    newest = world.owner.compartment()
    renewed = renew(world, version)
    world.clock.at += timedelta(days=1)
    world.refresh(children, renewed)
    assert {world.place(row).id for row in world.stored(MONTH)} > {newest.id}
    erase(world, newest.id)
    again = renew(world, renewed, newest.id)
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, again).rows == 1
    assert days_made(world) == [
        day for day in every_day(date(2026, 9, 1), date(2026, 11, 22)) if day != date(2026, 11, 21)
    ]
    assert epsilon(world, MONTH) <= 3.0


def test_a_database_that_was_set_back_makes_no_second_row_of_a_day_that_the_journal_knows(
    lite: TwinWorld, children: Children
) -> None:
    version = lite.keep_twin()
    lite.refresh(children, version)
    lite.clock.at += timedelta(days=1)
    lite.refresh(children, version)
    lost = lite.stored(MONTH)[-1]
    (held,) = [one for one in charges(lite, MONTH) if one.charge.release_id == lost.release_id]
    assert not any(held.charge.curve.nano)  # the month was paid before
    with lite.database.transaction() as session:
        connection = session.connection()
        connection.execute(text("DROP TRIGGER budget_ledger_no_delete"))
        for table in ("budget_ledger", "imprint_row"):
            connection.execute(text(f"DELETE FROM {table} WHERE release_id = :name"), {"name": lost.release_id})
    with lite.database.transaction() as session:
        assert ledger.restore(session, held.charge, at=lite.clock.now())
    assert lite.refresh(children, version).rows == 0
    assert days_made(lite) == every_day(date(2026, 9, 1), CLOSED)


def test_under_a_consent_withdrawn_meanwhile_nothing_is_stored_and_all_stays_charged(
    world: TwinWorld, children: Children, while_opening
) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    while_opening(lambda: world.withdraw(version))
    assert world.refresh(children, version) == Outcome(rows=0, reason="consent-not-active", failed=False)
    assert world.stored() == []
    assert {held.state for held in charges(world, OCTOBER)} == {State.ABORTED}
    again = world.keep_twin()
    assert 2.9 < epsilon(world, OCTOBER) <= 3.0
    world.clock.at += timedelta(days=1)
    assert world.refresh(children, again).rows == 1  # what was drawn for the days before may have been seen
    assert days_made(world) == [date(2026, 11, 21)]


def test_two_workers_racing_make_each_day_once(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    outcomes = together(*[lambda: world.refresh(children, version)] * 2)
    assert sum(outcome.rows for outcome in outcomes) == 4
    assert days_made(world) == every_day(date(2026, 9, 1), CLOSED)
    with world.database.snapshot() as session:
        assert len([kind for kind, _, _ in leaves(session) if kind == "release"]) == 4


def test_the_worker_that_comes_second_with_other_batches_discards_its_noise(
    world: TwinWorld, children: Children, while_opening
) -> None:
    world.buy(BREAD, period=SEPTEMBER)
    version = world.keep_twin()
    once = iter([True])

    def other_worker() -> None:
        if next(once, False):
            world.buy(MILK, period=SEPTEMBER)  # so that its releases have other names
            world.refresh(children, version)

    while_opening(other_worker)
    assert world.refresh(children, version).rows == 0
    assert days_made(world) == every_day(date(2026, 9, 1), CLOSED)
    assert epsilon(world, SEPTEMBER) <= 3.0
    made = [held for held in charges(world, SEPTEMBER) if held.state is State.COMMITTED]
    assert [held.charge.mechanism["name"] for held in made] == [DAILY, LATE]


def test_a_block_whose_chain_another_worker_stored_is_not_stored_beside_other_noise(
    world: TwinWorld, children: Children
) -> None:
    december = Period("2026-12")
    world.extend(december)
    worker, vault = world.worker(children), world.owner.vault
    version = world.keep_twin(data_to=december, not_after=int((NOW + timedelta(days=90)).timestamp()))
    early, late = (made_at(world, worker, version, NOW.replace(month=12, day=day)) for day in (3, 5))
    assert refreshing._store(worker, [early])[vault].rows == 5  # three months to 30 November, two late rows
    # The second worker has December too, but it goes on with a November of its own.
    assert refreshing._store(worker, [late])[vault].rows == 0
    assert days_made(world) == every_day(date(2026, 9, 1), date(2026, 11, 30))
    cost = epsilon(world, december)
    assert world.refresh(children, version).rows == 1
    assert days_made(world) == every_day(date(2026, 9, 1), date(2026, 12, 2))
    assert {block.start for block in world.blocks()} == {date(2026, 9, 1)}
    assert epsilon(world, december) == cost


@pytest.mark.usefixtures("quiet")
def test_a_late_row_beside_a_block_that_another_worker_stored_is_made_again(
    lite: TwinWorld, children: Children
) -> None:
    worker, vault = lite.worker(children), lite.owner.vault
    version = lite.keep_twin(not_after=int((NOW + timedelta(days=90)).timestamp()))
    lite.buy(BREAD)
    first = made_at(lite, worker, version, NOW.replace(month=12, day=2))
    lite.buy(MILK)
    second = made_at(lite, worker, version, NOW.replace(month=12, day=3))  # October's late row is due
    assert refreshing._store(worker, [first])[vault].rows == 4
    assert refreshing._store(worker, [second])[vault].rows == 0
    # Its own October held the milk, so its late row did not; the October that is stored holds the bread alone.
    assert lite.refresh(children, version).rows == 2
    (late,) = (lite.read(row).values for row in lite.stored(OCTOBER) if row.mechanism == LATE)
    assert (late == RETAIL_DAILY.day_vector([MILK])).all()
