"""Daily rows: every closed day has its own, late ones always, each under one charge a month."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from tests.leaves import leaves
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
    every_day,
)
from tests.vault_kit import MONTH, NOW, PURCHASE
from vault.budget.days import sigma_of
from vault.budget.ledger import State
from vault.db import Database
from vault.encoding import b64u
from vault.imprint.block import DAILY, LATE, sensitivity, strategy_from
from vault.imprint.features import Cadence
from vault.imprint.noise import DiscreteGaussian, Integers, RandomBytes
from vault.schema.trace import Period
from vault.seal.derive import chain_key, imprint_key
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, sha256
from vault.seal.wrap import unlock
from vault.twin import chains, rows
from vault.twin.children import Children
from vault.twin.refresh import GROUP, Outcome, refresh

BREAD, MILK = RETAIL_DAILY.codes[:2]
DAYS = (CLOSED - date(2026, 9, 1)).days + 1


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys, cadence=Cadence.DAILY)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, cadence=Cadence.DAILY)


def late_rows(world: TwinWorld) -> dict[Period, np.ndarray]:
    return {row.period: world.read(row).values for row in world.stored() if row.mechanism == LATE}


@pytest.mark.usefixtures("quiet")
def test_every_closed_day_has_its_own_vector_under_one_charge_a_month(world: TwinWorld, children: Children) -> None:
    world.buy(BREAD, MILK, day=5)
    world.buy(BREAD, day=6)
    world.buy(MILK, period=MONTH, day=20)
    world.buy(MILK, period=MONTH, day=21)  # not closed yet
    assert world.refresh(children, world.keep_twin()) == Outcome(rows=4, reason="", failed=False)
    blocks = world.blocks()
    assert [(block.start, block.first, len(block.values)) for block in blocks] == [
        (date(2026, 9, 1), date(2026, 9, 1), 30),
        (date(2026, 9, 1), date(2026, 10, 1), 31),
        (date(2026, 9, 1), date(2026, 11, 1), 20),
    ]
    values = np.concatenate([block.values for block in blocks])
    expected = np.zeros_like(values)
    for day, codes in ((34, [BREAD, MILK]), (35, [BREAD]), (80, [MILK])):
        expected[day] = RETAIL_DAILY.day_vector(codes)
    assert (values == expected).all()
    assert {(block.sigma, block.clip) for block in blocks} == {(sigma_of(RETAIL_DAILY, late=False), RETAIL_DAILY.clip)}
    for period, names in ((SEPTEMBER, [DAILY, LATE]), (OCTOBER, [DAILY]), (MONTH, [DAILY])):
        held = charges(world, period)
        assert [one.charge.mechanism["name"] for one in held] == names
        assert {one.state for one in held} == {State.COMMITTED}
        assert 2.9 < epsilon(world, period) <= 3.0
    row = world.stored(OCTOBER)[0]
    with world.database.snapshot() as session:
        logged = [leaf[1:] for leaf in leaves(session) if leaf[0] == "release"]
    assert [public["mechanism"] for public, _ in logged] == [DAILY, LATE, DAILY, DAILY]
    public, personal = logged[2]
    assert public == {
        "kind": "release", "category": PURCHASE, "period": OCTOBER, "mechanism": DAILY, "mu2_micro": row.mu2_micro,
        "map": b64u(RETAIL_DAILY.digest), "rows": 31, "sensitivity": sensitivity(RETAIL_DAILY.clip),
        "sigma": sigma_of(RETAIL_DAILY, late=False),
    }  # fmt: skip
    assert personal is not None
    assert personal["rows"] == [b64u(sha256(row.sealed))]


def test_a_chain_goes_on_each_closed_day_with_the_noise_it_began_with(world: TwinWorld, children: Children) -> None:
    version = world.keep_twin()
    world.refresh(children, version)
    before, cost = world.stored(), epsilon(world, MONTH)
    for day in (21, 22, 23):
        world.clock.at += timedelta(days=1)
        assert world.refresh(children, version) == Outcome(rows=1, reason="", failed=False)
        assert world.refresh(children, version) == Outcome(rows=0, reason="", failed=False)
        assert days_made(world) == every_day(date(2026, 9, 1), date(2026, 11, day))
    assert [row for row in world.stored() if row in before] == before  # byte for byte
    assert epsilon(world, MONTH) == cost <= 3.0
    assert {block.start for block in world.blocks()} == {date(2026, 9, 1)}
    errors = np.concatenate([carried for _, carried in carried_of(world)])
    assert (errors == np.concatenate([block.values for block in world.blocks()])).all()  # there was no trace
    matrix = strategy_from(date(2026, 9, 1)).matrix[: len(errors), : len(errors)]
    white = matrix @ errors / sigma_of(RETAIL_DAILY, late=False)
    # 84 days of 305 numbers: a true deviation of 1 misses these bounds once in 10^9 runs, a chain begun anew always.
    assert abs(white[-3:].std() - 1) < 0.15
    assert abs(white.std() - 1) < 0.03
    lagged = [float((white[lag:] * white[:-lag]).mean()) for lag in (1, 2, 3)]
    assert max(map(abs, lagged)) < 0.04


@pytest.mark.usefixtures("quiet")
def test_what_comes_late_is_in_the_months_one_late_row_and_nothing_is_drawn_again(
    world: TwinWorld, children: Children
) -> None:
    world.buy(BREAD, day=5)
    version = world.keep_twin(not_after=int((NOW + timedelta(days=90)).timestamp()))
    world.refresh(children, version)
    before = world.stored()
    assert late_rows(world).keys() == {SEPTEMBER}  # due 30 days and 48 hours after its end, and October's is not yet
    assert not late_rows(world)[SEPTEMBER].any()  # nothing was late: it is made all the same
    world.buy(MILK, day=5)
    world.buy(MILK, period=MONTH, day=25)  # on time: its day has not closed
    world.buy(BREAD, period=MONTH, day=3)
    assert world.refresh(children, version) == Outcome(rows=0, reason="", failed=False)
    assert world.stored() == before
    world.clock.at = NOW.replace(month=12, day=20)
    world.refresh(children, version)
    assert (late_rows(world)[OCTOBER] == RETAIL_DAILY.day_vector([MILK])).all()
    world.clock.at = NOW.replace(year=2027, month=1, day=5)
    world.buy(MILK, day=6)  # too late even for the late row
    assert world.refresh(children, version).rows == 1
    assert (late_rows(world)[MONTH] == RETAIL_DAILY.day_vector([BREAD])).all()
    november = np.concatenate([block.values for block in world.blocks() if block.first.month == 11])
    assert (november[24] == RETAIL_DAILY.day_vector([MILK])).all()
    assert np.flatnonzero(november.any(1)).tolist() == [24]
    assert [row for row in world.stored() if row in before] == before
    assert all(2.9 < epsilon(world, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH))


def test_a_late_row_has_its_own_noise(lite: TwinWorld, children: Children) -> None:
    lite.clock.at = NOW.replace(month=12, day=20)
    lite.refresh(children, lite.keep_twin())
    late = np.concatenate(list(late_rows(lite).values()))
    assert len(late) == 2 * RETAIL_DAILY.size
    assert 0.85 < late.std() / sigma_of(RETAIL_DAILY, late=True) < 1.15


def test_a_years_end_ends_its_chain_and_a_consents_first_month_begins_one(lite: TwinWorld, children: Children) -> None:
    lite.extend(Period("2026-12"), Period("2027-01"))
    lite.clock.at = NOW.replace(year=2027, month=1, day=9)
    window = {
        "data_from": OCTOBER,
        "data_to": Period("2027-01"),
        "not_after": int((NOW + timedelta(days=90)).timestamp()),
    }
    lite.refresh(children, lite.keep_twin(**window))
    starts = {(block.start, block.first.year) for block in lite.blocks()}
    assert starts == {(date(2026, 10, 1), 2026), (date(2027, 1, 1), 2027)}
    assert days_made(lite) == every_day(date(2026, 10, 1), date(2027, 1, 6))


def test_days_that_monthly_rows_have_paid_for_get_no_daily_ones(lite: TwinWorld, children: Children) -> None:
    lite.cadence = Cadence.MONTHLY
    version = lite.keep_twin()
    lite.refresh(children, version)
    lite.cadence = Cadence.DAILY
    assert lite.refresh(children, version) == Outcome(rows=1, reason="budget-exhausted", failed=False)
    assert days_made(lite) == every_day(date(2026, 11, 1), CLOSED)
    assert all(epsilon(lite, period) <= 3.0 for period in (SEPTEMBER, OCTOBER, MONTH))
    lite.cadence = Cadence.MONTHLY
    assert lite.refresh(children, version).rows == 0


def test_what_a_chain_goes_on_with_does_not_open_with_an_imprint_key(lite: TwinWorld, children: Children) -> None:
    lite.refresh(children, lite.keep_twin())
    row = lite.stored(OCTOBER)[0]
    with lite.database.snapshot() as session:
        sealed = rows.carried(session, lite.owner.vault, [row.release_id])[row.release_id]
    seed, context = lite.seed(lite.place(row)), chains._context(lite.owner.vault, row.release_id)
    assert unlock(chain_key(seed), sealed, context)
    with pytest.raises(SealError):
        unlock(imprint_key(seed), sealed, context)
    assert not row.carried  # nor does a row's reader get it


@pytest.mark.parametrize("group", [GROUP, 1])
def test_many_vaults_are_made_at_once_each_with_its_own_noise(
    lite: TwinWorld, shortkeys, children: Children, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr("vault.twin.refresh.GROUP", group)
    other, sample, drawn = another_vault(lite.database, shortkeys, lite), DiscreteGaussian.sample, []

    def counted(self: DiscreteGaussian, shape: tuple[int, int], *source: RandomBytes) -> Integers:
        drawn.append(shape)
        return sample(self, shape, *source)

    monkeypatch.setattr(DiscreteGaussian, "sample", counted)
    wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in (lite, other)}
    assert {outcome.rows for outcome in refresh(lite.worker(children), wanted).values()} == {4}
    together = min(group, 2)
    one_draw = [(together, RETAIL_DAILY.size), (DAYS, together * RETAIL_DAILY.size)]  # of late rows, of days
    assert drawn == one_draw * (2 // together)
    one, two = (np.concatenate([block.values for block in world.blocks()]) for world in (lite, other))
    assert one.shape == two.shape == (DAYS, RETAIL_DAILY.size)
    matrix = strategy_from(date(2026, 9, 1)).matrix[:DAYS, :DAYS]
    assert abs(np.corrcoef((matrix @ one).ravel(), (matrix @ two).ravel())[0, 1]) < 0.04
    assert sensitivity(RETAIL_DAILY.clip) ** 2 >= RETAIL_DAILY.clip**2 * strategy_from(date(2026, 9, 1)).column_square
