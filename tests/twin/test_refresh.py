"""Rows are charged before data is opened, noisy once, logged, and stored only under a live consent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import sqlalchemy

from tests.leaves import leaves
from tests.twin.worker_kit import OCTOBER, RETAIL, SEPTEMBER, TwinWorld, another_vault, purchase
from tests.vault_kit import NOW, PURCHASE
from vault.budget import ledger
from vault.budget.charge import owner_day, parse_charge
from vault.consent import changes
from vault.consent.changes import Submission
from vault.consent.handovers import REQUIRED
from vault.db import Database
from vault.encoding import b64u
from vault.imprint.noise import DiscreteGaussian
from vault.proof.accounting import OWNER_DAY_CAP
from vault.schema.consent import ConsentEvent
from vault.schema.trace import Period
from vault.seal import row as sealed_rows
from vault.seal.derive import imprint_key
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, new_id, sha256
from vault.seal.person import sign_freeze
from vault.seal.signing import SigningKey, new_seed
from vault.store import rings
from vault.twin import refresh as refreshing
from vault.twin import rows
from vault.twin.children import Children
from vault.twin.months import closes_at, last_closed
from vault.twin.opening import VaultKeys
from vault.twin.refresh import Outcome, noise_of, refresh

BREAD, MILK = RETAIL.codes[0], RETAIL.codes[1]


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw zeros, so that a test sees the exact sums; the charge stays that of the real noise."""
    monkeypatch.setattr(
        DiscreteGaussian, "sample", lambda self, shape, random_bytes=None: np.zeros(shape, dtype=np.int64)
    )


def states(world: TwinWorld, period: Period) -> dict[bytes, str]:
    with world.database.snapshot() as session:
        query = sqlalchemy.text("SELECT release_id, state FROM budget_ledger WHERE scope = :s ORDER BY position")
        found = session.connection().execute(query, {"s": owner_day(world.owner.vault, period).key})
        return {row.release_id: row.state for row in found}


def epsilon(world: TwinWorld, period: Period) -> float:
    with world.database.snapshot() as session:
        return ledger.spending(session, world.owner.vault, period, OWNER_DAY_CAP.delta).day


@pytest.mark.usefixtures("quiet")
def test_a_month_becomes_one_charged_logged_sealed_row(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD, MILK, day=5)
    world.buy(BREAD, day=6)
    assert world.refresh(children, world.keep_twin()) == Outcome(rows=2, reason="", failed=False)
    september, october = world.stored()
    assert (september.period, october.period) == (SEPTEMBER, OCTOBER)
    row = world.read(october)
    assert (row.values == RETAIL.day_vector([BREAD, MILK]) + RETAIL.day_vector([BREAD])).all()
    assert (row.sigma, row.clip, row.map_digest) == (noise_of(RETAIL).sigma, RETAIL.clip, RETAIL.digest)
    assert not world.read(september).values.any()  # a month without a batch has a row like any other
    assert states(world, OCTOBER) == {october.release_id: "committed"}
    assert epsilon(world, OCTOBER) == epsilon(world, SEPTEMBER) <= 3.0
    with world.database.snapshot() as session:
        logged = [(public, personal) for kind, public, personal in leaves(session) if kind == "release"]
    public, personal = logged[1]
    assert public == {
        "kind": "release",
        "category": PURCHASE,
        "period": OCTOBER,
        "mechanism": "monthly/1",
        "sensitivity": RETAIL.clip,
        "sigma": noise_of(RETAIL).sigma,
        "mu2_micro": october.mu2_micro,
        "map": b64u(RETAIL.digest),
        "rows": 1,
    }
    assert personal is not None
    assert (personal["vault"], personal["release_id"]) == (b64u(world.owner.vault), b64u(october.release_id))
    assert personal["rows"] == [b64u(sha256(october.sealed))]
    assert parse_charge(personal["charge"]).release_id == october.release_id


def test_rows_carry_fresh_noise_of_the_charged_scale(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    first, second = (lite.read(row).values for row in lite.stored())
    assert (first != second).any()
    assert noise_of(RETAIL).sigma * 0.8 < np.std(np.concatenate([first, second])) < noise_of(RETAIL).sigma * 1.2


def test_asking_again_returns_the_same_bytes(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    before = world.stored()
    assert world.refresh(children, version) == Outcome(rows=0, reason="", failed=False)
    assert world.stored() == before


def test_a_late_batch_is_refused_by_the_budget_and_the_old_row_stays(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    before, cost = world.stored(), epsilon(world, OCTOBER)
    world.buy(MILK)
    assert world.refresh(children, version) == Outcome(rows=0, reason="budget-exhausted", failed=False)
    assert world.stored() == before
    assert epsilon(world, OCTOBER) == cost


def test_a_row_that_is_gone_is_not_drawn_again_on_the_same_data(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    with world.database.transaction() as session:
        rows.forget(session, world.owner.vault)
    # September held nothing: noise about nothing is free. October's noise was seen, perhaps.
    assert world.refresh(children, version) == Outcome(rows=1, reason="charge-conflict", failed=False)
    assert [row.period for row in world.stored()] == [SEPTEMBER]
    assert epsilon(world, OCTOBER) <= 3.0


def test_days_imported_again_after_an_erasure_are_charged_to_the_same_cap(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    gone = world.owner.compartment(PURCHASE, OCTOBER)
    with world.database.transaction() as session:
        rings.forget(session, world.owner.vault, [gone.id])
        rows.forget(session, world.owner.vault, [gone.id])
    world.extend(OCTOBER)
    world.buy(BREAD)
    renewed = world.next(version, ConsentEvent.RENEWED)
    pages = [page for page, _ in world.owner.pages.values()]
    left = [c for page in pages for c in page.compartments.values() if c.id != gone.id]
    keys = tuple(world.handover(kind, renewed, compartments=left) for kind in sorted(REQUIRED[renewed.terms.kind]))
    with world.database.transaction() as session:
        sent = Submission(world.signed(renewed), keys)
        changes.amend(session, sent, vault_id=world.owner.vault, custody=world.custody, now=NOW)
    assert world.refresh(children, renewed) == Outcome(rows=0, reason="budget-exhausted", failed=False)
    assert [row.period for row in world.stored()] == [SEPTEMBER]
    assert 2.9 < epsilon(world, OCTOBER) <= 3.0


def test_only_closed_months_inside_the_window_are_opened(lite: TwinWorld, children: Children) -> None:
    version = lite.keep_twin(data_from=OCTOBER)
    lite.refresh(children, version)
    assert [row.period for row in lite.stored()] == [OCTOBER]  # neither September nor the running November


def test_a_month_closes_two_days_after_its_last_local_midnight() -> None:
    zone = ZoneInfo("Pacific/Auckland")
    closed = closes_at(OCTOBER, zone)
    assert closed.astimezone(zone).isoformat() == "2026-11-03T00:00:00+13:00"
    assert last_closed(closed, zone) == OCTOBER
    assert last_closed(closed - timedelta(seconds=1), zone) == SEPTEMBER
    assert last_closed(closes_at(Period("2025-12"), zone), zone) == "2025-12"


def test_another_purpose_a_freeze_or_a_withdrawal_opens_nothing(lite: TwinWorld, children: Children) -> None:
    other = lite.keep_twin(purposes=frozenset({"dpv:Marketing"}))
    assert lite.refresh(children, other).reason == "not-covered"
    version = lite.keep_twin()
    lite.withdraw(version)
    assert lite.refresh(children, version).reason == "consent-not-active"
    assert states(lite, OCTOBER) == {}
    assert lite.stored() == []


@pytest.fixture
def while_opening(monkeypatch: pytest.MonkeyPatch):
    """Run something after the charge and before the commit."""

    def install(act) -> None:
        opened = refreshing.open_months

        def interrupted(worker, opening, wanted):
            act()
            return opened(worker, opening, wanted)

        monkeypatch.setattr(refreshing, "open_months", interrupted)

    return install


def test_nothing_commits_under_a_consent_withdrawn_while_it_was_opened(
    world: TwinWorld, children: Children, while_opening
) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    while_opening(lambda: world.withdraw(version))
    assert world.refresh(children, version) == Outcome(rows=0, reason="consent-not-active", failed=False)
    assert world.stored() == []
    assert set(states(world, OCTOBER).values()) == {"aborted"}  # data was opened: the cost stays
    with world.database.snapshot() as session:
        assert not [kind for kind, _, _ in leaves(session) if kind == "release"]


def test_nothing_commits_in_a_vault_frozen_while_it_was_opened(
    lite: TwinWorld, children: Children, while_opening
) -> None:
    from vault.parties import people
    from vault.parties.people import VaultState

    lite.buy(BREAD)
    version = lite.keep_twin()

    def freeze() -> None:
        cause = sign_freeze(lite.owner.key, vault_id=lite.owner.vault, sequence=1, frozen=True)
        with lite.database.transaction() as session:
            people.freeze(session, lite.owner.vault, VaultState.FROZEN, cause, now=NOW)

    while_opening(freeze)
    assert lite.refresh(children, version).rows == 0
    assert lite.stored() == []


def test_a_batch_that_comes_while_its_month_is_opened_belongs_to_the_next_release(
    lite: TwinWorld, children: Children, while_opening, quiet: None
) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    while_opening(lambda: lite.buy(MILK))
    assert lite.refresh(children, version).rows == 2
    (row,) = lite.stored(OCTOBER)
    assert (lite.read(row).values == RETAIL.day_vector([BREAD])).all()


def test_two_workers_racing_store_one_row_and_one_charge(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    gate, outcomes = threading.Barrier(2), []

    def race() -> None:
        worker = world.worker(children)
        gate.wait()
        outcomes.append(refresh(worker, {world.owner.vault: ConsentId(version.consent_id)})[world.owner.vault])

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome.rows for outcome in outcomes) == 2
    assert [row.period for row in world.stored()] == [SEPTEMBER, OCTOBER]
    assert list(states(world, OCTOBER).values()) == ["committed"]
    with world.database.snapshot() as session:
        assert len([kind for kind, _, _ in leaves(session) if kind == "release"]) == 2


def test_the_worker_that_comes_second_discards_its_noise(lite: TwinWorld, children: Children, while_opening) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    once = iter([True])

    def other_worker() -> None:
        if next(once, False):
            lite.refresh(children, version)

    while_opening(other_worker)
    assert lite.refresh(children, version) == Outcome(rows=0, reason="", failed=False)
    assert len(lite.stored()) == 2


def corrupt(world: TwinWorld, change) -> None:
    """Store an altered batch, as whoever holds the database could."""
    with world.database.transaction() as session:
        connection = session.connection()
        row = connection.execute(sqlalchemy.text("SELECT id, batch FROM batch ORDER BY id DESC LIMIT 1")).one()
        altered = change(bytes(row.batch))
        connection.execute(
            sqlalchemy.text("UPDATE batch SET batch = :batch, digest = :digest WHERE id = :id"),
            {"batch": altered, "digest": sha256(altered), "id": row.id},
        )


def forged(world: TwinWorld, plaintext: bytes) -> bytes:
    """Seal bytes that are no columns with the device's own key: a compromised device can."""
    from vault.seal import batch as batches

    original = batches.pack_traces
    batches.pack_traces = lambda traces: plaintext  # type: ignore[assignment]
    try:
        return world.seal([purchase(BREAD)])
    finally:
        batches.pack_traces = original


def bomb(_world: TwinWorld) -> bytes:
    """A small frame that would unpack to 64 MiB but says 1 KiB."""
    import zstandard

    from vault.seal.columns import bucket_bytes

    stored = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    packed = b"\x01" + len(stored).to_bytes(4, "big") + (1024).to_bytes(4, "big") + stored
    return packed.ljust(bucket_bytes(len(packed)), b"\0")


@pytest.mark.parametrize("plaintext", [bomb, lambda world: b"\x01" + bytes(255), lambda world: b"{}"])
def test_a_batch_that_does_not_unpack_fails_its_vault_only(
    lite: TwinWorld, shortkeys, children: Children, plaintext
) -> None:
    honest = another_vault(lite.database, shortkeys, lite)
    honest.buy(BREAD)
    lite.upload(forged(lite, plaintext(lite)))
    wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in (lite, honest)}
    outcomes = refresh(lite.worker(children), wanted)
    assert outcomes[lite.owner.vault] == Outcome(rows=0, reason="unreadable-batches", failed=True)
    assert outcomes[honest.owner.vault] == Outcome(rows=2, reason="", failed=False)
    assert lite.stored() == []


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[: len(data) // 2], lambda data: b""],
    ids=["signature", "truncated", "empty"],
)
def test_an_altered_batch_is_not_counted(lite: TwinWorld, children: Children, change) -> None:
    lite.buy(BREAD)
    corrupt(lite, change)
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"
    assert lite.stored() == []


def test_a_batch_of_a_device_that_only_the_database_lists_is_not_counted(lite: TwinWorld, children: Children) -> None:
    from vault.seal.batch import seal_batch

    lite.buy(BREAD)
    stranger = SigningKey(new_seed())
    compartment = lite.owner.compartment(PURCHASE, OCTOBER)
    corrupt(lite, lambda data: seal_batch([purchase(MILK)], lite.owner.vault, compartment, stranger, None))
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"


def test_a_dropped_batch_breaks_its_chain(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD)
    lite.buy(MILK)
    with lite.database.transaction() as session:
        session.connection().execute(sqlalchemy.text("DELETE FROM batch WHERE seq = 1"))
    assert lite.refresh(children, lite.keep_twin()).reason == "unreadable-batches"


def test_a_failed_month_can_be_tried_again_at_no_further_cost(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    with lite.database.snapshot() as session:
        good = session.connection().execute(sqlalchemy.text("SELECT batch FROM batch")).scalar_one()
        digest = sha256(good)
    with lite.database.transaction() as session:  # bytes that do not match their digest: a failing disk
        session.connection().execute(
            sqlalchemy.text("UPDATE batch SET batch = :b"), {"b": good[:-1] + bytes([good[-1] ^ 1])}
        )
    assert lite.refresh(children, version).failed
    cost = epsilon(lite, OCTOBER)
    assert set(states(lite, OCTOBER).values()) == {"reserved"}
    with lite.database.transaction() as session:
        session.connection().execute(sqlalchemy.text("UPDATE batch SET batch = :b"), {"b": good})
    assert digest == sha256(good)
    assert lite.refresh(children, version).rows == 2
    assert epsilon(lite, OCTOBER) == cost


def test_a_child_that_dies_fails_its_vault(
    lite: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    monkeypatch.setattr(VaultKeys, "dump", lambda self: b"\xff" * 64)  # no frame: not a refusal but a defect
    assert lite.refresh(children, version).failed
    monkeypatch.undo()
    assert lite.refresh(children, version).rows == 2


def test_a_child_is_sent_one_vaults_seeds(lite: TwinWorld, shortkeys, children: Children, monkeypatch) -> None:
    other = another_vault(lite.database, shortkeys, lite)
    sent: list[bytes] = []
    dump = VaultKeys.dump
    monkeypatch.setattr(VaultKeys, "dump", lambda keys: sent.append(dump(keys)) or sent[-1])
    for world in (lite, other):
        world.buy(BREAD)
    wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in (lite, other)}
    refresh(lite.worker(children), wanted)
    assert len(sent) == 2
    for mine, theirs in ((lite, other), (other, lite)):
        message = next(message for message in sent if mine.owner.vault in message)
        secret = [theirs.seed(c) for page, _ in theirs.owner.pages.values() for c in page.compartments.values()]
        assert not any(seed in message for seed in secret)
        assert theirs.owner.vault not in message
    november = lite.seed(lite.owner.compartment())
    assert not any(november in message for message in sent)  # the running month's seed stays in the worker


def test_a_row_opens_under_its_imprint_key_only(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    stored = lite.stored(OCTOBER)[0]
    verified = sealed_rows.verify_row(sealed_rows.parse_row(stored.sealed), lite.worker_key.public_key)
    for wrong in (imprint_key(lite.seed(lite.owner.compartment(PURCHASE, SEPTEMBER))), new_seed()):
        with pytest.raises(SealError):
            sealed_rows.open_row(verified, wrong)


@pytest.mark.usefixtures("quiet")
def test_epochs_of_a_month_are_one_release_under_the_newest_key(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD, day=5)
    lite.extend(OCTOBER)
    lite.buy(MILK, day=6)
    assert lite.refresh(children, lite.keep_twin()).rows == 2
    (row,) = lite.stored(OCTOBER)
    assert row.compartment_id == lite.owner.compartment(PURCHASE, OCTOBER).id
    assert (lite.read(row).values == RETAIL.day_vector([BREAD]) + RETAIL.day_vector([MILK])).all()


@pytest.mark.usefixtures("quiet")
def test_a_months_batch_holding_other_months_counts_its_own_days_only(lite: TwinWorld, children: Children) -> None:
    lite.upload(lite.seal([purchase(BREAD, 5), purchase(MILK, 5, SEPTEMBER)]))
    lite.refresh(children, lite.keep_twin())
    assert (lite.read(lite.stored(OCTOBER)[0]).values == RETAIL.day_vector([BREAD])).all()
    assert not lite.read(lite.stored(SEPTEMBER)[0]).values.any()


def test_the_code_under_test_signs_rows_as_rows(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    stored = sealed_rows.parse_row(lite.stored(OCTOBER)[0].sealed)
    with pytest.raises(SealError):
        sealed_rows.verify_row(stored, SigningKey(new_seed()).public_key)
    stored.blob.verify(PayloadType.ROW, lite.worker_key.public_key)


def test_a_vault_without_that_consent_changes_nothing(lite: TwinWorld, children: Children) -> None:
    found = refresh(lite.worker(children), {lite.owner.vault: ConsentId(new_id())})
    assert found[lite.owner.vault] == Outcome(rows=0, reason="nothing-to-open", failed=False)


def test_a_freeze_is_seen_by_whoever_holds_the_consent(world: TwinWorld, children: Children) -> None:
    from vault.consent.hold import hold
    from vault.parties import people
    from vault.parties.people import VaultState
    from vault.policy.permits import decide_refresh
    from vault.twin.months import permitted
    from vault.twin.requests import REFRESH_PURPOSE

    version = world.keep_twin()
    worker = world.worker(children)
    with world.database.transaction() as session:
        permit = permitted(session, worker, ConsentId(version.consent_id), decide_refresh, REFRESH_PURPOSE)
        assert hold(session, permit, NOW)
    cause = sign_freeze(world.owner.key, vault_id=world.owner.vault, sequence=1, frozen=True)
    with world.database.transaction() as session:
        people.freeze(session, world.owner.vault, VaultState.FROZEN, cause, now=NOW)
        assert not hold(session, permit, NOW)


@pytest.mark.parametrize(
    "reply", [None, b"", b"n", b"n" + bytes(15), b"n" + bytes(17), b"x" + bytes(16), b"r" + bytes(16)]
)
def test_only_the_asked_number_of_integers_is_an_answer(reply: bytes | None) -> None:
    from vault.twin.opening import parse_reply

    with pytest.raises(SealError):
        parse_reply(reply, (2,))
    assert parse_reply(b"r", (2,)) is None
    numbers = parse_reply(b"n" + bytes(16), (2,))
    assert numbers is not None
    assert numbers.tolist() == [0, 0]


def test_nothing_commits_under_a_version_that_was_replaced(lite: TwinWorld, children: Children, while_opening) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    while_opening(lambda: lite.amend(lite.next(version, ConsentEvent.NARROWED)))
    assert lite.refresh(children, version).rows == 0
    assert lite.stored() == []
