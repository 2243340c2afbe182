"""The ring: the owner-signed list of compartments, a page per month under one head, and of devices.

A page lists public keys and the hashes of the locked seeds, which lie beside it under the root.
The head names every page by the hash of its envelope, so one signature and one version cover all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vault.encoding import JsonObject, b64u
from vault.schema.category import Category, parse_category
from vault.schema.trace import Period, parse_period
from vault.seal.device import Device, dump_device, parse_device
from vault.seal.dsse import Envelope, PayloadType, sign_record, unverified_record, verify_envelope
from vault.seal.errors import SealError, as_seal_error
from vault.seal.fields import Fields, parse_id
from vault.seal.framing import frames
from vault.seal.ids import CompartmentId, DeviceId, VaultId, new_id, sha256
from vault.seal.recipient import PUBLIC_BYTES, Recipient
from vault.seal.signing import Signer, new_seed
from vault.seal.version import NO_PREV, Remembered, parse_version, refuse_rollback
from vault.seal.wrap import lock, unlock

MONTHS_AHEAD: Final = 12


@dataclass(frozen=True)
class Compartment:
    """One category in one period and epoch, with its own key.

    Args:
        id: Random.
        category: What is sealed to it.
        period: The month its traces fall in.
        epoch: 1, and one more after each withdrawal that left the category uncovered.
        public: HPKE public key of its seed, 1,216 bytes.
        locked_hash: SHA-256 of its seed locked under the root.
    """

    id: CompartmentId
    category: Category
    period: Period
    epoch: int
    public: bytes
    locked_hash: bytes

    @cached_property
    def recipient(self) -> Recipient:
        """Whom its batches are sealed to."""
        return Recipient(self.public)


@dataclass(frozen=True)
class Page:
    """The compartments of one month, erased ones left out.

    Args:
        vault: Whose.
        version: 1, 2, ...
        prev: Digest of the envelope of the version before.
        period: The month.
        compartments: By id.
    """

    vault: VaultId
    version: int
    prev: bytes
    period: Period
    compartments: Mapping[CompartmentId, Compartment]

    def current(self, category: Category) -> Compartment | None:
        """Return the compartment of the highest epoch of a category: the one to seal to."""
        found = [c for c in self.compartments.values() if c.category == category]
        return max(found, key=lambda compartment: compartment.epoch, default=None)


@dataclass(frozen=True)
class Head:
    """The signed top of the ring, and the only list of devices.

    Args:
        vault: Whose.
        version: 1, 2, ...; clients remember the highest.
        prev: Digest of the envelope of the version before.
        issued_at_s: Unix seconds.
        pages: Digest of each page's envelope.
        devices: By id.
    """

    vault: VaultId
    version: int
    prev: bytes
    issued_at_s: int
    pages: Mapping[Period, bytes]
    devices: Mapping[DeviceId, Device]


def new_compartment(
    vault: VaultId, root: bytes, category: Category, period: Period, epoch: int
) -> tuple[Compartment, bytes]:
    """Return a compartment with a fresh random seed, and the seed locked under the root.

    Args:
        vault: Whose.
        root: 32 bytes.
        category: What will be sealed to it.
        period: Its month.
        epoch: From 1.
    """
    seed = new_seed()
    compartment = CompartmentId(new_id())
    locked = lock(root, seed, _seed_context(vault, compartment))
    public = Recipient.of_seed(seed).public
    return Compartment(compartment, category, period, epoch, public, sha256(locked)), locked


def open_seed(vault: VaultId, compartment: Compartment, root: bytes, locked: bytes) -> bytes:
    """Return a compartment's seed.

    Args:
        vault: Whose ring.
        compartment: As the verified ring names it.
        root: 32 bytes.
        locked: What the server gave for it.

    Raises:
        SealError: The locked seed is not the one the ring names, or does not belong to its public key.
    """
    if sha256(locked) != compartment.locked_hash:
        raise SealError("A locked seed is not the one that the ring names.")
    seed = unlock(root, locked, _seed_context(vault, compartment.id))
    return checked_seed(seed, compartment)


def checked_seed(seed: bytes, compartment: Compartment) -> bytes:
    """Return a seed if its public key is the one in the owner's ring.

    Raises:
        SealError: It is not: someone swapped the seed.
    """
    if Recipient.of_seed(seed).public != compartment.public:
        raise SealError("A compartment's seed does not belong to the public key in the ring.")
    return seed


def extend_page(
    page: Page | None, prev: bytes, *, vault: VaultId, period: Period, categories: Iterable[Category], root: bytes
) -> tuple[Page, dict[CompartmentId, bytes]]:
    """Return the next version of a month's page with one more epoch for each category.

    A first page gets epoch 1; after a withdrawal the next epoch closes the future by key.

    Args:
        page: The month's current page, or None.
        prev: Digest of its envelope, or `NO_PREV`.
        vault: Whose.
        period: The month.
        categories: Those that get a new compartment.
        root: 32 bytes.

    Returns:
        The page, and the locked seeds of the new compartments by id.
    """
    old = page or Page(vault, 0, NO_PREV, period, {})
    compartments = dict(old.compartments)
    locked: dict[CompartmentId, bytes] = {}
    for category in categories:
        current = old.current(category)
        compartment, seed = new_compartment(vault, root, category, period, current.epoch + 1 if current else 1)
        compartments[compartment.id] = compartment
        locked[compartment.id] = seed
    return Page(vault, old.version + 1, prev, period, compartments), locked


def sign_page(page: Page, owner: Signer) -> Envelope:
    """Return the page under the owner's signature."""
    compartments: JsonObject = {
        b64u(c.id): {
            "category": c.category,
            "epoch": c.epoch,
            "public": b64u(c.public),
            "locked": b64u(c.locked_hash),
        }
        for c in page.compartments.values()
    }
    record: JsonObject = {"vault": b64u(page.vault), "version": page.version, "prev": b64u(page.prev)}
    return sign_record(PayloadType.RING_PAGE, {**record, "period": page.period, "compartments": compartments}, owner)


def sign_head(head: Head, owner: Signer) -> Envelope:
    """Return the head under the owner's signature."""
    record: JsonObject = {
        "vault": b64u(head.vault),
        "version": head.version,
        "prev": b64u(head.prev),
        "issued_at": head.issued_at_s,
        "pages": {period: b64u(digest) for period, digest in head.pages.items()},
        "devices": {b64u(name): dump_device(device) for name, device in head.devices.items()},
    }
    return sign_record(PayloadType.RING_HEAD, record, owner)


def verify_page(envelope: Envelope, owner_key: bytes, vault: VaultId) -> Page:
    """Return a page that its owner signed.

    Args:
        envelope: What the server gave.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        vault: Whose ring is asked for.

    Raises:
        SealError: Another vault's, not signed by the owner, or malformed.
    """
    verify_envelope(envelope, PayloadType.RING_PAGE, owner_key)
    return _parse_page(envelope, vault)


def _parse_page(envelope: Envelope, vault: VaultId) -> Page:
    if envelope.payload_type is not PayloadType.RING_PAGE:
        raise SealError(f"A signed record is {envelope.payload_type} where {PayloadType.RING_PAGE} is expected.")
    fields = Fields(unverified_record(envelope))
    version, prev = parse_version(fields, vault)
    with as_seal_error():
        period = parse_period(fields.text("period"))
    compartments: dict[CompartmentId, Compartment] = {}
    for name, record in fields.object("compartments").items():
        compartment = _parse_compartment(CompartmentId(parse_id(name)), period, Fields(record))
        compartments[compartment.id] = compartment
    fields.end()
    if len({(c.category, c.epoch) for c in compartments.values()}) != len(compartments):
        raise SealError("A ring page names one category and epoch twice.")
    return Page(vault, version, prev, period, compartments)


def verify_head(envelope: Envelope, owner_key: bytes, vault: VaultId, remembered: Remembered | None = None) -> Head:
    """Return a head that its owner signed and that is not older than one seen before.

    Args:
        envelope: What the server gave.
        owner_key: The owner's current Ed25519 key.
        vault: Whose ring is asked for.
        remembered: The highest head this client saw, or None on its first visit.

    Raises:
        SealError: Another vault's, not signed by the owner, malformed, rolled back or forked.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.RING_HEAD, owner_key))
    version, prev = parse_version(fields, vault)
    if remembered is not None:
        refuse_rollback(envelope, version, prev, remembered)
    issued_at_s = fields.integer("issued_at")
    named = fields.object("pages")
    digests = Fields(named)
    with as_seal_error():
        pages = {parse_period(period): digests.hash(period) for period in named}
    devices: dict[DeviceId, Device] = {}
    for name, record in fields.object("devices").items():
        device = parse_device(Fields(record))
        if parse_id(name) != device.id:
            raise SealError("A device's id is not the one that its key certifies.")
        devices[device.id] = device
    fields.end()
    return Head(vault, version, prev, issued_at_s, pages, devices)


@dataclass(frozen=True)
class Ring:
    """A verified head with some of its verified pages.

    Args:
        head: From `verify_head`.
        pages: From `verify_page`, each the one that the head names; build through `verify_ring`.
    """

    head: Head
    pages: Mapping[Period, Page]

    @cached_property
    def compartments(self) -> Mapping[CompartmentId, Compartment]:
        """All compartments of the pages at hand."""
        return {name: c for page in self.pages.values() for name, c in page.compartments.items()}


def verify_ring(
    head: Envelope, pages: Iterable[Envelope], owner_key: bytes, vault: VaultId, remembered: Remembered | None = None
) -> Ring:
    """Return the ring of a head and those of its pages that the caller fetched.

    The head names each page by the hash of its envelope, so one signature covers all: a page from before a succession
    keeps the signature of the key that was in force then.

    Args:
        head: What the server gave.
        pages: Of the months that were fetched, in any order.
        owner_key: The owner's Ed25519 key in force, 32 bytes, which signed the head.
        vault: Whose ring is asked for.
        remembered: The highest head this client saw, or None on its first visit.

    Raises:
        SealError: As `verify_head`; a page is malformed, another vault's, or not the one that the head names.
    """
    verified = verify_head(head, owner_key, vault, remembered)
    found: dict[Period, Page] = {}
    for envelope in pages:
        page = _parse_page(envelope, vault)
        if verified.pages.get(page.period) != envelope.digest:
            raise SealError("A ring page is not the one that the ring head names.")
        found[page.period] = page
    ring = Ring(verified, found)
    if len(ring.compartments) != sum(len(page.compartments) for page in found.values()):
        raise SealError("Two ring pages name the same compartment.")
    return ring


def _seed_context(vault: VaultId, compartment: CompartmentId) -> bytes:
    return frames(b"twinvault/compartment-seed/v1", vault, compartment)


def _parse_compartment(name: CompartmentId, period: Period, fields: Fields) -> Compartment:
    with as_seal_error():
        category = parse_category(fields.text("category"))
    epoch = fields.integer("epoch", least=1)
    public, locked_hash = fields.binary("public", size=PUBLIC_BYTES), fields.hash("locked")
    fields.end()
    return Compartment(name, category, period, epoch, public, locked_hash)
