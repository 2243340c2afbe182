"""Vaults with closed months of real sealed batches, and a worker that may open them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.consent_kit import World
from tests.vault_kit import NOW, PURCHASE, publish
from vault.budget import ledger
from vault.budget.charge import owner_day
from vault.consent import changes
from vault.consent.changes import Submission
from vault.consent.handovers import REQUIRED
from vault.db import Database
from vault.imprint.block import DAILY, Block, Heads, parse_block, parse_carried
from vault.imprint.features import Cadence, feature_map
from vault.imprint.noise import Integers
from vault.imprint.rows import Row, parse_row
from vault.ingest.accept import accept
from vault.parties import marks
from vault.proof.accounting import OWNER_DAY_CAP
from vault.proof.decision import load_shipped_policy_set
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.freshness import Freshness
from vault.schema.terms import ConsentKind
from vault.schema.trace import Action, Period, Trace
from vault.seal import row as sealed_rows
from vault.seal.batch import parse_batch, seal_batch
from vault.seal.derive import chain_key, imprint_key
from vault.seal.ids import CompartmentId, ConsentId, new_id
from vault.seal.ring import Compartment
from vault.seal.signing import SigningKey, new_seed
from vault.seal.upload import encode_upload, parse_upload
from vault.seal.wrap import unlock
from vault.store import rings
from vault.twin import chains, rows
from vault.twin import refresh as refreshing
from vault.twin.children import Children
from vault.twin.months import Worker
from vault.twin.refresh import Outcome, refresh
from vault.twin.requests import REFRESH_PURPOSE, TRAIN_PURPOSE

RETAIL = feature_map(PURCHASE)
RETAIL_DAILY = feature_map(PURCHASE, Cadence.DAILY)
SEPTEMBER, OCTOBER = Period("2026-09"), Period("2026-10")
CLOSED = date(2026, 11, 20)  # on the 23rd at noon, the 20th's midnight was more than 48 hours ago


@dataclass
class FixedClock:
    """A clock that tests move."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def purchase(code: str, day: int = 5, period: Period = OCTOBER) -> Trace:
    at = datetime(int(period[:4]), int(period[5:]), day, 12, tzinfo=UTC)
    return Trace(new_id().hex(), "till", at, PURCHASE, Action.BUY, code, "bread")


@dataclass
class TwinWorld(World):
    """One owner with a closed September and October, and what a worker needs."""

    clock: FixedClock = field(default_factory=FixedClock)
    worker_key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    cadence: Cadence = Cadence.MONTHLY
    freshness: Freshness = Freshness.DAY

    def __post_init__(self) -> None:
        super().__post_init__()
        self.choose(self.freshness)
        self.extend(SEPTEMBER, OCTOBER)

    def extend(self, *periods: Period) -> None:
        """Publish one more epoch for the owner's categories in these months."""
        pages = [self.owner.extend(self.categories, period) for period in periods]
        ids = {self.owner.compartment(category, period).id for period in periods for category in self.categories}
        locked = {name: self.owner.locked[name] for name in ids}
        publish(self.database, self.shortkeys, self.owner, self.owner.sign(), pages, locked)

    def choose(self, freshness: Freshness) -> None:
        with self.database.transaction() as session:
            marks.choose_freshness(session, self.owner.vault, freshness)

    def worker(self, children: Children) -> Worker:
        rules = load_shipped_policy_set()
        keys = [self.worker_key.public_key]
        return Worker(self.database, self.opener, self.worker_key, keys, rules, children, self.clock, self.cadence)

    def seal(self, traces: Sequence[Trace], compartment: Compartment | None = None) -> bytes:
        """Seal one batch of October and move the chain on."""
        compartment = compartment or self.owner.compartment(PURCHASE, OCTOBER)
        source = self.source
        sealed = seal_batch(traces, source.vault, compartment, source.key, source.heads.get(compartment.id))
        source.heads[compartment.id] = parse_batch(sealed).head
        return sealed

    def upload(self, *sealed: bytes) -> None:
        body = encode_upload(list(sealed), self.source.head_list())
        with self.database.transaction() as session:
            accept(session, self.source.caller, parse_upload(body), now=NOW)

    def buy(self, *codes: str, period: Period = OCTOBER, day: int = 5) -> None:
        """Seal and upload one batch of purchases of one day."""
        traces = [purchase(code, day, period) for code in codes]
        self.upload(self.seal(traces, self.owner.compartment(PURCHASE, period)))

    def keep_twin(self, **changed: Any) -> ConsentVersion:
        """Give the self consent."""
        purposes = frozenset({REFRESH_PURPOSE})
        window = {"data_from": SEPTEMBER, "purposes": purposes}
        return self.give(ConsentKind.SELF, **window | changed)

    def join_cohort(self) -> ConsentVersion:
        """Give the cohort consent."""
        return self.give(ConsentKind.COHORT, data_from=SEPTEMBER, purposes=frozenset({TRAIN_PURPOSE}))

    def refresh(self, children: Children, version: ConsentVersion) -> Outcome:
        return refresh(self.worker(children), {self.owner.vault: ConsentId(version.consent_id)})[self.owner.vault]

    def stored(self, period: Period | None = None, category: Category = PURCHASE) -> list[rows.StoredRow]:
        with self.database.snapshot() as session:
            return rows.rows_for(session, self.owner.vault, category, None if period is None else [period])

    def place(self, stored: rows.StoredRow) -> Compartment:
        """Return the compartment that a row is sealed to."""
        listed = (c for page, _ in self.owner.pages.values() for c in page.compartments.values())
        return next(c for c in listed if c.id == stored.compartment_id)

    def payload(self, stored: rows.StoredRow) -> bytes:
        """Open a row as the serving side does, with the imprint key."""
        verified = sealed_rows.verify_row(sealed_rows.parse_row(stored.sealed), self.worker_key.public_key)
        return sealed_rows.open_row(verified, imprint_key(self.seed(self.place(stored))))

    def read(self, stored: rows.StoredRow) -> Row:
        return parse_row(self.payload(stored))

    def blocks(self, category: Category = PURCHASE) -> list[Block]:
        """Open every daily row of a category, by day."""
        stored = self.stored(category=category)
        return [parse_block(self.payload(row)) for row in stored if row.mechanism == DAILY]


def carried_of(world: TwinWorld) -> list[tuple[Heads, Integers]]:
    """Open what chains go on with, by day, as whoever holds the seeds can."""
    with world.database.snapshot() as session:
        stored = [row for row in rows.of_days(session, world.owner.vault, PURCHASE) if row.mechanism == DAILY]
        sealed = rows.carried(session, world.owner.vault, [row.release_id for row in stored])
    found = []
    for row in stored:
        context = chains._context(world.owner.vault, row.release_id)
        found.append(parse_carried(unlock(chain_key(world.seed(world.place(row))), sealed[row.release_id], context)))
    return found


def made_at(world: TwinWorld, worker: Worker, version: ConsentVersion, at: datetime) -> refreshing._Refresh:
    """Run a refresh up to where it would store."""
    world.clock.at = at
    one = refreshing._Refresh(world.owner.vault, ConsentId(version.consent_id))
    with world.database.transaction() as session:
        refreshing._plan(session, worker, one)
        refreshing._reserve(session, worker, one)
    refreshing._open(worker, one)
    refreshing._add_noise([one])
    return one


def another_vault(database: Database, shortkeys: Database, like: TwinWorld) -> TwinWorld:
    """A second owner at the same service."""
    return TwinWorld(
        database,
        shortkeys,
        processor=like.processor,
        serving=like.serving,
        clock=like.clock,
        worker_key=like.worker_key,
        cadence=like.cadence,
        categories=like.categories,
    )


def charges(world: TwinWorld, period: Period) -> list[ledger.StandingCharge]:
    with world.database.transaction() as session:
        return ledger.hold(session, owner_day(world.owner.vault, period))


def epsilon(world: TwinWorld, period: Period) -> float:
    with world.database.snapshot() as session:
        return ledger.spending(session, world.owner.vault, period, OWNER_DAY_CAP.delta).day


def days_made(world: TwinWorld, category: Category = PURCHASE) -> list[date]:
    return [block.first + timedelta(days=at) for block in world.blocks(category) for at in range(len(block.values))]


def every_day(first: date, last: date) -> list[date]:
    return [first + timedelta(days=at) for at in range((last - first).days + 1)]


def erase(world: TwinWorld, *gone: CompartmentId) -> None:
    """Erase compartments as the service does."""
    with world.database.transaction() as session:
        rings.forget(session, world.owner.vault, list(gone))
        rows.forget(session, world.owner.vault, list(gone))


def renew(world: TwinWorld, version: ConsentVersion, *gone: CompartmentId) -> ConsentVersion:
    """Renew a consent as the owner's client does: it hands over every compartment but those that are gone."""
    renewed = world.next(version, ConsentEvent.RENEWED)
    pages = [page for page, _ in world.owner.pages.values()]
    left = [c for page in pages for c in page.compartments.values() if c.id not in gone]
    keys = tuple(world.handover(kind, renewed, compartments=left) for kind in sorted(REQUIRED[renewed.terms.kind]))
    with world.database.transaction() as session:
        sent = Submission(world.signed(renewed), keys)
        changes.amend(session, sent, vault_id=world.owner.vault, custody=world.custody, now=NOW)
    return renewed
