"""What stops a consent, its vault or its company stops each spending that had not committed, and waits for none that comes later."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy

from tests.consent.test_events import answer, assert_dense, chain
from tests.consent_kit import NOW, World, spending
from tests.succession_kit import Successor
from tests.vault_kit import wait_until_blocked
from tests.waiting import until
from vault.consent import changes, events
from vault.consent.errors import NotSpent
from vault.db import Database
from vault.parties import companies, people, succession, turns
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.people import VaultState
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.seal.errors import SealError
from vault.seal.person import Profile


def test_no_spend_commits_after_a_withdrawal(world: World) -> None:
    """Fire answers from many threads while the owner withdraws; the log's order shows who was first."""
    version = world.give(quota_per_month=1_000)
    go, withdrawn = threading.Barrier(9), threading.Event()
    late: list[int] = []

    def ask() -> None:
        go.wait(30)
        while True:
            acknowledged = withdrawn.is_set()
            try:
                answer(world, version)
            except NotSpent:
                return
            if acknowledged:
                late.append(1)

    with ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        go.wait(30)
        world.withdraw(version)
        withdrawn.set()
        for job in asking:
            job.result(60)
    found = chain(world, version)
    assert late == []
    assert found[-1][1].get("version") == 2
    assert [kind for kind, _ in found].count("consent") == 2
    assert_dense(found)


@pytest.mark.parametrize("stop", ["withdrawal", "freeze", "profile", "suspension"])
def test_a_spend_that_waits_for_a_lock_sees_what_the_lock_protected(
    postgresql_database: Database, shortkeys: Database, stop: str
) -> None:
    """The spend begins before the other transaction commits, waits for its row, and must then be refused."""
    world = World(postgresql_database, shortkeys)
    version = world.give()
    started = threading.Event()
    outcome: list[object] = []

    def ask() -> None:
        started.set()
        try:
            outcome.append(answer(world, version))
        except NotSpent as refusal:
            outcome.append(refusal)

    asking = threading.Thread(target=ask)
    with world.database.transaction() as session:
        match stop:
            case "withdrawal":
                envelope = world.signed(world.next(version, ConsentEvent.WITHDRAWN))
                changes.withdraw(session, envelope, vault_id=world.owner.vault, now=NOW)
            case "freeze":
                people.freeze(session, world.owner.vault, VaultState.FROZEN, world.owner.genesis, now=NOW)
            case "profile":
                world.declare(session, Profile(minor=True))
            case _:
                company = CompanyId(world.company.company_id)
                companies.set_status(session, company, CompanyStatus.SUSPENDED, now=NOW)
        asking.start()
        started.wait(240)
        wait_until_blocked(world.database)
    asking.join(240)
    assert len(outcome) == 1
    assert isinstance(outcome[0], NotSpent)


@pytest.mark.parametrize(
    ("stop", "later"),
    [("freeze", "answer"), ("erasure", "answer"), ("suspension", "answer"), ("suspension", "denial")],
)
def test_who_comes_later_waits_behind_a_stop_that_waits(
    postgresql_database: Database, shortkeys: Database, stop: str, later: str
) -> None:
    """Rows that are shared know no queue: a company that asks without a pause would hold its stop up for as long."""
    world = World(postgresql_database, shortkeys)
    before, after = spending(world, world.give()), spending(world, world.give())
    company = CompanyId(world.company.company_id)
    came: list[str] = []

    def come(name: str) -> None:
        with suppress(NotSpent), world.database.transaction() as session:
            match name:
                case "freeze":
                    people.freeze(session, world.owner.vault, VaultState.FROZEN, world.owner.genesis, now=NOW)
                case "erasure":
                    people.lock(session, world.owner.vault)
                case "suspension":
                    companies.set_status(session, company, CompanyStatus.SUSPENDED, now=NOW)
                case "answer":
                    events.spend(session, after, NOW)
                case _:
                    companies.hold(session, company, 1)
            came.append(name)

    stopping, coming = (threading.Thread(target=come, args=[name]) for name in (stop, later))
    with world.database.transaction() as session:
        events.spend(session, before, NOW)
        stopping.start()
        until(lambda: waiting(world) == 1, "the stop waits for the answer before it")
        coming.start()
        until(lambda: came or waiting(world) == 2, "who comes later waits too")
        assert came == []
    stopping.join(240)
    coming.join(240)
    assert came[:1] == [stop]


def test_who_is_alone_takes_no_turns(postgresql_database: Database, shortkeys: Database) -> None:
    """Where a restored database follows again what thousands ordered, it does so in one transaction."""
    world = World(postgresql_database, shortkeys)
    held = sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    with world.database.transaction() as session:
        people.lock(session, world.owner.vault)
        assert session.execute(held).scalar_one() == 1
    with turns.needless(), world.database.transaction() as session:
        people.lock(session, world.owner.vault)
        assert session.execute(held).scalar_one() == 0


def waiting(world: World) -> int:
    """Return how many wait for a lock."""
    with world.database.snapshot() as session:
        return int(session.execute(sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


@pytest.mark.parametrize("stop", ["freeze", "suspension"])
def test_a_frozen_vault_or_suspended_company_spends_nothing(world: World, stop: str) -> None:
    company, own = world.give(), world.give(ConsentKind.SELF)
    with world.database.transaction() as session:
        if stop == "freeze":
            people.freeze(session, world.owner.vault, VaultState.FROZEN, world.owner.genesis, now=NOW)
        else:
            known = CompanyId(world.company.company_id)
            companies.set_status(session, known, CompanyStatus.SUSPENDED, now=NOW)
    with pytest.raises(NotSpent):
        answer(world, company)
    if stop == "freeze":
        with pytest.raises(NotSpent):
            answer(world, own)
    else:
        assert answer(world, own) == 4


@pytest.mark.parametrize("changed", [Profile(minor=True), Profile(guardian_ok=True), Profile(deceased=True)])
def test_what_was_decided_on_another_profile_spends_nothing(world: World, changed: Profile) -> None:
    decided = spending(world, world.give())
    with world.database.transaction() as session:
        world.declare(session, changed)
    with pytest.raises(NotSpent), world.database.transaction() as session:
        events.spend(session, decided, NOW)
    with world.database.transaction() as session:
        assert events.spend(session, replace(decided, profile=changed), NOW).quota_left == 4


def test_no_keys_signed_by_the_former_owner_key_come_in_behind_a_succession(
    postgresql_database: Database, shortkeys: Database
) -> None:
    world = World(postgresql_database, shortkeys)
    given, new, refused = world.give(ConsentKind.SELF), Successor.of(world.owner), []
    renewed = world.next(given, ConsentEvent.RENEWED)

    def thief() -> None:
        try:
            world.amend(renewed)
        except SealError as refusal:
            refused.append(refusal)

    with world.database.transaction() as session:
        succession.succeed(session, world.owner.vault, new.replacement(), now=NOW)
        thread = threading.Thread(target=thief)
        thread.start()
        wait_until_blocked(world.database, lambda: not thread.is_alive())
    thread.join()
    assert len(refused) == 1
