"""Reading back one's own traces: every batch is fetched, verified and opened on this machine, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx

from twinvault.api import Api, field
from twinvault.rings import OwnRing, RingKeeper
from twinvault.vaults import Keys
from vault.encoding import b64u, parse_b64u
from vault.schema.category import Category
from vault.schema.trace import Period, Trace
from vault.seal.batch import open_batch, parse_batch, verify_batch
from vault.seal.device import ChainHead
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.identity import Identity
from vault.seal.ids import DeviceId
from vault.seal.ring import Compartment


class TraceReader:
    """Opens the batches of one vault.

    Args:
        api: The service.
        auth: The owner's session.
        keys: The unlocked vault.
        rings: Knows the compartments and their seeds.
    """

    def __init__(self, api: Api, auth: httpx.Auth, keys: Keys, rings: RingKeeper) -> None:
        self._api = api
        self._auth = auth
        self._keys = keys
        self._rings = rings

    def month(self, category: Category, period: Period) -> list[Trace]:
        """Return the traces of a category and month, each once, in the order they came.

        Raises:
            SealError: The service shows a batch that no device of this vault sealed, or leaves one out.
        """
        own = self._rings.read()
        return self._every(own, own.covered([category], period, period).values())

    def sealed_to(self, compartments: Iterable[Compartment]) -> list[Trace]:
        """Return the traces of some compartments of the vault, as `month` does."""
        return self._every(self._rings.read(), compartments)

    def _every(self, own: OwnRing, compartments: Iterable[Compartment]) -> list[Trace]:
        found: dict[tuple[str, str], Trace] = {}
        for compartment in compartments:
            for trace in self._open(own, compartment):
                found.setdefault((trace.source, trace.id), trace)
        return list(found.values())

    def _open(self, own: OwnRing, compartment: Compartment) -> Iterator[Trace]:
        seeds = self._rings.keys(own, {compartment.id: compartment}, KeyKind.RAW)
        opener = Identity(seeds[compartment.id])
        heads: dict[DeviceId, ChainHead] = {}
        for encoded in self._batches(compartment):
            batch = parse_batch(encoded)
            device = own.ring.head.devices.get(batch.device)
            if device is None or batch.compartment != compartment.id:
                raise SealError("The service shows a batch of another compartment, or of a device that is not yours.")
            verified = verify_batch(
                batch, self._keys.vault, compartment.recipient.key_hash, device.public_key, heads.get(batch.device)
            )
            heads[batch.device] = batch.head
            if device.may_have_sealed(compartment.id, batch.seq):
                yield from open_batch(verified, opener, compartment.category)

    def _batches(self, compartment: Compartment) -> Iterator[bytes]:
        path = f"/v1/vaults/{b64u(self._keys.vault)}/batches"
        after = 0
        while True:
            params = {"compartment": b64u(compartment.id), "after": after}
            answer = self._api.get(path, auth=self._auth, params=params)
            page = field(answer, "batches", list)
            if not page:
                return
            yield from (parse_b64u(item) for item in page)
            following = field(answer, "next", int)
            if following <= after:
                raise SealError("The service's pages of batches do not move on.")
            after = following
