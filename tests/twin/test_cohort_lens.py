"""The first training of daily rows brings a lens; later ones keep it, and learn from rows of before and after."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest
import torch

from tests.leaves import leaves
from tests.trainer_kit import CLEAN
from tests.twin.lens_kit import lens_of, seen_through, with_habits
from tests.twin.worker_kit import OCTOBER, RETAIL, RETAIL_DAILY, SEPTEMBER, TwinWorld, another_vault
from tests.vault_kit import NOW
from vault.budget import ledger
from vault.budget.charge import person_year
from vault.budget.ledger import State
from vault.db import Database
from vault.imprint.block import Block
from vault.imprint.features import Cadence, FeatureMap
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.twin import certify, release
from vault.twin.children import Children
from vault.twin.cohort import train_cohort
from vault.twin.infer import month_number, read_days
from vault.twin.levels import read_level
from vault.twin.reader import Reader, maps_of
from vault.twin.requests import TRAIN_PURPOSE
from vault.twin.train import PersonMonths, read_odds

BREAD, MILK = RETAIL.codes[0], RETAIL.codes[1]
ONE, ANOTHER = bytes([1]) * 16, bytes([2]) * 16
LATER = [Period("2026-12"), Period("2027-01"), Period("2027-02")]
LONG = int((NOW + timedelta(days=200)).timestamp())
MARCH = datetime(2027, 3, 9, 12, tzinfo=NOW.tzinfo)


@pytest.fixture(autouse=True)
def _only_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is held out of a cohort of one, and the trainer's audit has tests of its own."""
    monkeypatch.setattr(certify, "HELD_OUT_SHARE", 0.0)
    monkeypatch.setattr(certify, "audit", lambda: CLEAN)


@pytest.fixture
def first(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(sqlite_database, shortkeys, cadence=Cadence.DAILY)


def take_part(world: TwinWorld) -> tuple[ConsentVersion, ConsentVersion]:
    """Return the consents to a twin and to the cohort of somebody who bought something in two months."""
    world.extend(*LATER)
    world.buy(BREAD, day=5)
    world.buy(BREAD, MILK, day=6, period=LATER[1])
    window = {"data_from": SEPTEMBER, "data_to": LATER[-1], "not_after": LONG}
    joined = world.give(ConsentKind.COHORT, purposes=frozenset({TRAIN_PURPOSE}), **window)
    return world.keep_twin(**window), joined


def levels_of(world: TwinWorld, mapped: FeatureMap, number: int) -> tuple[list[int], int, float]:
    """Return what a model is shown of one map's rows on the first of a month: values, noise, worth."""
    blocks = [block for block in world.blocks() if block.map_digest == mapped.digest]
    level = read_level(mapped, blocks, date(number // 12, number % 12 + 1, 1))
    if level is None:
        return [0] * mapped.size, 1, 0.0
    return np.rint(level.values).astype(int).tolist(), round(level.sigma), level.months


def test_later_models_keep_the_first_ones_lens_and_read_rows_of_before_and_after_it(
    first: TwinWorld, shortkeys: Database, children: Children, trainer
) -> None:
    other, made, worker = another_vault(first.database, shortkeys, first), trainer(), first.worker(children)
    twin, joined = take_part(first)
    first.refresh(children, twin)
    assert train_cohort(worker, ONE) == ""
    (begun,) = made.backbones
    assert begun.lens is not None
    assert made.records[0].projected is None
    mine = seen_through(begun)
    assert mine.size == len(begun.lens.weights) + 1
    # Somebody who comes now is seen through it from the first day; who was there goes on plain until the year ends.
    new_twin, new_joined = take_part(other)
    other.refresh(children, new_twin)
    first.clock.at = MARCH
    for world, version in ((first, twin), (other, new_twin)):
        world.refresh(children, version)
    digests = [[block.map_digest for block in world.blocks()] for world in (first, other)]
    assert digests[0] == [RETAIL_DAILY.digest] * 5 + [mine.digest] * 2  # November has two
    assert set(digests[1]) == {mine.digest}

    assert train_cohort(worker, ANOTHER) == ""
    kept, records = made.backbones[1], made.records[1]
    assert (kept.axes == begun.axes).all()
    assert lens_of(kept).digest == lens_of(begun).digest
    assert kept.digest != begun.digest
    assert [one.digest for one in maps_of(RETAIL_DAILY, kept)] == [RETAIL_DAILY.digest, mine.digest]
    people = [world for _, world in sorted([(joined.consent_id, first), (new_joined.consent_id, other)])]
    assert records.projected is not None
    assert records.projected_sigma is not None
    assert records.projected_worth is not None
    assert records.worth is not None
    assert records.projected.shape == (12, mine.size)  # six closed months of each
    for at, (person, number) in enumerate(zip(records.person, records.month, strict=True)):
        plain, through = (levels_of(people[person], mapped, number) for mapped in (RETAIL_DAILY, mine))
        assert (records.rows[at].tolist(), records.sigma[at], records.worth[at]) == plain
        shown = records.projected[at].tolist(), records.projected_sigma[at], records.projected_worth[at]
        assert shown == through
    of_first = records.person == people.index(first)
    assert (records.projected_worth[of_first] > 0).tolist() == [False] * 5 + [True]
    assert (records.worth[of_first] > 0).tolist() == [False] + [True] * 5
    with first.database.snapshot() as session:
        current = release.current(session, RETAIL_DAILY, worker.row_keys, MARCH)
    assert current.backbone.digest == kept.digest
    answers = [read_days(model, RETAIL_DAILY, first.blocks(), MARCH.date()) for model in (begun, kept)]
    assert answers[0] != answers[1]


def test_who_settles_second_with_another_lens_is_charged_logged_and_refused(
    first: TwinWorld, children: Children, trainer
) -> None:
    """A year has room for one model, so two that train at once were charged to two years."""
    others: list[str] = []

    def another_worker() -> None:
        if not others:
            others.append("")
            first.clock.at = datetime(2027, 1, 1, 12, tzinfo=NOW.tzinfo)
            others.append(train_cohort(worker, ANOTHER))

    made, worker = trainer(after=another_worker), first.worker(children)
    twin, _ = take_part(first)
    first.refresh(children, twin)
    first.clock.at = datetime(2026, 12, 31, 12, tzinfo=NOW.tzinfo)
    assert train_cohort(worker, ONE) == "certificate-invalid"
    slow, quick = made.backbones
    assert others == ["", ""]
    assert lens_of(slow).digest != lens_of(quick).digest
    with first.database.snapshot() as session:
        said = [str(public["outcome"]) for kind, public, _ in leaves(session) if kind == "training"]
        models = [one.backbone.digest for one in release.trained(session)]
        framed = release.framing(session, RETAIL_DAILY, worker.row_keys)
    assert said == ["released", "certificate-invalid"]
    with first.database.transaction() as session:
        states = [[one.state for one in ledger.hold(session, person_year(year))] for year in (2026, 2027)]
    assert states == [[State.ABORTED], [State.COMMITTED]]
    assert models == [quick.digest]
    assert framed is not None
    assert lens_of(framed).digest == lens_of(quick).digest
    first.clock.at = MARCH
    first.refresh(children, twin)
    blocks = first.blocks()
    assert {block.map_digest for block in blocks} == {RETAIL_DAILY.digest, seen_through(quick).digest}
    assert read_days(quick, RETAIL_DAILY, blocks, MARCH.date()).score_ppm


def test_months_bring_no_lens(sqlite_database: Database, shortkeys: Database, children: Children, trainer) -> None:
    world, made = TwinWorld(sqlite_database, shortkeys), trainer()
    twin, _ = take_part(world)
    world.refresh(children, twin)
    assert train_cohort(world.worker(children), ONE) == ""
    assert [model.lens for model in made.backbones] == [None]
    with sqlite_database.snapshot() as session:
        assert release.framing(session, RETAIL, [world.worker_key.public_key]) is None


def test_what_is_trained_through_a_lens_is_what_is_served() -> None:
    model, number = with_habits(), month_number(OCTOBER)
    seen = seen_through(model)
    start, rng = date(2026, 9, 1), np.random.default_rng(1)
    plain = Block(
        bytes(32),
        RETAIL_DAILY.digest,
        start,
        start,
        RETAIL_DAILY.clip,
        400,
        rng.integers(-9, 30, (12, RETAIL_DAILY.size)),
    )
    after = date(2026, 9, 13)
    projected = Block(bytes(32), seen.digest, after, after, seen.clip, 400, rng.integers(-9, 30, (18, seen.size)))
    asked = date(2026, 10, 1)
    one, two = read_level(RETAIL_DAILY, [plain], asked), read_level(seen, [projected], asked)
    assert one is not None
    assert two is not None
    records = PersonMonths(
        person=np.zeros(1, dtype=np.int64),
        month=np.array([number]),
        rows=np.rint(one.values)[None].astype(np.int64),
        days=np.ones(1, dtype=np.int64),
        chosen=np.zeros((1, RETAIL_DAILY.size - 1), dtype=np.int64),
        sums=np.zeros((1, RETAIL_DAILY.size), dtype=np.int64),
        sigma=np.array([round(one.sigma)]),
        worth=np.array([one.months]),
        projected=np.rint(two.values)[None].astype(np.int64),
        projected_sigma=np.array([round(two.sigma)]),
        projected_worth=np.array([two.months]),
    )
    reader = Reader.of(RETAIL_DAILY, model)
    odds = read_odds(reader, torch.from_numpy(model.scalars), records.grouped())[0]
    scores = torch.sigmoid(odds[0]).numpy()[:-1] * 1e6
    served = np.array(list(read_days(model, RETAIL_DAILY, [plain, projected], asked).score_ppm.values()))
    assert np.abs(scores - served).max() <= 3_000  # rounded to steps of 5,000
    alone = np.array(list(read_days(model, RETAIL_DAILY, [plain], asked).score_ppm.values()))
    assert np.abs(scores - alone).max() > 10_000
