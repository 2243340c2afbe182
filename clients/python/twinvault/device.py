"""A device: takes traces, keeps them until the service acknowledged them, seals them to the owner's newest keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final
from zoneinfo import ZoneInfo

from twinvault.api import Api, ApiError, ClientError, field
from twinvault.keys import signing_key
from twinvault.profile import SPOOL, Profile
from twinvault.signin import SignedIn
from twinvault.spool import Spool, Waiting
from twinvault.vaults import follow_identity
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.schema.category import Category
from vault.schema.trace import Period, Trace, local_date, period_of
from vault.seal.batch import parse_batch, seal_batch
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.ids import DeviceId, VaultId, key_id
from vault.seal.person import Role
from vault.seal.ring import Compartment, verify_ring
from vault.seal.signing import SigningKey
from vault.seal.statement import KeyName
from vault.seal.upload import HeadList, encode_upload, parse_upload, sign_head_list, verify_acknowledgement
from vault.seal.version import Remembered

MAX_TRACES: Final = 16_384
MAX_SPOOL_BYTES: Final = 8 << 20  # of one upload; sealed it is far below what the service takes
_RESEAL: Final = frozenset({"closed-epoch", "unknown-compartment"})
_NO_COMPARTMENT: Final = "no-compartment"


class ForgedAcknowledgement(ClientError):
    """An acknowledgement that the service did not sign, or that is about something else than what was sent."""

    slug = "forged-acknowledgement"
    title = "Acknowledgement does not hold"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of the spool.

    Args:
        sent: Traces acknowledged now.
        waiting: Traces that stay, because no compartment is published for their month and category.
    """

    sent: int
    waiting: int


class Device:
    """One device of a vault.

    Args:
        profile: Holds the vault's id, the owner's public key, time zone and the device's signing key.
        api: The service.
        clock: Tells the time.
    """

    def __init__(self, profile: Profile, api: Api | None = None, clock: Clock | None = None) -> None:
        self._profile = profile
        self._api = api or Api(profile.trust.issuer)
        self._clock = clock or SystemClock()
        self._vault = VaultId(profile.binary("vault", 16))
        self._zone = ZoneInfo(profile.text("time_zone"))
        self._signer = SigningKey(profile.binary("device_seed", 32))
        self._auth = SignedIn(profile.trust, self._vault, self._signer, Role.DEVICE)
        self._spool = Spool(profile.folder / SPOOL)

    @property
    def id(self) -> DeviceId:
        """The id that the device's key certifies."""
        return DeviceId(key_id(self._signer.public_key))

    def add(self, traces: Iterable[Trace]) -> int:
        """Keep traces on this device; return how many it did not have before.

        A trace counts once, however often it is added: what tells traces apart is source and id.
        """
        dated = ((trace, period_of(local_date(trace.occurred_at, self._zone))) for trace in traces)
        return sum(self._spool.add(chunk) for chunk in _chunks(dated, 4096))

    def months(self) -> dict[Category, set[Period]]:
        """Return the months that the waiting traces need compartments of, by category."""
        found: dict[Category, set[Period]] = {}
        for category, period in self._spool.places():
            found.setdefault(Category(category), set()).add(Period(period))
        return found

    @property
    def waiting(self) -> int:
        """Traces on this device that the service has not acknowledged."""
        return self._spool.count()

    def flush(self, progress: Callable[[int], None] | None = None) -> Flushed:
        """Seal and send what waits, upload by upload; call it again at any time, after a crash too.

        Args:
            progress: Called with the number of traces that each upload brought home.

        Raises:
            ApiError: The service refuses.
            Unreachable: No answer came; everything stays in the spool.
            ForgedAcknowledgement: The answer does not prove that the upload is kept.
            RolledBack: The service showed an older ring than before.
            SealError: The ring is not the owner's, or who the owner is does not follow from whom this device knew.
        """
        sent = 0
        while self._spool.upload() is not None or self._seal_next():
            done = self._send()
            sent += done
            if progress is not None and done:
                progress(done)
        return Flushed(sent, self._spool.count())

    def forget(self, category: Category, period: Period) -> None:
        """Forget which traces of a category and month were sent: after an erasure they may be added again."""
        self._spool.forget(category, period)

    def close(self) -> None:
        """Close the spool."""
        self._spool.close()

    def _seal_next(self) -> bool:
        """Seal the next upload; say whether there is anything to send."""
        places = self._places({Period(period) for _, period in self._spool.places()})
        with self._spool.transaction():
            if self._spool.upload() is not None:  # another process of this device was faster
                return True
            ready = _fitting(item for item in self._spool.waiting() if (item.category, item.period) in places)
            if not ready:
                return False
            chains, batches = self._spool.chains(), []
            for place, group in groupby(ready, key=lambda item: (item.category, item.period)):
                compartment = places[place]
                traces = [item.trace for item in group]
                sealed = seal_batch(traces, self._vault, compartment, self._signer, chains.get(compartment.id))
                chains[compartment.id] = parse_batch(sealed).head
                batches.append(sealed)
            head_list = HeadList(self._vault, self.id, self._spool.next_version(), unix_s(self._clock.now()), chains)
            body = encode_upload(batches, sign_head_list(head_list, self._signer))
            self._spool.keep_upload(body, [item.key for item in ready])
        return True

    def _send(self) -> int:
        body = self._spool.upload()
        if body is None:
            return 0
        path = f"/v1/vaults/{b64u(self._vault)}/batches"
        try:
            response = self._api.request("POST", path, auth=self._auth, content=body, repeatable=True)
        except ApiError as refusal:
            if refusal.slug not in _RESEAL:
                raise
            # The owner closed the compartment meanwhile: nothing was stored, so seal to the newest one.
            self._spool.take_apart()
            return 0
        self._verify_acknowledged(response.content, body)
        touched = {batch.compartment: batch.head for batch in parse_upload(body).batches}
        return self._spool.acknowledge(touched)

    def _verify_acknowledged(self, acknowledgement: bytes, body: bytes) -> None:
        """Refuse an answer that does not prove that the service keeps exactly these batches."""
        upload = parse_upload(body)
        envelope = parse_envelope(acknowledgement)
        named = envelope.signatures[0][0]
        signer = signing_key(self._api, self._profile, KeyName.SERVICE, named, self._clock)
        if signer is None:
            raise ForgedAcknowledgement("No service key that the operator vouched for signed the acknowledgement.")
        said = verify_acknowledgement(envelope, signer)
        heads = {batch.compartment: batch.head for batch in upload.batches}
        if (said.vault, said.device, said.upload) != (self._vault, self.id, upload.digest) or dict(said.heads) != heads:
            raise ForgedAcknowledgement("The acknowledgement is about another upload; the traces stay on this device.")

    def _places(self, periods: set[Period]) -> dict[tuple[str, str], Compartment]:
        """Return where to seal to, by category and month, from the owner's signed ring."""
        if not periods:
            return {}
        path = f"/v1/vaults/{b64u(self._vault)}/ring"
        try:
            answer = self._api.get(path, auth=self._auth, params={"period": sorted(periods)})
        except ApiError as refusal:
            if refusal.slug != _NO_COMPARTMENT:
                raise
            if len(periods) == 1:
                return {}
            return {place: c for period in periods for place, c in self._places({period}).items()}
        head = parse_envelope(parse_b64u(field(answer, "head")))
        pages = [parse_envelope(parse_b64u(field(page, "page"))) for page in field(answer, "pages", list)]
        owner_key = follow_identity(
            self._profile, [parse_envelope(parse_b64u(one)) for one in field(answer, "identity", list)]
        )
        ring = verify_ring(head, pages, owner_key, self._vault, self._profile.remembered("ring"))
        self._profile.remember("ring", Remembered(ring.head.version, head.digest))
        if self.id not in ring.head.devices or ring.head.devices[self.id].accepted is not None:
            raise SealError("The owner's ring does not list this device, or has revoked it.")
        categories = {c.category for c in ring.compartments.values()}
        current = ((page, category, page.current(category)) for page in ring.pages.values() for category in categories)
        return {(category, page.period): found for page, category, found in current if found is not None}


def _fitting(items: Iterable[Waiting]) -> list[Waiting]:
    """Return the first traces that fit into one upload."""
    taken: list[Waiting] = []
    size = 0
    for item in items:
        size += item.size
        if taken and (len(taken) == MAX_TRACES or size > MAX_SPOOL_BYTES):
            break
        taken.append(item)
    return taken


def _chunks(traces: Iterable[tuple[Trace, str]], size: int) -> Iterator[list[tuple[Trace, str]]]:
    rest = iter(traces)
    while chunk := list(islice(rest, size)):
        yield chunk
