"""One small vault with every sealed object in it, from fixed seeds (HPKE and wraps draw their own salts)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace
from vault.seal.account import OwnerSeeds, open_account, seal_account, verify_account
from vault.seal.batch import open_batch, parse_batch, seal_batch, verify_batch
from vault.seal.derive import imprint_key
from vault.seal.device import ChainHead, Device, DeviceRole
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.handover import HandoverTerms, KeyKind, open_handover, parse_handover, seal_handover, verify_handover
from vault.seal.identity import Identity
from vault.seal.ids import CompartmentId, ConsentId, VaultId, sha256
from vault.seal.recipient import Recipient
from vault.seal.ring import Compartment, Head, Page, Ring, sign_head, sign_page, verify_head, verify_page, verify_ring
from vault.seal.row import RowHeader, open_row, parse_row, seal_row, verify_row
from vault.seal.signing import SigningKey
from vault.seal.slot import Slot, open_slot, parse_slot, recovery_key, seal_slot
from vault.seal.upload import HeadList, encode_upload, parse_upload, sign_head_list, verify_upload
from vault.seal.version import NO_PREV

CATEGORY = Category("pd:Purchase")
PERIOD = Period("2026-01")


def seed(name: str) -> bytes:
    """32 fixed bytes for a name."""
    return hashlib.sha256(b"twinvault test seed " + name.encode()).digest()


def traces(count: int = 3, category: Category = CATEGORY) -> list[Trace]:
    """Purchases, ten minutes apart."""
    start = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)
    return [
        Trace(
            f"line-{i}",
            "till",
            start + timedelta(minutes=10 * i),
            category,
            Action.BUY,
            f"gpc:{i % 7}",
            "Brötchen",
            2000 if i % 2 else None,
            "",
            1990,
            "EUR",
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class World:
    """The vault's keys; each object is made on first use."""

    owner = SigningKey(seed("owner"))
    device_key = SigningKey(seed("device"))
    worker = SigningKey(seed("worker"))
    processor = Identity(seed("processor"))
    stranger = SigningKey(seed("stranger"))
    root = seed("root")
    vault = VaultId(seed("vault")[:16])
    compartment_id = CompartmentId(seed("compartment id")[:16])
    compartment_seed = seed("compartment")
    consent = ConsentId(seed("consent")[:16])

    @cached_property
    def compartment(self) -> Compartment:
        public = Recipient.of_seed(self.compartment_seed).public
        return Compartment(self.compartment_id, CATEGORY, PERIOD, 1, public, sha256(b"locked seed"))

    @cached_property
    def device(self) -> Device:
        return Device(self.device_key.public_key, DeviceRole.SOURCE)

    @cached_property
    def page(self) -> Envelope:
        return sign_page(Page(self.vault, 1, NO_PREV, PERIOD, {self.compartment_id: self.compartment}), self.owner)

    @cached_property
    def head(self) -> Envelope:
        return self.sign_head(1, NO_PREV)

    def sign_head(self, version: int, prev: bytes, devices: Sequence[Device] | None = None) -> Envelope:
        """A ring head of this page."""
        listed = {device.id: device for device in devices or [self.device]}
        return sign_head(Head(self.vault, version, prev, 1_767_225_600, {PERIOD: self.page.digest}, listed), self.owner)

    @cached_property
    def ring(self) -> Ring:
        return verify_ring(self.head, [self.page], self.owner.public_key, self.vault)

    def batch(self, after: ChainHead | None = None, count: int = 3, device: SigningKey | None = None) -> bytes:
        """A batch of the device."""
        return seal_batch(traces(count), self.vault, self.compartment, device or self.device_key, after)

    def head_list(self, head: ChainHead, device: SigningKey | None = None) -> Envelope:
        """The device's signed head list."""
        signer = device or self.device_key
        listed = HeadList(self.vault, self.device.id, 1, 1_767_225_600, {self.compartment_id: head})
        return sign_head_list(listed, signer)

    @cached_property
    def upload(self) -> bytes:
        first = self.batch()
        second = self.batch(parse_batch(first).head)
        return encode_upload([first, second], self.head_list(parse_batch(second).head))

    @cached_property
    def terms(self) -> HandoverTerms:
        to = self.processor.recipient.key_hash
        compartments = (self.compartment_id,)
        return HandoverTerms(self.vault, self.consent, KeyKind.RAW, compartments, to, 1_767_225_600, 1_798_761_600, 1)

    def handover(self, key: bytes | None = None, kind: KeyKind = KeyKind.RAW) -> bytes:
        """The owner's handover of the one compartment."""
        terms = replace(self.terms, kind=kind)
        keys = {self.compartment_id: key or self.compartment_seed}
        return seal_handover(terms, keys, self.processor.recipient, self.owner).encoded

    @property
    def row_header(self) -> RowHeader:
        return RowHeader(self.vault, self.compartment_id, seed("release"), "map-1", 0)

    def row(self) -> bytes:
        """An imprint row."""
        return seal_row(b"noisy numbers", self.row_header, imprint_key(self.compartment_seed), self.worker)

    def slot(self) -> Slot:
        """The recovery slot."""
        return seal_slot(self.root, recovery_key(seed("recovery")))

    def account(self) -> Envelope:
        """The first account record."""
        seeds = OwnerSeeds(seed("owner"), seed("pairwise"))
        return seal_account(seeds, self.root, vault=self.vault, version=1, prev=NO_PREV)

    # One whole reading of each kind of object: parse, verify, open.

    def read_batch(self, data: bytes) -> object:
        batch = verify_batch(
            parse_batch(data), self.vault, self.compartment.recipient.key_hash, self.device_key.public_key, None
        )
        return open_batch(batch, Identity(self.compartment_seed), CATEGORY)

    def read_upload(self, data: bytes) -> object:
        keys = {self.compartment_id: self.compartment.recipient.key_hash}
        return verify_upload(parse_upload(data), self.vault, self.device, keys, {})

    def read_handover(self, data: bytes) -> object:
        handover = verify_handover(parse_handover(data), self.vault, self.owner.public_key)
        return open_handover(handover, self.processor, self.ring.compartments)

    def read_row(self, data: bytes) -> object:
        row = verify_row(parse_row(data), self.worker.public_key)
        return open_row(row, imprint_key(self.compartment_seed))

    def read_slot(self, data: bytes) -> object:
        return open_slot(parse_slot(data), recovery_key(seed("recovery")))

    def read_account(self, data: bytes) -> object:
        account = verify_account(parse_envelope(data), self.owner.public_key, self.vault)
        return open_account(account, self.root, self.owner.public_key)

    def read_page(self, data: bytes) -> object:
        return verify_page(parse_envelope(data), self.owner.public_key, self.vault)

    def read_head(self, data: bytes) -> object:
        return verify_head(parse_envelope(data), self.owner.public_key, self.vault)

    @cached_property
    def objects(self) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
        """Every kind of object: its bytes and its reading."""
        return {
            "batch": (self.batch(), self.read_batch),
            "upload": (self.upload, self.read_upload),
            "handover": (self.handover(), self.read_handover),
            "row": (self.row(), self.read_row),
            "slot": (self.slot().encoded, self.read_slot),
            "account": (self.account().encoded, self.read_account),
            "page": (self.page.encoded, self.read_page),
            "head": (self.head.encoded, self.read_head),
        }


WORLD = World()

MUTANTS: list[object] = ["", "x", -1, 0, 2**53 - 1, [], {}, ["x"], {"x": "y"}]


def mutated(record: object) -> list[object]:
    """Every record with one place replaced, left out, or with one more field."""
    if not isinstance(record, dict):
        return [mutant for mutant in MUTANTS if mutant != record]
    results: list[object] = [{**record, "more": 1}]
    for name, value in record.items():
        rest = {other: kept for other, kept in record.items() if other != name}
        results += [rest, {**rest, name + "A": value}]
        results += [{**rest, name: mutant} for mutant in [*MUTANTS, *mutated(value)] if mutant != value]
    return results


def drop_compartments(page: Page, prev: bytes, erased: Iterable[CompartmentId]) -> Page:
    """Return the next version of a page without erased compartments."""
    gone = set(erased)
    kept = {name: compartment for name, compartment in page.compartments.items() if name not in gone}
    return replace(page, version=page.version + 1, prev=prev, compartments=kept)
