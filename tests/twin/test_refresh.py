"""Rows are charged before data is opened, noisy once, logged, and stored only under a live consent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import sqlalchemy

from tests.leaves import leaves
from tests.twin.worker_kit import OCTOBER, RETAIL, SEPTEMBER, TwinWorld, epsilon, erase, renew
from tests.vault_kit import MONTH, NOW, PURCHASE
from tests.waiting import together
from vault.budget.charge import owner_day, parse_charge
from vault.consent.hold import hold
from vault.encoding import b64u
from vault.parties import people
from vault.parties.people import VaultState
from vault.policy.permits import decide_refresh
from vault.schema.consent import ConsentEvent
from vault.schema.trace import Period
from vault.seal import row as sealed_rows
from vault.seal.derive import imprint_key
from vault.seal.dsse import PayloadType
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, new_id, sha256
from vault.seal.person import Profile, sign_freeze
from vault.seal.signing import SigningKey, new_seed
from vault.twin import rows
from vault.twin.children import Children
from vault.twin.infer import read
from vault.twin.months import Worker, permitted
from vault.twin.reader import BadBackbone, closed_form
from vault.twin.refresh import Outcome, noise_of, refresh
from vault.twin.requests import REFRESH_PURPOSE

BREAD, MILK = RETAIL.codes[0], RETAIL.codes[1]


def states(world: TwinWorld, period: Period) -> dict[bytes, str]:
    with world.database.snapshot() as session:
        query = sqlalchemy.text("SELECT release_id, state FROM budget_ledger WHERE scope = :s ORDER BY position")
        found = session.connection().execute(query, {"s": owner_day(world.owner.vault, period).key})
        return {row.release_id: row.state for row in found}


def freeze(world: TwinWorld) -> None:
    cause = sign_freeze(world.owner.key, vault_id=world.owner.vault, sequence=1, frozen=True)
    with world.database.transaction() as session:
        people.freeze(session, world.owner.vault, VaultState.FROZEN, cause, now=NOW)


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


def test_a_newer_map_is_for_new_months_and_days_already_paid_for_keep_the_rows_they_have(
    world: TwinWorld, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy(BREAD)
    version = world.keep_twin()
    world.refresh(children, version)
    before, cost = world.stored(), epsilon(world, OCTOBER)
    newer = replace(RETAIL, version="retail-2", digest=bytes(32))
    monkeypatch.setattr(Worker, "map_of", lambda _, __: newer)
    assert world.refresh(children, version) == Outcome(rows=0, reason="budget-exhausted", failed=False)
    assert world.stored() == before
    assert epsilon(world, OCTOBER) == cost
    world.clock.at = datetime(2026, 12, 5, 12, tzinfo=UTC)
    assert world.refresh(children, version).rows == 1
    made = {row.period: row.map_digest for row in world.stored()}
    assert made == {SEPTEMBER: RETAIL.digest, OCTOBER: RETAIL.digest, MONTH: newer.digest}
    assert 2.9 < epsilon(world, MONTH) <= 3.0
    with pytest.raises(BadBackbone, match="same feature map"):
        read(closed_form(newer), newer, [world.read(row) for row in world.stored()], Period("2026-12"))


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
    gone = world.owner.compartment(PURCHASE, OCTOBER).id
    erase(world, gone)
    world.extend(OCTOBER)
    world.buy(BREAD)
    renewed = renew(world, version, gone)
    assert world.refresh(children, renewed) == Outcome(rows=0, reason="budget-exhausted", failed=False)
    assert [row.period for row in world.stored()] == [SEPTEMBER]
    assert 2.9 < epsilon(world, OCTOBER) <= 3.0


def test_only_closed_months_inside_the_window_are_opened(lite: TwinWorld, children: Children) -> None:
    version = lite.keep_twin(data_from=OCTOBER)
    lite.refresh(children, version)
    assert [row.period for row in lite.stored()] == [OCTOBER]  # neither September nor the running November


def test_another_purpose_a_freeze_or_a_withdrawal_opens_nothing(lite: TwinWorld, children: Children) -> None:
    other = lite.keep_twin(purposes=frozenset({"dpv:Marketing"}))
    assert lite.refresh(children, other).reason == "not-covered"
    version = lite.keep_twin()
    lite.withdraw(version)
    assert lite.refresh(children, version).reason == "consent-not-active"
    version = lite.keep_twin()
    freeze(lite)
    assert lite.refresh(children, version).reason == "not-permitted"
    assert states(lite, OCTOBER) == {}
    assert lite.stored() == []


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
    lite.buy(BREAD)
    version = lite.keep_twin()
    while_opening(lambda: freeze(lite))
    assert lite.refresh(children, version) == Outcome(rows=0, reason="consent-not-active", failed=False)
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
    outcomes = together(*[lambda: world.refresh(children, version)] * 2)
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


def test_a_failed_month_can_be_tried_again_at_no_further_cost(lite: TwinWorld, children: Children) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    with lite.database.snapshot() as session:
        good = session.connection().execute(sqlalchemy.text("SELECT batch FROM batch")).scalar_one()
    with lite.database.transaction() as session:  # bytes that do not match their digest: a failing disk
        session.connection().execute(
            sqlalchemy.text("UPDATE batch SET batch = :b"), {"b": good[:-1] + bytes([good[-1] ^ 1])}
        )
    assert lite.refresh(children, version).failed
    cost = epsilon(lite, OCTOBER)
    assert set(states(lite, OCTOBER).values()) == {"reserved"}
    with lite.database.transaction() as session:
        session.connection().execute(sqlalchemy.text("UPDATE batch SET batch = :b"), {"b": good})
    assert lite.refresh(children, version).rows == 2
    assert epsilon(lite, OCTOBER) == cost


def test_a_row_opens_under_its_imprint_key_only(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    stored = lite.stored(OCTOBER)[0]
    verified = sealed_rows.verify_row(sealed_rows.parse_row(stored.sealed), lite.worker_key.public_key)
    for wrong in (imprint_key(lite.seed(lite.owner.compartment(PURCHASE, SEPTEMBER))), new_seed()):
        with pytest.raises(SealError):
            sealed_rows.open_row(verified, wrong)


def test_the_code_under_test_signs_rows_as_rows(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    stored = sealed_rows.parse_row(lite.stored(OCTOBER)[0].sealed)
    with pytest.raises(SealError):
        sealed_rows.verify_row(stored, SigningKey(new_seed()).public_key)
    stored.blob.verify(PayloadType.ROW, lite.worker_key.public_key)


def test_a_vault_without_that_consent_changes_nothing(lite: TwinWorld, children: Children) -> None:
    found = refresh(lite.worker(children), {lite.owner.vault: ConsentId(new_id())})
    assert found[lite.owner.vault] == Outcome(rows=0, reason="nothing-to-open", failed=False)
    assert lite.stored() == []


def test_a_freeze_is_seen_by_whoever_holds_the_consent(world: TwinWorld, children: Children) -> None:
    version = world.keep_twin()
    worker = world.worker(children)
    with world.database.transaction() as session:
        permit = permitted(session, worker, ConsentId(version.consent_id), decide_refresh, REFRESH_PURPOSE)
        assert hold(session, permit, NOW)
    freeze(world)
    with world.database.transaction() as session:
        assert not hold(session, permit, NOW)


def test_a_profile_is_seen_by_whoever_holds_the_consent(world: TwinWorld, children: Children) -> None:
    version = world.keep_twin()
    worker = world.worker(children)
    with world.database.transaction() as session:
        permit = permitted(session, worker, ConsentId(version.consent_id), decide_refresh, REFRESH_PURPOSE)
        world.declare(session, Profile(minor=True, guardian_ok=True))
    with world.database.transaction() as session:
        assert not hold(session, permit, NOW)
        assert hold(session, replace(permit, profile=Profile(minor=True, guardian_ok=True)), NOW)


def test_nothing_commits_under_a_version_that_was_replaced(lite: TwinWorld, children: Children, while_opening) -> None:
    lite.buy(BREAD)
    version = lite.keep_twin()
    while_opening(lambda: lite.amend(lite.next(version, ConsentEvent.NARROWED)))
    assert lite.refresh(children, version) == Outcome(rows=0, reason="consent-not-active", failed=False)
    assert lite.stored() == []
