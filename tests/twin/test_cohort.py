"""A backbone is charged before anyone is read, stored only under live consents, and thrown away without a certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import sqlalchemy
import torch

from tests.leaves import leaves
from tests.twin.lens_kit import GOOD
from tests.twin.worker_kit import OCTOBER, RETAIL, RETAIL_DAILY, SEPTEMBER, TwinWorld, another_vault
from tests.vault_kit import NOW
from vault.budget import ledger
from vault.budget.charge import person_year
from vault.budget.ledger import BudgetExhausted
from vault.db import Database
from vault.imprint.block import Block
from vault.imprint.features import Cadence
from vault.jobs import queue
from vault.proof.accounting import PERSON_YEAR_CAP, person_curve
from vault.proof.certificate import Certificate
from vault.proof.charge import epsilon_of
from vault.schema.consent import ConsentVersion
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey, new_seed
from vault.twin import certify, cohort, release
from vault.twin.certify import CHARGES
from vault.twin.children import Children
from vault.twin.cohort import train_cohort
from vault.twin.infer import month_number, read_days
from vault.twin.levels import read_level
from vault.twin.reader import Reader, closed_form
from vault.twin.refresh import refresh
from vault.twin.requests import TRAIN, request_training
from vault.twin.train import CohortTooSmall, PersonMonths, read_odds

BREAD, MILK = RETAIL.codes[0], RETAIL.codes[1]
ONE, ANOTHER = bytes([1]) * 16, bytes([2]) * 16


class Cohort:
    """Three people with twins, two of whom take part."""

    def __init__(
        self, database: Database, shortkeys: Database, children: Children, cadence: Cadence = Cadence.MONTHLY
    ) -> None:
        first = TwinWorld(database, shortkeys, cadence=cadence)
        self.people = [first, *(another_vault(database, shortkeys, first) for _ in range(2))]
        self.worker = first.worker(children)
        for world in self.people:
            world.buy(BREAD, day=5)
            world.buy(BREAD, MILK, day=6)
        wanted = {world.owner.vault: ConsentId(world.keep_twin().consent_id) for world in self.people}
        refresh(self.worker, wanted)
        self.members: list[tuple[TwinWorld, ConsentVersion]] = [
            (world, world.join_cohort()) for world in self.people[:2]
        ]

    def states(self) -> list[str]:
        with self.worker.database.snapshot() as session:
            query = sqlalchemy.text("SELECT state FROM budget_ledger WHERE scope = :s ORDER BY position")
            return list(session.connection().execute(query, {"s": person_year(NOW.year).key}).scalars())

    def outcomes(self) -> list[str]:
        with self.worker.database.snapshot() as session:
            return [str(public["outcome"]) for kind, public, _ in leaves(session) if kind == "training"]

    def model(self) -> release.Model:
        with self.worker.database.snapshot() as session:
            return release.current(session, RETAIL, [self.worker.signer.public_key], NOW)


@pytest.fixture
def group(database: Database, shortkeys: Database, children: Children) -> Cohort:
    return Cohort(database, shortkeys, children)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database, children: Children) -> Cohort:
    return Cohort(sqlite_database, shortkeys, children)


@pytest.fixture(autouse=True)
def _nobody_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each person's coin would now and then leave a cohort of one or two with nobody to learn from."""
    monkeypatch.setattr(certify, "HELD_OUT_SHARE", 0.0)


def test_a_model_learns_rows_and_targets_of_members_alone(group: Cohort, trainer) -> None:
    made = trainer()
    assert train_cohort(group.worker, ONE) == ""
    (records,) = made.records
    assert made.people() == [2]
    assert len(records.month) == 4  # September and October of each
    october = records.month == records.month.max()
    assert records.days[october].tolist() == [2, 2]
    assert records.chosen[october][:, :2].tolist() == [[2, 1], [2, 1]]
    assert not records.chosen[~october].any()
    assert (records.sums[october] == 0).mean() > 0.9
    assert (records.sums[october][:, -1] == 2 * RETAIL.active_day).all()
    assert ((records.sums[:, :-1] > 0) == (records.chosen > 0)).all()
    known = {tuple(world.read(world.stored(OCTOBER)[0]).values) for world, _ in group.members}
    assert {tuple(row) for row in records.rows[october]} == known
    assert group.states() == ["reserved", "committed"]
    assert group.outcomes() == ["released"]
    assert [group.model().backbone.digest] == [backbone.digest for backbone in made.backbones]


def test_daily_rows_are_read_as_levels_on_the_first_of_each_closed_month(
    database: Database, shortkeys: Database, children: Children, trainer
) -> None:
    group, made = Cohort(database, shortkeys, children, Cadence.DAILY), trainer()
    assert train_cohort(group.worker, ONE) == ""
    (records,) = made.records
    assert len(records.month) == 4  # September and October of each; November has not closed
    october = records.month == records.month.max()
    assert records.days[october].tolist() == [2, 2]
    assert records.chosen[october][:, :2].tolist() == [[2, 1], [2, 1]]
    assert records.worth is not None
    assert records.worth[~october].tolist() == [0.0, 0.0]  # nothing was released before September
    assert not records.rows[~october].any()
    expected = [read_level(RETAIL_DAILY, world.blocks()[:1], date(2026, 10, 1)) for world, _ in group.members]
    levels = {tuple(np.rint(level.values).astype(int)): level for level in expected if level is not None}
    for row, sigma, worth in zip(records.rows[october], records.sigma[october], records.worth[october], strict=True):
        level = levels[tuple(row)]
        assert (sigma, worth) == (round(level.sigma), level.months)
    with group.worker.database.snapshot() as session:
        model = release.current(session, RETAIL_DAILY, [group.worker.signer.public_key], NOW)
    assert model.manifest.cohort == 500


def test_what_is_trained_is_what_is_served() -> None:
    """A month's log-odds in training are those that a question on its first day is answered with."""
    blocks = [
        Block(bytes(32), RETAIL_DAILY.digest, date(2026, 9, 1), first, RETAIL_DAILY.clip, 13_948, values)
        for first, values in (
            (date(2026, 9, 1), np.random.default_rng(1).integers(-90, 90, (30, RETAIL_DAILY.size))),
            (date(2026, 10, 1), np.random.default_rng(2).integers(-90, 90, (31, RETAIL_DAILY.size))),
        )
    ]
    levels = [read_level(RETAIL_DAILY, blocks, date(2026, month, 1)) for month in (10, 11)]
    number = month_number(OCTOBER)
    records = PersonMonths(
        person=np.zeros(3, dtype=np.int64),
        month=np.array([number - 1, number, number + 1]),
        rows=np.stack(
            [np.zeros(RETAIL_DAILY.size, dtype=np.int64), *(np.rint(one.values) for one in levels if one)]
        ).astype(int),
        days=np.ones(3, dtype=np.int64),
        chosen=np.zeros((3, RETAIL_DAILY.size - 1), dtype=np.int64),
        sums=np.zeros((3, RETAIL_DAILY.size), dtype=np.int64),
        sigma=np.array([1, *(round(one.sigma) for one in levels if one)]),
        worth=np.array([0.0, *(one.months for one in levels if one)]),
    )
    model = closed_form(RETAIL_DAILY)
    reader = Reader.of(RETAIL_DAILY, model)
    odds = read_odds(reader, torch.from_numpy(model.scalars), records.grouped())[0]
    for at, month in ((1, 10), (2, 11)):
        scores = torch.sigmoid(odds[at]).numpy()[:-1]
        served = read_days(model, RETAIL_DAILY, blocks, date(2026, month, 1)).score_ppm
        assert np.abs(scores * 1e6 - np.array(list(served.values()))).max() <= 3_000  # rounded to steps of 5,000
    nothing = read_days(model, RETAIL_DAILY, [], date(2026, 9, 1)).score_ppm
    assert np.abs(torch.sigmoid(odds[0]).numpy()[:-1] * 1e6 - np.array(list(nothing.values()))).max() <= 3_000


def test_a_person_pays_for_the_year_before_anyone_is_read(lite: Cohort, trainer, monkeypatch) -> None:
    trainer()
    states: list[list[str]] = []
    opened = cohort.open_months
    monkeypatch.setattr(cohort, "open_months", lambda *a: states.append(lite.states()) or opened(*a))
    train_cohort(lite.worker, ONE)
    assert states == [["reserved"], ["reserved"]]
    with lite.worker.database.snapshot() as session:
        spent = ledger.spent(session, person_year(NOW.year)).epsilon(PERSON_YEAR_CAP.delta)
    assert epsilon_of(CHARGES, 1e-6) - 0.01 <= spent <= 3.0
    with pytest.raises(BudgetExhausted):
        train_cohort(lite.worker, ANOTHER)
    assert len(states) == 2  # nobody was read for the second


def test_a_category_that_no_longer_fits_in_the_year_keeps_no_other_from_its_model(
    lite: Cohort, trainer, monkeypatch
) -> None:
    made, members, read = trainer(), cohort._members, cohort.open_months
    opened: list[str] = []
    # Everyone has browsing rows too: what they are is never asked, for the year is spent before.
    monkeypatch.setattr(cohort, "_members", lambda worker, _: members(worker, (RETAIL,)))
    monkeypatch.setattr(cohort, "open_months", lambda *a: opened.append(a[2][0][1].mapped.category) or read(*a))
    assert train_cohort(lite.worker, ONE) == "budget-exhausted"
    assert (len(made.backbones), lite.outcomes()) == (1, ["released"])
    assert set(opened) == {RETAIL.category}
    with pytest.raises(BudgetExhausted, match=r"No model of pd:Purchase can be trained before 2027: Of epsilon 3 at"):
        train_cohort(lite.worker, ANOTHER)
    assert len(made.backbones) == 1


def test_a_job_run_again_after_a_crash_pays_and_stores_once(lite: Cohort, trainer) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    trainer(after=crash)
    with pytest.raises(KeyboardInterrupt):
        train_cohort(lite.worker, ONE)
    assert lite.states() == ["reserved"]
    made = trainer()
    assert train_cohort(lite.worker, ONE) == ""
    assert train_cohort(lite.worker, ONE) == ""
    assert len(made.backbones) == 1
    assert lite.states() == ["reserved", "committed"]
    assert lite.outcomes() == ["released"]


def test_a_training_that_a_restore_took_the_model_of_is_not_told_as_released(lite: Cohort, trainer) -> None:
    """It waited in the backup, and was charged since: the journal has the charge, and nothing has the model."""
    made = trainer()
    charge = cohort._charge(lite.worker, ONE, RETAIL)
    with lite.worker.database.transaction() as session:
        assert ledger.restore(session, charge, at=NOW)
    assert train_cohort(lite.worker, ONE) == "training-forgotten"
    assert made.backbones == []


def test_a_training_has_a_name_that_no_other_had(sqlite_database: Database) -> None:
    """A restored database gives numbers anew: one that is charged already would count as done, with no model."""
    found = []
    for _ in range(2):
        with sqlite_database.transaction() as session:
            request_training(session, NOW)
            (job,) = queue.claim(session, now=NOW, lease_s=60)
            found.append(job)
            queue.forget(session, TRAIN)
            session.connection().exec_driver_sql("DELETE FROM sqlite_sequence")
    assert found[0].id == found[1].id
    assert found[0].payload["training"] != found[1].payload["training"]


@pytest.mark.parametrize(
    ("certificate", "settled"),
    [(GOOD, ["committed", "released"]), (replace(GOOD, gain_ppm=-500_000), ["aborted", "certificate-invalid"])],
)
def test_two_workers_at_one_training_settle_it_once(lite: Cohort, trainer, certificate: Certificate, settled) -> None:
    """One charge pays for one model: what the worker whose lease was over made is thrown away unseen."""
    others: list[str] = []

    def another_worker() -> None:
        if not others:
            others.append("")
            others.append(train_cohort(lite.worker, ONE))

    made = trainer(certificate, after=another_worker)
    state, outcome = settled
    mine = train_cohort(lite.worker, ONE)  # trains first and settles last
    assert (mine, others[1]) == ("", "" if outcome == "released" else outcome)
    assert lite.states() == ["reserved", state]
    assert lite.outcomes() == [outcome]
    with lite.worker.database.snapshot() as session:
        stored = [one.manifest.model_sha256 for one in release.trained(session)]
    assert len(made.backbones) == 2
    assert stored == ([made.backbones[1].digest] if outcome == "released" else [])


def test_who_withdraws_during_training_is_in_no_model(group: Cohort, trainer) -> None:
    leaving = iter([group.members[0]])

    def withdraw() -> None:
        for world, version in leaving:
            world.withdraw(version)

    made = trainer(after=withdraw)
    assert train_cohort(group.worker, ONE) == ""
    assert made.people() == [2, 1]
    assert group.model().backbone.digest == made.backbones[1].digest
    assert group.states() == ["reserved", "committed"]


def test_nobody_left_is_no_model(lite: Cohort, trainer) -> None:
    def withdraw() -> None:
        while lite.members:
            world, version = lite.members.pop()
            world.withdraw(version)

    trainer(after=withdraw)
    with pytest.raises(CohortTooSmall):
        train_cohort(lite.worker, ONE)
    assert lite.outcomes() == []
    with pytest.raises(CohortTooSmall):
        train_cohort(lite.worker, ANOTHER)


def test_a_model_without_a_certificate_is_charged_logged_and_thrown_away(group: Cohort, trainer) -> None:
    trainer(replace(GOOD, gain_ppm=-500_000))
    assert train_cohort(group.worker, ONE) == "certificate-invalid"
    assert group.states() == ["reserved", "aborted"]
    assert group.outcomes() == ["certificate-invalid"]
    with pytest.raises(release.NoCertifiedModel):
        group.model()


def test_a_row_that_was_exchanged_keeps_its_person_out(lite: Cohort, trainer) -> None:
    with lite.worker.database.transaction() as session:
        connection = session.connection()
        connection.execute(sqlalchemy.text("DROP TRIGGER imprint_row_no_update"))
        one, two = (world.owner.vault for world, _ in lite.members)
        swap = "UPDATE imprint_row SET sealed = (SELECT sealed FROM imprint_row o WHERE o.vault_id = :two AND o.period = :p) "
        connection.execute(
            sqlalchemy.text(swap + "WHERE vault_id = :one AND period = :p"), {"one": one, "two": two, "p": SEPTEMBER}
        )
    made = trainer()
    train_cohort(lite.worker, ONE)
    assert made.people() == [1]


def test_rows_of_a_former_signing_key_are_trained_on_and_a_strangers_are_not(lite: Cohort, trainer) -> None:
    newer, former = SigningKey(new_seed()), lite.worker.signer.public_key
    made = trainer()
    with pytest.raises(CohortTooSmall):
        train_cohort(replace(lite.worker, signer=newer, row_keys=[newer.public_key]), ONE)
    assert train_cohort(replace(lite.worker, signer=newer, row_keys=[former, newer.public_key]), ONE) == ""
    assert made.people() == [2]


def test_a_persons_broken_batch_stops_nobody_elses_model(lite: Cohort, trainer) -> None:
    with lite.worker.database.transaction() as session:
        session.connection().execute(
            sqlalchemy.text("UPDATE batch SET batch = digest WHERE vault_id = :v"),
            {"v": lite.members[0][0].owner.vault},
        )
    made = trainer()
    train_cohort(lite.worker, ONE)
    assert made.people() == [1]


def test_the_ledger_charges_no_less_than_the_certificate_says() -> None:
    exact = epsilon_of(CHARGES, 1e-6)
    assert exact <= person_curve(CHARGES).epsilon(1e-6) + 1e-3
    assert PERSON_YEAR_CAP.admits(person_curve(CHARGES))


@pytest.mark.slow
def test_the_real_trainer_runs_and_two_people_are_too_few_for_a_certificate(lite: Cohort) -> None:
    assert train_cohort(lite.worker, ONE) == "certificate-invalid"
    assert lite.states() == ["reserved", "aborted"]
