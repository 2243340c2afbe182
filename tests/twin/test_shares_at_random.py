"""Whatever joins, leaves, dies, is erased, withdrawn or imported again, in whatever order: no day costs more than its cap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from tests.twin.worker_kit import OCTOBER, SEPTEMBER, TwinWorld, charges, erase
from tests.vault_kit import MONTH, NOW
from vault.budget.days import days_of
from vault.budget.ledger import State
from vault.consent.handovers import REQUIRED
from vault.db import Database
from vault.imprint.block import DAILY, LATE, Block, late_sigma, parse_block, sensitivity
from vault.imprint.features import Cadence, feature_map, mapped_for
from vault.imprint.rows import parse_row
from vault.proof.accounting import NOTHING, OWNER_DAY_CAP, Curve, gaussian
from vault.schema.category import Category
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind
from vault.schema.trace import Action, Period, Trace, period_of
from vault.seal.ids import CompartmentId, new_id
from vault.twin import refresh as refreshing
from vault.twin.children import Children
from vault.twin.requests import REFRESH_PURPOSE

EVERY = mapped_for(Cadence.DAILY)
HEALTH = EVERY[3]
LATER = [Period("2026-12"), Period("2027-01"), Period("2027-02")]
PERIODS = [SEPTEMBER, OCTOBER, MONTH, *LATER]
STEPS = 14


class Owner:
    """An owner who changes their mind at random, and a worker with bad luck."""

    def __init__(self, world: TwinWorld, children: Children, random: Random) -> None:
        self.world, self._children, self._random = world, children, random
        self._gone: set[CompartmentId] = set()
        world.extend(*LATER)

    def step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let some days pass, change something, and refresh, which may end badly."""
        self.world.clock.at += timedelta(days=self._random.choice([0, 1, 1, 3, 9, 20]))
        shared = self._random.sample(EVERY, self._random.randint(1, len(EVERY)))
        if self._random.random() < 0.3:
            self._erase_and_import_again()
        if self._random.random() < 0.3:
            self._leave_a_trace(self._random.choice(EVERY))
        version = self._twin_of(shared)
        with monkeypatch.context() as broken:
            match self._random.choice(["well", "well", "well", "dies", "withdrawn"]):
                case "dies":
                    broken.setattr(refreshing, "_store", self._die)
                case "withdrawn":
                    add_noise = refreshing._add_noise

                    def withdrawing(group: Sequence[object]) -> None:
                        self.world.withdraw(version)
                        add_noise(group)

                    broken.setattr(refreshing, "_add_noise", withdrawing)
                case _:
                    pass
            with suppress(KeyboardInterrupt):
                self.world.refresh(self._children, version)

    @staticmethod
    def _die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    def _twin_of(self, shared: Sequence[Category]) -> ConsentVersion:
        version, _ = self.world.first(
            ConsentKind.SELF,
            data_from=SEPTEMBER,
            data_to=PERIODS[-1],
            purposes=frozenset({REFRESH_PURPOSE}),
            necessary=frozenset(shared),
            explicit_special=frozenset({HEALTH} & {*shared}),
            not_after=int((NOW + timedelta(days=300)).timestamp()),
        )
        pages = [page for page, _ in self.world.owner.pages.values()]
        left = [
            one
            for page in pages
            for one in page.compartments.values()
            if one.id not in self._gone and one.category in shared
        ]
        keys = tuple(
            self.world.handover(kind, version, compartments=left) for kind in sorted(REQUIRED[ConsentKind.SELF])
        )
        self.world.give_this(self.world.submission(version, handovers=keys))
        return version

    def _erase_and_import_again(self) -> None:
        category, period = self._random.choice(EVERY), self._random.choice(PERIODS[:4])
        gone = self.world.owner.compartment(category, period).id
        erase(self.world, gone)
        self._gone.add(gone)
        self.world.extend(period)
        self._leave_a_trace(category, period)

    def _leave_a_trace(self, category: Category, period: Period = MONTH) -> None:
        at = datetime(int(period[:4]), int(period[5:]), self._random.randint(1, 28), 12, tzinfo=UTC)
        trace = Trace(new_id().hex(), "x", at, category, Action.USE, feature_map(category, Cadence.DAILY).codes[0])
        self.world.upload(self.world.seal([trace], self.world.owner.compartment(category, period)))


def blocks(world: TwinWorld, category: Category) -> list[Block]:
    return [parse_block(world.payload(row)) for row in world.stored(category=category) if row.mechanism == DAILY]


def shown(world: TwinWorld, period: Period) -> Curve:
    """Return what the rows that are there show of a day of a month, by the noise that is sealed in them."""
    total = NOTHING
    for category in EVERY:
        clip = feature_map(category, Cadence.DAILY).clip
        noises = {block.sigma for block in blocks(world, category) if period_of(block.first) == period}
        late = [row for row in world.stored(period, category) if row.mechanism == LATE]
        assert len(noises) <= 1, "a month has one noise"
        assert len(late) <= 1
        for sigma in noises:
            total += gaussian(sensitivity(clip), sigma)
        for row in late:
            sealed = parse_row(world.payload(row)).sigma
            assert {sealed} == {late_sigma(clip, sigma) for sigma in noises} or not noises
            total += gaussian(clip, sealed)
    return total


def verify(world: TwinWorld) -> None:
    for period in PERIODS:
        held = charges(world, period)
        charged = sum((one.charge.curve for one in held), NOTHING)
        assert charged.epsilon(OWNER_DAY_CAP.delta) <= OWNER_DAY_CAP.epsilon
        seen = shown(world, period)
        assert all(cost <= paid for cost, paid in zip(seen.nano, charged.nano, strict=True))
        assert seen.epsilon(OWNER_DAY_CAP.delta) <= OWNER_DAY_CAP.epsilon
        # What was drawn, stored or not, was drawn once for a day, with the noise that the month was paid with.
        for category in EVERY:
            drawn = [
                one.charge
                for one in held
                if one.charge.category == category and one.state in {State.COMMITTED, State.ABORTED}
            ]
            assert len({one.mechanism["sigma"] for one in drawn}) <= 1
            about = [days for one in drawn if (days := days_of(one)) is not None]
            assert not any(one.meets(two) for at, one in enumerate(about) for two in about[:at])
    for category in EVERY:
        chains: defaultdict[date, list[Block]] = defaultdict(list)
        for block in blocks(world, category):
            chains[block.start].append(block)
        for start, made in chains.items():
            assert len({block.sigma for block in made}) == 1, "a chain has one noise"
            days = [block.first + timedelta(days=at) for block in made for at in range(len(block.values))]
            assert len({*days}) == len(days)
            assert min(days) >= start


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_events_overdraws_a_day_or_gives_a_chain_two_noises(
    sqlite_database: Database, shortkeys: Database, children: Children, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = TwinWorld(sqlite_database, shortkeys, categories=EVERY, cadence=Cadence.DAILY)
    owner = Owner(world, children, Random(seed))
    for _ in range(STEPS):
        owner.step(monkeypatch)
        verify(world)
    assert any(blocks(world, category) for category in EVERY)
