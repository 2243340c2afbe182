"""The owner's side of the ring: read it without believing the server, publish months, epochs and devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import httpx

from twinvault.api import Api, ApiError, ClientError, field
from twinvault.profile import Profile
from twinvault.vaults import Keys, ring_body
from vault.clock import Clock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.derive import imprint_key
from vault.seal.device import Device
from vault.seal.dsse import Envelope, named_key, parse_envelope
from vault.seal.errors import SealError
from vault.seal.fields import parse_id
from vault.seal.handover import KeyKind
from vault.seal.ids import CompartmentId, DeviceId
from vault.seal.ring import Compartment, Head, Ring, extend_page, open_seed, sign_head, sign_page, verify_ring
from vault.seal.upload import verify_head_list
from vault.seal.version import NO_PREV, Remembered

_TRIES: Final = 3
_CONFLICT: Final = "version-conflict"


class UnknownDevice(ClientError):
    """A device that the owner's ring does not list."""

    slug = "unknown-device"
    title = "No such device"


class RevokedDevice(ClientError):
    """A device that the owner's ring lists as revoked; that is for good."""

    slug = "revoked-device"
    title = "Device is revoked"


class StillSealing(ClientError):
    """A device that was acknowledged for more whenever it was to be revoked."""

    slug = "still-sealing"
    title = "Device goes on sealing"


@dataclass(frozen=True)
class OwnRing:
    """The verified ring with everything that publishing on top of it needs.

    Args:
        ring: Verified head and all pages.
        head: Its envelope.
        locked: The seeds under the root that the service still keeps.
    """

    ring: Ring
    head: Envelope
    locked: Mapping[CompartmentId, bytes]

    def covered(self, categories: Iterable[Category], first: Period, last: Period) -> dict[CompartmentId, Compartment]:
        """Return the compartments of these categories and months whose seed was not erased."""
        wanted = set(categories)
        return {
            name: c
            for name, c in self.ring.compartments.items()
            if c.category in wanted and first <= c.period <= last and name in self.locked
        }

    def takes(self, category: Category, period: Period) -> bool:
        """Say whether devices can seal traces of this category and month: its newest compartment is not erased."""
        page = self.ring.pages.get(period)
        newest = None if page is None else page.current(category)
        return newest is not None and newest.id in self.locked


NewCompartments = Callable[[OwnRing], Mapping[Period, Iterable[Category]]]
"""Decides from the ring in force which months get one more epoch of which categories."""

NewDevice = Callable[[OwnRing], Device]
"""Says, from the ring in force, what the next head lists of one device."""


def _none_new(_own: OwnRing) -> Mapping[Period, Iterable[Category]]:
    return {}


class RingKeeper:
    """Reads and publishes one vault's ring.

    Args:
        api: The service.
        auth: The owner's session.
        profile: Remembers the highest version seen.
        keys: The unlocked vault.
        clock: Tells the time.
    """

    def __init__(self, api: Api, auth: httpx.Auth, profile: Profile, keys: Keys, clock: Clock) -> None:
        self._api = api
        self._auth = auth
        self._profile = profile
        self._keys = keys
        self._clock = clock
        self._path = f"/v1/vaults/{b64u(keys.vault)}/ring"

    def read(self, *, former: bool = False) -> OwnRing:
        """Return the ring.

        Args:
            former: Also take a head that a former key of the owner signed, as a service that was set back may have it.

        Raises:
            SealError: Forged, rolled back, or a page that the head names is missing.
        """
        answer = self._api.get(self._path, auth=self._auth)
        head = parse_envelope(parse_b64u(field(answer, "head")))
        locked: dict[CompartmentId, bytes] = {}
        pages = []
        for item in field(answer, "pages", list):
            pages.append(parse_envelope(parse_b64u(field(item, "page"))))
            seeds = field(item, "locked", dict)
            locked |= {CompartmentId(parse_id(name)): parse_b64u(seed) for name, seed in seeds.items()}
        remembered = self._profile.remembered("ring")
        signer = named_key(head, self._keys.owner_keys) if former else self._keys.signer.public_key
        ring = verify_ring(head, pages, signer, self._keys.vault, remembered)
        if ring.pages.keys() != ring.head.pages.keys():
            raise SealError("The service withholds a page that the owner's ring head names.")
        self._profile.remember("ring", Remembered(ring.head.version, head.digest))
        return OwnRing(ring, head, locked)

    def publish_months(self, categories: Iterable[Category], periods: Iterable[Period]) -> bool:
        """Give each month a compartment of each category that has none; say whether anything was missing."""
        wanted, months = sorted(set(categories)), sorted(set(periods))

        def missing(own: OwnRing) -> dict[Period, list[Category]]:
            found = {period: [c for c in wanted if not own.takes(c, period)] for period in months}
            return {period: absent for period, absent in found.items() if absent}

        return self._publish(missing)

    def next_epoch(self, categories: Iterable[Category], first: Period) -> bool:
        """Replace the compartments of these categories from a month on: keys handed over open nothing new."""
        wanted = sorted(set(categories))

        def replaced(own: OwnRing) -> dict[Period, list[Category]]:
            found = {
                period: [category for category in wanted if page.current(category) is not None]
                for period, page in own.ring.pages.items()
                if period >= first
            }
            return {period: closed for period, closed in found.items() if closed}

        return self._publish(replaced)

    def next_epoch_of(self, category: Category, period: Period) -> bool:
        """Replace the compartment of one category and month, so that the old one can be erased."""
        return self._publish(lambda _own: {period: [category]})

    def enrol(self, device: Device) -> None:
        """List a device that may seal batches to this vault.

        Raises:
            RevokedDevice: It was revoked; its key is never listed again.
        """
        known = self.read().ring.head.devices.get(device.id)
        if known is not None and known.accepted is not None:
            raise RevokedDevice("The device was revoked; enrol one with a new key.")
        if known is None:
            self._publish(_none_new, lambda _own: device)

    def revoke(self, device_id: DeviceId, *, at_once: bool = False) -> Device:
        """End a device: nothing that it seals from now on counts; what it was acknowledged for stays.

        Args:
            device_id: Which.
            at_once: Even while it goes on sealing, as a stolen one may on purpose: what it is acknowledged for
                in the moment of revoking does not count then.

        Raises:
            UnknownDevice: The ring lists no such device.
            RevokedDevice: It is revoked already.
            StillSealing: It was acknowledged for more each time that it was to be revoked.
            SealError: The service shows a head list that the device did not sign.

        Guarantees: the ring head that revokes it names its last accepted batch of every compartment,
            so a stolen key that signs more later signs in vain, even with the server's help.
        """
        try:
            self._publish(_none_new, lambda own: self._revoked(own, device_id), at_once=at_once)
        except ApiError as refusal:
            if refusal.slug != _CONFLICT:
                raise
            raise StillSealing(
                "The device goes on sending, or another one changes the ring; try again, or with --at-once if it is"
                " in the wrong hands: what it sends in that moment does not count then."
            ) from refusal
        return self.read().ring.head.devices[device_id]

    def _revoked(self, own: OwnRing, device_id: DeviceId) -> Device:
        """Return a device as a head lists it that ends it now; the service refuses one that it sealed more since."""
        known = own.ring.head.devices.get(device_id)
        if known is None:
            raise UnknownDevice("The vault lists no such device; `twinvault owner devices` does.")
        if known.accepted is not None:
            raise RevokedDevice("The device is revoked already.")
        shown = field(self._api.get(f"/v1/vaults/{b64u(self._keys.vault)}/heads", auth=self._auth), "heads", dict)
        last = shown.get(b64u(device_id))
        if last is None:
            return replace(known, accepted={})
        envelope = parse_envelope(parse_b64u(last))
        return replace(known, accepted=verify_head_list(envelope, self._keys.vault, known.public_key).heads)

    def keys(
        self, own: OwnRing, compartments: Mapping[CompartmentId, Compartment], kind: KeyKind
    ) -> dict[CompartmentId, bytes]:
        """Return what a handover of this kind holds for each compartment.

        Raises:
            SealError: A locked seed is not the one that the owner's ring names.
        """
        seeds = {
            name: open_seed(self._keys.vault, c, self._keys.root, own.locked[name]) for name, c in compartments.items()
        }
        return seeds if kind is KeyKind.RAW else {name: imprint_key(seed) for name, seed in seeds.items()}

    def _publish(self, changes: NewCompartments, listed: NewDevice | None = None, *, at_once: bool = False) -> bool:
        for left in reversed(range(_TRIES)):
            own = self.read()
            new, device = changes(own), None if listed is None else listed(own)
            if not new and (device is None or own.ring.head.devices.get(device.id) == device):
                return False
            head, pages = self._sign(own, new, device)
            try:
                body = ring_body(head, pages) | {"at_once": at_once}
                self._api.request("PUT", self._path, auth=self._auth, json=body)
            except ApiError as refusal:
                if refusal.slug != _CONFLICT or not left:
                    raise
                continue
            self._profile.remember("ring", Remembered(own.ring.head.version + 1, head.digest))
            return True
        raise AssertionError("the last try returns or raises")

    def _sign(
        self, own: OwnRing, new: Mapping[Period, Iterable[Category]], device: Device | None
    ) -> tuple[Envelope, list[tuple[Envelope, Mapping[CompartmentId, bytes]]]]:
        old, keys = own.ring.head, self._keys
        named = dict(old.pages)
        pages: list[tuple[Envelope, Mapping[CompartmentId, bytes]]] = []
        for period, categories in new.items():
            page, locked = extend_page(
                own.ring.pages.get(period), old.pages.get(period, NO_PREV),
                vault=keys.vault, period=period, categories=categories, root=keys.root,
            )  # fmt: skip
            envelope = sign_page(page, keys.signer)
            pages.append((envelope, locked))
            named[period] = envelope.digest
        devices = dict(old.devices) if device is None else {**old.devices, device.id: device}
        head = Head(keys.vault, old.version + 1, own.head.digest, unix_s(self._clock.now()), named, devices)
        return sign_head(head, keys.signer), pages
