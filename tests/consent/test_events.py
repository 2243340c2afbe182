"""Every event of a consent is in one dense chain, and no quota is overdrawn, whatever happens at once."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.consent_kit import NOW, World, spending
from tests.leaves import leaves
from tests.vault_kit import wait_until_blocked
from vault.consent import changes, consents, events
from vault.consent.errors import NotSpent, UnknownConsent
from vault.db import Database
from vault.encoding import b64u, dump_json
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.ids import ConsentId

THREADS = 16
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def answer(world: World, version: ConsentVersion, now: datetime = NOW, *, agent: bool = False) -> int:
    """Spend and log one answer as the one path does; return the quota left."""
    with world.database.transaction() as session:
        spent = events.spend(session, spending(world, version, agent=agent), now)
        events.log_event(
            session, spent, LeafKind.ANSWER, {}, {"version": spent.version, "quota_left": spent.quota_left}
        )
    return spent.quota_left


def deny(world: World, version: ConsentVersion) -> None:
    with world.database.transaction() as session:
        events.record_event(session, ConsentId(version.consent_id), LeafKind.DENIAL, {}, {"rules": ["quota-spent"]})


def chain(world: World, version: ConsentVersion) -> list[tuple[str, dict[str, Any]]]:
    """Return the consent's events in the order of the log."""
    with world.database.snapshot() as session:
        found = [(kind, personal) for kind, _, personal in leaves(session) if kind in {"consent", "answer", "denial"}]
    return [(kind, p) for kind, p in found if p is not None and p["consent"] == b64u(version.consent_id)]


def assert_dense(found: list[tuple[str, dict[str, Any]]]) -> None:
    """Every event is numbered one after the other and names the digest of the one before."""
    prev = ""
    for number, (_, personal) in enumerate(found, 1):
        assert (personal["consent_seq"], personal["prev"]) == (number, prev)
        prev = b64u(hashlib.sha256(dump_json(personal)).digest())


def test_every_event_of_a_consent_is_in_one_dense_chain(world: World) -> None:
    version = world.give(quota_per_month=50)
    answer(world, version)
    deny(world, version)
    narrowed = world.next(version, ConsentEvent.NARROWED)
    world.amend(narrowed)
    answer(world, narrowed)
    world.withdraw(narrowed)
    deny(world, narrowed)
    found = chain(world, version)
    assert [kind for kind, _ in found] == ["consent", "answer", "denial", "consent", "answer", "consent", "denial"]
    assert_dense(found)


def test_the_chain_is_dense_under_concurrency(world: World) -> None:
    version = world.give(quota_per_month=50)
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(answer if i % 3 else deny, world, version) for i in range(30)]
        for job in jobs:
            job.result()
    found = chain(world, version)
    assert len(found) == 31
    assert_dense(found)


def test_an_event_that_rolls_back_leaves_no_gap(world: World) -> None:
    version = world.give()
    with pytest.raises(RuntimeError), world.database.transaction() as session:
        events.spend(session, spending(world, version), NOW)
        raise RuntimeError("killed before the leaf")
    assert answer(world, version) == 4
    assert_dense(chain(world, version))


def test_a_quota_is_never_overdrawn(world: World) -> None:
    version = world.give(quota_per_month=7)
    start = threading.Barrier(THREADS)
    left: list[int] = []

    def ask() -> None:
        start.wait(30)
        for _ in range(2):
            try:
                left.append(answer(world, version))
            except NotSpent:
                continue

    with ThreadPoolExecutor(THREADS) as pool:
        for job in [pool.submit(ask) for _ in range(THREADS)]:
            job.result()
    assert sorted(left) == list(range(7))
    assert_dense(chain(world, version))


def test_a_quota_refills_with_the_month_and_never_backwards(world: World) -> None:
    version = world.give(quota_per_month=2)
    assert [answer(world, version), answer(world, version)] == [1, 0]
    with pytest.raises(NotSpent):
        answer(world, version)
    assert [answer(world, version, DECEMBER), answer(world, version, DECEMBER)] == [1, 0]
    with pytest.raises(NotSpent):  # a clock that went back refills nothing
        answer(world, version, NOW)
    with world.database.snapshot() as session:
        found = consents.find(session, ConsentId(version.consent_id))
    assert found is not None
    assert [found.quota_left(at) for at in (NOW, DECEMBER, DECEMBER + timedelta(days=31))] == [0, 0, 2]


def test_narrowing_counts_what_was_already_spent(world: World) -> None:
    version = world.give(quota_per_month=5)
    answer(world, version)
    answer(world, version)
    narrowed = world.next(version, ConsentEvent.NARROWED, terms=replace(version.terms, quota_per_month=3))
    world.amend(narrowed)
    assert answer(world, narrowed) == 0
    with pytest.raises(NotSpent):
        answer(world, narrowed)


def test_spending_is_bound_to_version_window_and_kind(world: World) -> None:
    version = world.give()
    cohort = world.give(ConsentKind.COHORT)
    refused = [
        (world.next(version, ConsentEvent.NARROWED), NOW),
        (replace(version, consent_id=b"x" * 16), NOW),
        (version, NOW - timedelta(seconds=1)),
        (version, datetime.fromtimestamp(version.terms.not_after, UTC)),
        (cohort, NOW),
    ]
    for what, now in refused:
        with pytest.raises(NotSpent):
            answer(world, what, now)
    assert answer(world, version, datetime.fromtimestamp(version.terms.not_after - 1, UTC)) == 4


def test_an_old_version_spends_nothing_after_narrowing(world: World) -> None:
    version = world.give()
    world.amend(world.next(version, ConsentEvent.NARROWED))
    with pytest.raises(NotSpent):
        answer(world, version)


def test_a_denial_of_an_unknown_consent_has_no_chain(world: World) -> None:
    with pytest.raises(UnknownConsent):
        deny(world, world.first()[0])


def test_two_withdrawals_at_once_still_ask_for_a_new_epoch(postgresql_database: Database, shortkeys: Database) -> None:
    """If each saw the other still live, nobody would close the future by key."""
    world = World(postgresql_database, shortkeys)
    own, cohort = world.give(ConsentKind.SELF), world.give(ConsentKind.COHORT)
    needed: list[tuple[str, ...]] = []
    other = threading.Thread(target=lambda: needed.append(world.withdraw(cohort).new_epoch_needed))
    envelope = world.signed(world.next(own, ConsentEvent.WITHDRAWN))
    with world.database.transaction() as session:
        needed.append(changes.withdraw(session, envelope, vault_id=world.owner.vault, now=NOW).new_epoch_needed)
        other.start()
        wait_until_blocked(world.database, lambda: len(needed) == 2)
    other.join(240)
    assert needed == [(), ("pd:Purchase",)]


def test_an_agent_gets_its_smaller_quota_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "AGENT_ANSWERS_PER_MONTH", 3)
    wide, narrow = world.give(quota_per_month=50), world.give(quota_per_month=2)

    def ask(version: ConsentVersion) -> int | None:
        try:
            return answer(world, version, agent=True)
        except NotSpent:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        left = list(pool.map(ask, [wide] * THREADS))
    assert sorted(item for item in left if item is not None) == [0, 1, 2]
    assert answer(world, wide) == 46  # people of the same company have the whole quota
    assert [ask(narrow) for _ in range(3)] == [1, 0, None]


# --- What the database itself refuses ---

VERSION_ATTACKS = [
    "UPDATE consent_version SET envelope = request",
    "UPDATE consent_version SET sha256 = consent_id, envelope = NULL, request = NULL, certificate = NULL",
    "UPDATE consent_version SET envelope = NULL",
    "DELETE FROM consent_version",
    "UPDATE consent SET live = TRUE",
    "UPDATE consent SET event = 'given'",
    "UPDATE consent SET consent_seq = consent_seq + 2",
    "UPDATE consent SET consent_seq = consent_seq - 1",
]


@pytest.mark.parametrize("statement", VERSION_ATTACKS)
def test_signed_versions_are_append_only_in_the_database(world: World, statement: str) -> None:
    world.withdraw(world.give())
    with pytest.raises(sqlalchemy.exc.IntegrityError), world.database.transaction() as session:
        session.connection().execute(sqlalchemy.text(statement))


def test_a_version_cannot_be_replaced_or_truncated(world: World) -> None:
    version = world.give()
    statements = {
        True: "INSERT OR REPLACE INTO consent_version SELECT consent_id, version, x'00', leaf_id, NULL, NULL, NULL "
        "FROM consent_version",
        False: "TRUNCATE consent_version",
    }
    with pytest.raises(sqlalchemy.exc.IntegrityError), world.database.transaction() as session:
        session.connection().execute(sqlalchemy.text(statements[world.database.is_sqlite]))
    with world.database.snapshot() as session:
        assert consents.find(session, ConsentId(version.consent_id)) is not None


def test_the_queries_of_the_code_use_an_index(world: World) -> None:
    version = world.give()
    consent_id, vault = ConsentId(version.consent_id), world.owner.vault
    statements: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    sqlalchemy.event.listen(world.database.engine, "before_cursor_execute", note)
    with world.database.transaction() as session:
        consents.find(session, consent_id)
        consents.list_for(session, vault)
        consents.list_to(session, world.company.company_id)
        consents.history(session, consent_id)
        consents.histories(session, vault)
        changes.due_to_expire(session, now=NOW)
        events.spend(session, spending(world, version), NOW)
    sqlalchemy.event.remove(world.database.engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if world.database.is_sqlite else "EXPLAIN "
    ours = [(s, p) for s, p in statements if "consent" in s]
    assert len(ours) == 7 + (not world.database.is_sqlite)  # which has a turn to take
    with world.database.transaction() as session:
        if not world.database.is_sqlite:
            session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in ours:
            plan = " ".join(str(row) for row in session.connection().exec_driver_sql(explain + statement, parameters))
            assert "SCAN" not in plan.replace("SCAN CONSTANT", ""), plan
            assert "Seq Scan" not in plan, plan
