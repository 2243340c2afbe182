"""Daily rows in the ledger: a month is paid once, a day is made once, and who pays nothing knows that it is paid."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vault.budget import days, ledger
from vault.budget.charge import LedgerCharge, owner_day
from vault.budget.days import Days, day_charge, month_curve, month_sigma, sigma_of
from vault.budget.ledger import BudgetExhausted, ChargeConflict, Reservation, State
from vault.db import Database
from vault.imprint.block import COLUMN_SQUARE, sensitivity
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.proof.accounting import NOTHING, ORDERS, OWNER_DAY_CAP, gaussian
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.ids import new_id

RETAIL = feature_map(Category("pd:Purchase"), Cadence.DAILY)
HEALTH = feature_map(Category("pd:Health"), Cadence.DAILY)
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
VAULT, SCOPE = b"v" * 16, owner_day(b"v" * 16, Period("2026-10"))
WHOLE, ALONE = OWNER_DAY_CAP, sigma_of(RETAIL, late=False)
COST = month_curve(RETAIL, ALONE)


def october(first: int, last: int, *, late: bool = False) -> Days:
    return Days(date(2026, 10, first), date(2026, 10, last), late)


def charge(name: int, wanted: Days, sigma: int = ALONE) -> LedgerCharge:
    return day_charge(RETAIL, VAULT, wanted, sigma=sigma, release_id=name.to_bytes(32), code_hash=b"c" * 32)


def take(database: Database, name: int, wanted: Days) -> Reservation:
    with database.transaction() as session:
        return days.reserve(session, charge(name, wanted), WHOLE, at=AT)


def keep(database: Database, reservation: Reservation) -> None:
    with database.transaction() as session:
        days.commit(session, reservation, at=AT)


def spent(database: Database) -> float:
    with database.snapshot() as session:
        return ledger.spent(session, SCOPE).epsilon(WHOLE.delta)


def test_the_months_cost_is_dp_accounting_s_for_its_two_releases() -> None:
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    on_time, late = sigma_of(RETAIL, late=False), sigma_of(RETAIL, late=True)
    accountant.compose(dp_accounting.GaussianDpEvent(on_time / sensitivity(RETAIL.clip)))
    accountant.compose(dp_accounting.GaussianDpEvent(late / RETAIL.clip))
    assert np.array(COST.nano) / 1e9 == pytest.approx(np.array(accountant._rdp), rel=1e-8)
    # A chain shows at most this of one day, whichever; the exact length of its column costs no more than is charged.
    exact = accountant._rdp[0] / ORDERS[0] * 2
    assert RETAIL.clip**2 * COLUMN_SQUARE / on_time**2 + RETAIL.clip**2 / late**2 <= exact
    assert 2.99 < COST.epsilon(1e-6) <= 3.0
    assert WHOLE.admits(COST)
    assert not WHOLE.admits(COST + gaussian(RETAIL.clip, late))


def test_the_first_release_of_a_month_pays_and_the_others_say_their_days(database: Database) -> None:
    first = take(database, 1, october(1, 20))
    keep(database, first)
    cost = spent(database)
    assert 2.99 < cost <= 3.0
    for name, wanted in ((2, october(21, 21)), (3, october(1, 21, late=True)), (4, october(22, 31))):
        keep(database, take(database, name, wanted))
    assert spent(database) == cost
    with database.transaction() as session:
        held = ledger.hold(session, SCOPE)
    assert [any(one.charge.curve.nano) for one in held] == [True, False, False, False]
    made = days.gone(held, RETAIL.category, late=False)
    assert made == {date(2026, 10, day) for day in range(1, 32)}
    assert len(days.gone(held, RETAIL.category, late=True)) == 21
    assert days.gone(held, Category("pd:Location"), late=False) == set()


def test_a_day_is_never_made_twice(database: Database) -> None:
    keep(database, take(database, 1, october(1, 20)))
    for again in (october(20, 21), october(1, 1), october(5, 6), october(1, 20)):
        with pytest.raises(ChargeConflict, match="second"):
            take(database, 2, again)
    take(database, 3, october(20, 21, late=True))  # another row


def test_of_two_that_raced_only_the_first_is_stored(database: Database) -> None:
    one, two = take(database, 1, october(1, 20)), take(database, 2, october(1, 21))
    keep(database, two)
    with pytest.raises(ChargeConflict, match="second"):
        keep(database, one)
    keep(database, two)  # repeating it is harmless
    assert spent(database) <= 3.0


def test_what_died_may_be_tried_again_under_its_own_name_or_another(database: Database) -> None:
    first = take(database, 1, october(1, 20))
    cost = spent(database)
    assert take(database, 1, october(1, 20)) == first
    other = take(database, 2, october(1, 21))
    assert take(database, 1, october(1, 20)) == first
    assert spent(database) == cost
    keep(database, other)


def test_noise_that_may_have_been_seen_stays_charged_and_its_days_stay_gone(database: Database) -> None:
    first = take(database, 1, october(1, 20))
    with database.transaction() as session:
        ledger.abort(session, first, at=AT)
    with pytest.raises(ChargeConflict):
        take(database, 2, october(20, 21))
    keep(database, take(database, 3, october(21, 22)))
    assert 2.99 < spent(database) <= 3.0


def test_a_payer_that_paid_less_does_not_count(database: Database) -> None:
    cheap = replace(charge(1, october(1, 1)), curve=gaussian(RETAIL.clip, sigma_of(RETAIL, late=True)))
    with database.transaction() as session:
        ledger.reserve(session, cheap, WHOLE, at=AT)
    with pytest.raises(BudgetExhausted):
        take(database, 3, october(2, 2))


def test_another_categorys_payment_does_not_count(database: Database) -> None:
    elsewhere = replace(charge(2, october(1, 1)), category="pd:Location")
    with database.transaction() as session:
        ledger.reserve(session, elsewhere, WHOLE, at=AT)
    with pytest.raises(BudgetExhausted):
        take(database, 3, october(2, 2))


def test_a_month_has_the_noise_that_it_was_first_paid_with_whatever_the_share_is_by_now(database: Database) -> None:
    half, third = (sigma_of(RETAIL, count, late=False) for count in (2, 3))
    with database.transaction() as session:
        assert month_sigma(ledger.hold(session, SCOPE), RETAIL, 3) == third
        first = days.reserve(session, charge(1, october(1, 5), half), WHOLE, at=AT)
        health = day_charge(HEALTH, VAULT, october(1, 5), sigma=third, release_id=b"h" * 32, code_hash=b"c" * 32)
        days.reserve(session, health, WHOLE, at=AT)
    for aborted in (False, True):
        with database.transaction() as session:
            if aborted:
                ledger.abort(session, first, at=AT)
            held = ledger.hold(session, SCOPE)
            assert {month_sigma(held, RETAIL, count) for count in (1, 2, 3, 4)} == {half}, aborted
            assert month_sigma(held, HEALTH, 1) == third
            assert month_sigma(held, replace(RETAIL, digest=bytes(32)), 1) == half, (
                "seen through a lens, at the same cost"
            )
            shorter = replace(RETAIL, digest=bytes(32), clip=32)
            assert month_sigma(held, shorter, 1) == sigma_of(shorter, late=False), "another clip has another cost"
    with database.transaction() as session:
        cost = ledger.spent(session, SCOPE)
        days.commit(session, days.reserve(session, charge(2, october(6, 9), half), WHOLE, at=AT), at=AT)
        assert ledger.spent(session, SCOPE) == cost
        assert not WHOLE.admits(cost + COST), "the whole cap's noise would be refused here"


_steps = st.tuples(
    st.sampled_from([RETAIL, HEALTH, *(feature_map(Category(f"pd:{name}"), Cadence.DAILY) for name in
    ("BrowsingBehaviour", "LinkClicked"))]), st.integers(1, 4), st.integers(1, 31), st.integers(0, 12), st.booleans(),
    st.sampled_from(State),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_steps, max_size=24))
def test_no_order_of_shares_joins_and_fates_overdraws_a_day(
    sqlite_database: Database, steps: list[tuple[FeatureMap, int, int, int, bool, State]]
) -> None:
    vault, drawn = new_id(), defaultdict[str, set[int]](set)
    scope = owner_day(vault, Period("2026-10"))
    for at, (mapped, count, first, length, late, fate) in enumerate(steps):
        wanted = october(first, min(first + length, 31), late=late)
        with sqlite_database.transaction() as session:
            sigma = month_sigma(ledger.hold(session, scope), mapped, count)
            asked = day_charge(mapped, vault, wanted, sigma=sigma, release_id=at.to_bytes(32), code_hash=b"c" * 32)
            try:
                reserved = days.reserve(session, asked, WHOLE, at=AT)
            except (BudgetExhausted, ChargeConflict):
                continue
            drawn[mapped.category].add(sigma)
            match fate:
                case State.RESERVED:
                    pass
                case State.COMMITTED:
                    days.commit(session, reserved, at=AT)
                case State.ABORTED:
                    ledger.abort(session, reserved, at=AT)
    assert all(len(noises) == 1 for noises in drawn.values())
    # By the noise that was drawn, and not by what the ledger says of it; every clip is the same.
    cost = sum((month_curve(RETAIL, sigma) for noises in drawn.values() for sigma in noises), NOTHING)
    assert cost.epsilon(WHOLE.delta) <= WHOLE.epsilon
    with sqlite_database.snapshot() as session:
        assert ledger.spent(session, scope).epsilon(WHOLE.delta) <= WHOLE.epsilon


def test_days_of_two_months_are_no_release() -> None:
    with pytest.raises(ValueError, match="one month"):
        Days(date(2026, 10, 31), date(2026, 11, 1))
    with pytest.raises(ValueError, match="one month"):
        october(2, 1)
    assert days.days_of(replace(charge(1, october(3, 4)), mechanism={"name": "monthly/1"})) is None
    assert days.days_of(charge(1, october(3, 4, late=True))) == october(3, 4, late=True)
    assert charge(1, october(3, 4)).curve != NOTHING
