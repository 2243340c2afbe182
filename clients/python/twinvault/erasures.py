"""Erasing from the owner's side: see beforehand what would go, order it, and believe only a certificate that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from twinvault.api import Api, ApiError, ClientError, field, json_of
from twinvault.consents import Changed, NothingToGive, OwnConsent
from twinvault.device import Device
from twinvault.keys import Pinning, signing_key
from twinvault.profile import Profile
from twinvault.rings import RingKeeper
from twinvault.traces import TraceReader
from twinvault.vaults import Keys
from vault.clock import DAY_S, Clock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.proof.receipt import verify_receipt
from vault.schema.category import Category
from vault.schema.trace import Period, Trace, period_of
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Author, ErasureCertificate, Order, Scope, sign_order, verify_certificate
from vault.seal.ids import CompartmentId, ConsentId, new_id
from vault.seal.ring import Compartment
from vault.seal.statement import KeyName
from vault.seal.subject_erasure import sign_subject_erasure


class ForgedCertificate(ClientError):
    """A certificate of an erasure that does not hold, or is about another one."""

    slug = "forged-certificate"
    title = "Certificate does not hold"


class NothingThere(ClientError):
    """Nothing of what is to be erased exists."""

    slug = "nothing-there"
    title = "Nothing to erase"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a certificate must be about.

    Args:
        erasure_id: Of the order.
        scope: What was to be erased.
        author: On whose word.
        order_sha256: Digest of the signed order.
    """

    erasure_id: bytes
    scope: Scope
    author: Author
    order_sha256: bytes


class Owning(Protocol):
    """What erasing needs of the owner."""

    @property
    def device(self) -> Device:
        """This machine's own device."""

    def consents(self) -> list[OwnConsent]:
        """Return every consent of the vault."""

    def grantees(self) -> list[str]:
        """Return to whom consents were given, even if they are not shown whole any more."""

    def renew(self, consent_id: ConsentId) -> Changed:
        """Renew one under the same terms, with keys of what is left."""


@dataclass(frozen=True, slots=True)
class ErasedForGood:
    """A verified erasure.

    Args:
        certificate: What was destroyed.
        encoded: The signed certificate's bytes, to keep.
        proof: The receipt of its leaf, to keep with it.
        renewed: Consents that have keys of what is left again.
        keyless: Live consents of which nothing is left to open.
        steps: Where executors ordered it: the verified bundle of the steps that it followed from, which nobody else has.
    """

    certificate: ErasureCertificate
    encoded: bytes
    proof: str
    renewed: tuple[ConsentId, ...] = ()
    keyless: tuple[ConsentId, ...] = ()
    steps: bytes = b""


def verify_erased(api: Api, pinning: Pinning, answer: Any, wanted: Expected, clock: Clock) -> ErasedForGood:
    """Return what was erased, if a service key signed it and the pinned log shows it.

    Args:
        api: The service.
        pinning: Pins the operator and the log.
        answer: What the service returned.
        wanted: What it must be about.
        clock: Tells which keys are in force.

    Raises:
        ForgedCertificate: No key that the operator vouched for signed it, or it is about something else.
        InvalidProof: The log does not show it.
    """
    encoded, proof = parse_b64u(field(answer, "certificate")), field(answer, "proof")
    envelope = parse_envelope(encoded)
    key = signing_key(api, pinning, KeyName.SERVICE, envelope.signatures[0][0], clock)
    if key is None:
        raise ForgedCertificate("No service key that the operator vouched for signed the certificate.")
    said = verify_certificate(envelope, key)
    if Expected(said.erasure_id, said.scope, said.author, said.order_sha256) != wanted:
        raise ForgedCertificate("The certificate is about another erasure than the one that was ordered.")
    verify_receipt(proof, said.entry, pinning.trust.log, pinning.trust.origin)
    return ErasedForGood(said, encoded, proof)


class Erasures:
    """Erases from one vault.

    Args:
        owner: Whose consents are renewed without what is gone.
        api: The service.
        auth: The owner's session.
        profile: Pins the operator.
        keys: The unlocked vault.
        rings: Knows the compartments.
        clock: Tells the time.
    """

    def __init__(
        self,
        owner: Owning,
        api: Api,
        auth: httpx.Auth,
        profile: Profile,
        keys: Keys,
        *,
        rings: RingKeeper,
        clock: Clock,
    ) -> None:
        self._owner = owner
        self._api = api
        self._auth = auth
        self._profile = profile
        self._keys = keys
        self._rings = rings
        self._clock = clock
        self._path = f"/v1/vaults/{b64u(keys.vault)}/erasures"
        self.traces = TraceReader(api, auth, keys, rings)

    def compartments(
        self, category: Category, first: Period | None = None, last: Period | None = None
    ) -> dict[CompartmentId, Compartment]:
        """Return the compartments of a category that are not erased, of all months or only of some."""
        own = self._rings.read()
        every = {c.period for c in own.ring.compartments.values()}
        return own.covered([category], first or min(every, default=Period("")), last or max(every, default=Period("")))

    def preview(self, compartments: Iterable[CompartmentId] | None) -> Any:
        """Return what erasing these compartments, or everything, would destroy; nothing is changed."""
        named = None if compartments is None else sorted(b64u(name) for name in compartments)
        return json_of(
            self._api.request("POST", f"{self._path}/preview", auth=self._auth, json={"compartments": named})
        )

    def erase(self, compartments: Mapping[CompartmentId, Compartment], reason: str = "") -> ErasedForGood:
        """Erase compartments for good, then hand out keys of what is left.

        Args:
            compartments: From `compartments`.
            reason: For the certificate, at most 200 characters.

        Raises:
            NothingThere: No compartment is named.
            ForgedCertificate: The service does not prove it.
            ApiError: The service refuses.
        """
        if not compartments:
            raise NothingThere("There is nothing of that category and month; `twinvault owner status` lists what is.")
        done = self._order(tuple(sorted(compartments)), reason)
        this = period_of(self._clock.now().date())
        open_still = {c.category for c in compartments.values() if c.period >= this}
        if open_still:  # devices need somewhere to seal to
            self._rings.next_epoch(open_still, this)
        for place in {(c.category, c.period) for c in compartments.values()}:
            self._owner.device.forget(*place)
        renewed, keyless = self.hand_out_again()
        return ErasedForGood(done.certificate, done.encoded, done.proof, renewed, keyless)

    def erase_traces(
        self, category: Category, period: Period, is_gone: Callable[[Trace], bool], reason: str = ""
    ) -> tuple[ErasedForGood, int]:
        """Erase single traces: what is left of their month is sealed anew, then the month's old keys are destroyed.

        The service cannot name a single trace, so a month is the least that it can erase. The month's row goes
        with it, and its days' budget is spent: the twin forgets that month.

        Args:
            category: Of the traces.
            period: Month of their local date.
            is_gone: Picks those to erase.
            reason: For the certificate.

        Returns:
            The erasure, and how many traces are gone. After a crash run it again.

        Raises:
            NothingThere: No trace of that month is picked.

        Guarantees: what other devices are acknowledged for meanwhile stays.
        """
        old = self.compartments(category, period, period)
        found = self.traces.sealed_to(old.values())
        if not any(map(is_gone, found)):
            raise NothingThere("No trace of that month is the one that you name.")
        self._rings.next_epoch_of(category, period)
        # Only now does nothing more come to what is destroyed: read before, an upload in between would be lost.
        found = self.traces.sealed_to(old.values())
        left = [trace for trace in found if not is_gone(trace)]
        device = self._owner.device
        device.forget(category, period)
        device.add(left)
        flushed = device.flush()
        if flushed.waiting:
            raise NothingThere("What is left of the month could not be sealed anew yet; run it again.")
        return self.erase(old, reason), len(found) - len(left)

    def erase_everything(self, reason: str = "") -> ErasedForGood:
        """Erase the whole person from the service; consents, twin, traces and vault are gone when this returns."""
        return self._order(None, reason)

    def _order(self, compartments: tuple[CompartmentId, ...] | None, reason: str) -> ErasedForGood:
        scope = Scope(self._keys.vault, compartments)
        order = Order(new_id(), scope, reason, unix_s(self._clock.now()))
        signed = sign_order(order, self._keys.signer)
        body: dict[str, Any] = {"order": b64u(signed.encoded)}
        if scope.whole:
            body["subjects"] = self._as_each_subject(order.issued_at // DAY_S)
        response = self._api.request("POST", self._path, auth=self._auth, json=body, repeatable=True)
        wanted = Expected(order.erasure_id, scope, Author.OWNER, signed.digest)
        return verify_erased(self._api, self._profile, json_of(response), wanted, self._clock)

    def _as_each_subject(self, day: int) -> list[str]:
        """Sign the order once more under each pairwise key that signed a consent: that much, auditors may see."""
        log = self._profile.trust.origin
        signed = (sign_subject_erasure(log, day, self._keys.towards(grantee)) for grantee in self._owner.grantees())
        return [b64u(one.encoded) for one in signed]

    def hand_out_again(self) -> tuple[tuple[ConsentId, ...], tuple[ConsentId, ...]]:
        """Renew, under the same terms, every live consent whose keys were taken away, with keys of what is left.

        Whoever erased: another machine of this owner, the operator, a retention, or a run that broke off.
        What the service says of its keys decides only whether a renewal is signed, never what it allows.

        Returns:
            Those that have keys again, and those of which nothing is left to open.
        """
        renewed, keyless = [], []
        for consent in self._owner.consents():
            if not consent.live or consent.has_keys:
                continue
            try:
                self._owner.renew(consent.id)
            except (NothingToGive, ApiError):
                keyless.append(consent.id)
            else:
                renewed.append(consent.id)
        return tuple(renewed), tuple(keyless)
