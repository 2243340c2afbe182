"""An owner with devices, as their own clients would act: real keys, real rings, real sealed batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest

from tests.waiting import until
from vault.db import Database
from vault.parties import people
from vault.parties.caller import DeviceCaller, OwnerCaller
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace
from vault.seal.account import OwnerSeeds, seal_account
from vault.seal.batch import parse_batch, seal_batch
from vault.seal.device import ChainHead, Device, DeviceRole
from vault.seal.dsse import Envelope
from vault.seal.ids import CompartmentId, DeviceId, VaultId, new_id
from vault.seal.person import sign_genesis, verify_genesis
from vault.seal.ring import Compartment, Head, Page, extend_page, sign_head, sign_page
from vault.seal.signing import SigningKey, new_seed
from vault.seal.upload import HeadList, encode_upload, sign_head_list
from vault.seal.version import NO_PREV
from vault.store import accounts, rings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MONTH = Period("2026-11")
PURCHASE = Category("pd:Purchase")


@dataclass
class Source:
    """One device: its key, its chains."""

    vault: VaultId
    key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    version: int = 0
    heads: dict[CompartmentId, ChainHead] = field(default_factory=dict)

    @cached_property
    def device(self) -> Device:
        return Device(self.key.public_key, DeviceRole.SOURCE)

    @property
    def caller(self) -> DeviceCaller:
        return DeviceCaller(self.vault, self.device.id)

    def seal(self, compartment: Compartment, text: str = "bread", count: int = 1) -> bytes:
        """Seal one batch and move the chain on."""
        traces = [trace(compartment.category, text=text) for _ in range(count)]
        sealed = seal_batch(traces, self.vault, compartment, self.key, self.heads.get(compartment.id))
        self.heads[compartment.id] = parse_batch(sealed).head
        return sealed

    def head_list(self, **changed: object) -> Envelope:
        """Sign the next head list; `changed` forges fields of it."""
        self.version += 1
        honest = HeadList(self.vault, self.device.id, self.version, int(NOW.timestamp()), dict(self.heads))
        return sign_head_list(replace(honest, **changed), self.key)  # type: ignore[arg-type]  # forging is the point

    def upload(self, compartment: Compartment, count: int = 1, text: str = "bread") -> bytes:
        """Seal batches and return the body of their upload."""
        sealed = [self.seal(compartment, text) for _ in range(count)]
        return encode_upload(sealed, self.head_list())


@dataclass
class Owner:
    """A person with a root, an owner key and the ring as last signed."""

    root: bytes = field(default_factory=new_seed)
    seeds: OwnerSeeds = field(default_factory=lambda: OwnerSeeds(new_seed(), new_seed()))
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    pages: dict[Period, tuple[Page, Envelope]] = field(default_factory=dict)
    locked: dict[CompartmentId, bytes] = field(default_factory=dict)
    head: Envelope | None = None
    version: int = 0
    next_seed: bytes = field(default_factory=new_seed)
    """Of the recovery kit's owner key."""

    @cached_property
    def key(self) -> SigningKey:
        return SigningKey(self.seeds.signing)

    @cached_property
    def genesis(self) -> Envelope:
        next_key = SigningKey(self.next_seed).public_key
        return sign_genesis(self.key, next_key, created_at=int(NOW.timestamp()), time_zone="Europe/Berlin")

    @cached_property
    def vault(self) -> VaultId:
        return verify_genesis(self.genesis).vault_id

    @property
    def caller(self) -> OwnerCaller:
        return OwnerCaller(self.vault)

    def account(self, version: int = 1, prev: bytes = NO_PREV) -> Envelope:
        return seal_account(self.seeds, self.root, vault=self.vault, version=version, prev=prev)

    @cached_property
    def account_record(self) -> Envelope:
        """The first one; sealed anew it would be another."""
        return self.account()

    def source(self) -> Source:
        """Make a device and list it; sign a ring to put it in force."""
        source = Source(self.vault)
        self.devices[source.device.id] = source.device
        return source

    def extend(self, categories: Iterable[Category] = (PURCHASE,), period: Period = MONTH) -> Envelope:
        """Give each category a new epoch in a month and return the signed page."""
        page, envelope = self.pages.get(period, (None, None))
        prev = envelope.digest if envelope else NO_PREV
        new, locked = extend_page(page, prev, vault=self.vault, period=period, categories=categories, root=self.root)
        self.locked.update(locked)
        return self.sign_page(new)

    def sign_page(self, page: Page) -> Envelope:
        signed = sign_page(page, self.key)
        self.pages[page.period] = (page, signed)
        return signed

    def sign(self, **changed: object) -> Envelope:
        """Sign the next head; `changed` forges fields of it."""
        self.version += 1
        prev = self.head.digest if self.head else NO_PREV
        digests = {period: envelope.digest for period, (_, envelope) in self.pages.items()}
        head = Head(self.vault, self.version, prev, int(NOW.timestamp()), digests, dict(self.devices))
        self.head = sign_head(replace(head, **changed), self.key)  # type: ignore[arg-type]  # forging is the point
        return self.head

    def compartment(self, category: Category = PURCHASE, period: Period = MONTH) -> Compartment:
        found = self.pages[period][0].current(category)
        assert found is not None
        return found


def trace(category: Category = PURCHASE, text: str = "bread") -> Trace:
    return Trace(new_id().hex(), "till", NOW, category, Action.BUY, "", text)


def publish(  # noqa: PLR0917  (what changes from test to test comes last)
    database: Database,
    shortkeys: Database,
    owner: Owner,
    head: Envelope,
    pages: Sequence[Envelope] = (),
    locked: Mapping[CompartmentId, bytes] | None = None,
) -> None:
    """Publish a ring as the route does."""
    names = {name for period, (page, e) in owner.pages.items() if e in pages for name in page.compartments}
    seeds = {name: owner.locked[name] for name in names} if locked is None else locked
    new = rings.verify_publish(
        owner.vault, owner.key.public_key, head, pages, locked_seeds=seeds, short_key_database=shortkeys
    )
    with database.transaction() as session:
        rings.publish(session, owner.vault, new, now=NOW)


def begin(
    database: Database, shortkeys: Database, categories: Iterable[Category] = (PURCHASE,)
) -> tuple[Owner, Source]:
    """Create a vault with one device and one compartment per category this month."""
    owner = Owner()
    source = owner.source()
    page = owner.extend(categories)
    with database.transaction() as session:
        people.create(session, owner.genesis, now=NOW)
        accounts.publish(session, owner.vault, owner.key.public_key, owner.account_record, now=NOW)
    publish(database, shortkeys, owner, owner.sign(), [page])
    return owner, source


def wait_until_blocked(database: Database, done: Callable[[], bool] = lambda: False) -> None:
    """Return once some session waits for a row lock, or the other thread is done without waiting."""

    def blocked() -> bool:
        with database.engine.connect() as connection:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return bool(connection.exec_driver_sql(query).scalar_one())

    until(lambda: blocked() or done(), "the other transaction waits at the lock")


def meet_after(patch: pytest.MonkeyPatch, place: object, name: str, database: Database) -> None:
    """Let a function return once a second thread was in it too, or waits at a lock before it: no race is won by chance.

    On SQLite it returns at once, for writers take turns there.
    """
    honest: Callable[..., Any] = getattr(place, name)
    arrived: list[str] = []

    def slowly(*args: Any, **kwargs: Any) -> Any:
        found = honest(*args, **kwargs)
        arrived.append(name)
        if not database.is_sqlite:
            wait_until_blocked(database, lambda: len(arrived) > 1)
        return found

    patch.setattr(place, name, slowly)
