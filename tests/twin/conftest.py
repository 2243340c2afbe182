"""Vaults and a fork server for the worker; a small cohort with habits, made without any real person's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from tests.twin.lens_kit import GOOD
from tests.twin.worker_kit import TwinWorld
from vault.db import Database
from vault.imprint.features import FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, noisy
from vault.proof.certificate import Certificate, Manifest
from vault.schema.category import parse_category
from vault.schema.trace import parse_period
from vault.twin import cohort
from vault.twin import refresh as refreshing
from vault.twin.certify import build_backbone
from vault.twin.children import Children
from vault.twin.reader import Backbone
from vault.twin.train import PersonMonths

torch.set_num_threads(1)
SIGMA = 422
MakeCohort = Callable[..., PersonMonths]
MakeRows = Callable[..., list[Row]]


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.fixture
def world(database: Database, shortkeys: Database) -> TwinWorld:
    return TwinWorld(database, shortkeys)


@pytest.fixture
def lite(sqlite_database: Database, shortkeys: Database) -> TwinWorld:
    """The same on SQLite alone, where the engine makes no difference."""
    return TwinWorld(sqlite_database, shortkeys)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw zeros, so that a test sees the exact sums; the charge stays that of the real noise."""
    monkeypatch.setattr(
        DiscreteGaussian, "sample", lambda self, shape, random_bytes=None: np.zeros(shape, dtype=np.int64)
    )


@pytest.fixture
def while_opening(monkeypatch: pytest.MonkeyPatch):
    """Run something after the charge and before the commit."""

    def install(act) -> None:
        opened = refreshing.open_months

        def interrupted(worker, opening, asks):
            act()
            return opened(worker, opening, asks)

        monkeypatch.setattr(refreshing, "open_months", interrupted)

    return install


@dataclass(frozen=True)
class Trainings:
    """What was trained on, and what came of it, training by training."""

    records: list[PersonMonths] = field(default_factory=list)
    backbones: list[Backbone] = field(default_factory=list)

    def people(self) -> list[int]:
        return [len(np.unique(records.person)) for records in self.records]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch):
    """Watch the trainer, and give what it makes a verdict that two people cannot earn; `after` injects a fault."""

    def install(certificate: Certificate = GOOD, after=lambda: None) -> Trainings:
        made = Trainings()

        def build(records: PersonMonths, mapped, at, known) -> tuple[Backbone, Manifest]:
            backbone, manifest = build_backbone(records, mapped, at, known)
            made.records.append(records)
            made.backbones.append(backbone)
            after()
            return backbone, replace(manifest, cohort=500, certificate=certificate)

        monkeypatch.setattr(cohort, "build_backbone", build)
        return made

    return install


@pytest.fixture(scope="session")
def retail() -> FeatureMap:
    return feature_map(parse_category("pd:Purchase"))


@pytest.fixture(scope="session")
def make_cohort(retail: FeatureMap) -> MakeCohort:
    def make(people: int, months: int = 6, sigma: int = SIGMA) -> PersonMonths:
        rng = np.random.default_rng(people)
        popularity = np.sort(rng.beta(0.3, 8, retail.size - 1))[::-1]
        columns: list[list[np.ndarray]] = [[], [], []]
        for _ in range(people):
            taste = np.clip(popularity * rng.gamma(1.0, 1.0, len(popularity)), 0, 0.9)
            for _ in range(months):
                shops = [np.flatnonzero(rng.random(len(taste)) < taste) for _ in range(rng.poisson(8))]
                vectors = [retail.day_vector(retail.codes[k] for k in shop if k < retail.size - 2) for shop in shops]
                columns[0].append(np.sum([np.zeros(retail.size, dtype=np.int64), *vectors], axis=0))
                chosen = np.bincount(np.concatenate([[], *shops]).astype(int), minlength=retail.size - 1)
                columns[1].append(chosen)
                columns[2].append(np.array(len(shops)))
        rows = noisy(columns[0], DiscreteGaussian(sigma))
        person = np.repeat(np.arange(people), months)
        month = np.tile(np.arange(months) + 24_000, people)
        return PersonMonths(
            person=person,
            month=month,
            rows=rows,
            days=np.array(columns[2]),
            chosen=np.array(columns[1]),
            sums=np.stack(columns[0]),
            sigma=np.full(len(rows), sigma),
        )

    return make


@pytest.fixture(scope="session")
def make_rows(retail: FeatureMap) -> MakeRows:
    def make(values: np.ndarray, sigma: int = SIGMA) -> list[Row]:
        return [
            Row(bytes(32), retail.digest, parse_period(f"2026-{at + 1:02}"), 0, retail.clip, sigma, value)
            for at, value in enumerate(values)
        ]

    return make
