"""The owner's side of consents: versions signed by pairwise keys, the handovers they carry, and what the service keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from twinvault.api import Api, ApiError, ClientError, field, json_of
from twinvault.keys import KEPT_S, sealing_key, signing_key
from twinvault.profile import Profile
from twinvault.receipts import verify_changed, verify_grown
from twinvault.rings import OwnRing, RingKeeper
from twinvault.vaults import Keys
from vault.clock import Clock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.schema.category import Category
from vault.schema.consent import (
    ConsentEvent,
    ConsentVersion,
    Notice,
    dump_consent,
    parse_consent,
    verify_successor,
)
from vault.schema.terms import ConsentKind, Terms
from vault.seal.advance import Advance
from vault.seal.dsse import Envelope, PayloadType, parse_envelope, sign_record, unverified_record, verify_envelope
from vault.seal.fields import parse_id
from vault.seal.handover import Handover, HandoverTerms, KeyKind, seal_handover
from vault.seal.ids import CompartmentId, ConsentId, new_id, sha256
from vault.seal.ring import Compartment
from vault.seal.statement import KeyName
from vault.seal.subject import SubjectCertificate, sign_subject
from vault.seal.version import Remembered

HANDOVERS: Final[Mapping[ConsentKind, tuple[KeyKind, ...]]] = {
    ConsentKind.SELF: (KeyKind.RAW, KeyKind.IMPRINT),
    ConsentKind.COHORT: (KeyKind.RAW,),
    # A company's consent never opens a trace.
    ConsentKind.COMPANY: (KeyKind.IMPRINT,),
}
_STALE: Final = "stale-recipient"
_HOLDER: Final = {KeyKind.RAW: KeyName.PROCESSOR, KeyKind.IMPRINT: KeyName.SERVING}


class UnknownConsent(ClientError):
    """No consent of that id, or none that is live."""

    slug = "unknown-consent"
    title = "No such consent"


class NothingToGive(ClientError):
    """A consent about categories and months of which the vault holds no keys."""

    slug = "nothing-to-give"
    title = "Nothing to hand over"


class ForgedConsents(ClientError):
    """A list of consents that does not hold what this owner signed."""

    slug = "forged-consents"
    title = "Consents do not hold"


@dataclass(frozen=True, slots=True)
class OwnConsent:
    """One consent of this vault, verified.

    Args:
        current: The version in force.
        sha256: Digest of its envelope.
        live: Whether anything may happen under it, as the service says.
        has_keys: Whether the service holds keys of it, as the service says; erasing takes them away.
        quota_left: Answers left this month, as the service says.
        versions: All versions, oldest first.
        request: The company's request that was answered last, its compact JWS; empty where nobody asked.
    """

    current: ConsentVersion
    sha256: bytes
    live: bool
    has_keys: bool
    quota_left: int
    versions: tuple[ConsentVersion, ...]
    request: str

    @property
    def id(self) -> ConsentId:
        """The id of all its versions."""
        return ConsentId(self.current.consent_id)


@dataclass(frozen=True, slots=True)
class Changed:
    """An acknowledged and logged change.

    Args:
        version: What was signed and is now in force.
        new_epoch: Categories whose keys of the months to come this client has replaced, because none hands them over any more.
    """

    version: ConsentVersion
    new_epoch: tuple[Category, ...] = ()


class ConsentKeeper:
    """Reads, gives and changes one vault's consents.

    Args:
        api: The service.
        auth: The owner's session.
        profile: Pins the operator and remembers versions.
        keys: The unlocked vault.
        rings: Where the keys to hand over come from.
        clock: Tells the time.
    """

    def __init__(
        self, api: Api, auth: httpx.Auth, profile: Profile, keys: Keys, *, rings: RingKeeper, clock: Clock
    ) -> None:
        self._api = api
        self._auth = auth
        self._profile = profile
        self._keys = keys
        self._rings = rings
        self._clock = clock
        self._path = f"/v1/vaults/{b64u(keys.vault)}/consents"

    def read(self) -> list[OwnConsent]:
        """Return every consent, ended ones included.

        Raises:
            ForgedConsents: A version that this owner did not sign, a gap, or fewer than were seen before.
        """
        shown = field(self._api.get(self._path, auth=self._auth), "consents", list)
        return [self._verify(item) for item in shown]

    def grantees(self) -> list[str]:
        """Return to whom the service shows consents by this owner's keys, whether it shows them whole or not.

        A database that was set back shows what `read` refuses; that must keep nobody from having everything erased.
        """
        shown = field(self._api.get(self._path, auth=self._auth), "consents", list)
        found: set[str] = set()
        for item in (item for consent in shown for item in field(consent, "versions", list)):
            version = parse_consent(unverified_record(parse_envelope(parse_b64u(field(item, "envelope")))))
            # Else the service could learn, by naming a grantee, as whom this owner would consent to it.
            if version.principal_key == self._keys.towards(version.terms.grantee).public_key:
                found.add(version.terms.grantee)
        return sorted(found)

    def get(self, consent_id: ConsentId) -> OwnConsent:
        """Return one consent.

        Raises:
            UnknownConsent: This vault has none of that id.
        """
        for consent in self.read():
            if consent.id == consent_id:
                return consent
        raise UnknownConsent("This vault has no consent of that id; `twinvault owner consents` lists them.")

    def give(self, terms: Terms, notice: Notice, request: str = "") -> Changed:
        """Give a new consent with the keys it needs.

        Args:
            terms: What is granted.
            notice: What the record keeps of the text that the person was shown.
            request: What the company asked for, its compact JWS.

        Raises:
            NothingToGive: The vault has no keys of these categories and months.
            SealError: The service shows keys that the pinned operator did not sign: nothing is sealed to them.
            NoReceipt: The log does not show what was signed.
        """
        return self._give(terms, notice, request, self.read(), self._rings.read())

    def give_all(self, wanted: Iterable[tuple[Terms, Notice]]) -> list[Changed]:
        """Give several consents, each to another grantee, on one reading of what the service keeps.

        Args:
            wanted: What is granted, and what the record keeps of the text that the person was shown.

        Raises:
            As `give`; those before stay given.
        """
        before, own = self.read(), self._rings.read()
        return [self._give(terms, notice, "", before, own) for terms, notice in wanted]

    def _give(self, terms: Terms, notice: Notice, request: str, before: list[OwnConsent], own: OwnRing) -> Changed:
        version, certificate = self._first(terms, notice, request, before)
        return self._send(self._path, version, {"certificate": b64u(certificate.encoded), "request": request}, own)

    def seal(self, terms: Terms, notice: Notice, request: str) -> Advance:
        """Sign a company's consent for executors to give, and send it to nobody.

        Args:
            terms: What is granted.
            notice: What the record keeps of the text that the person was shown.
            request: What the company asked for, its compact JWS.

        Raises:
            NothingToGive: The vault has no keys of these categories and months.
            SealError: The service shows keys that the pinned operator did not sign: nothing is sealed to them.
        """
        version, certificate = self._first(terms, notice, request, self.read())
        (handover,) = self._handovers(version, self._rings.read(), 0)
        return Advance(self._signed(version), certificate, handover.encoded, request)

    def _first(
        self, terms: Terms, notice: Notice, request: str, known: list[OwnConsent]
    ) -> tuple[ConsentVersion, Envelope]:
        towards = self._keys.towards(terms.grantee)
        before = [one for one in known if one.current.terms.grantee == terms.grantee]
        version = ConsentVersion(
            consent_id=new_id(),
            version=1,
            consent_seq=1 + max((one.current.consent_seq for one in before), default=0),
            prev=b"",
            event=ConsentEvent.GIVEN,
            event_time=unix_s(self._clock.now()),
            principal_key=towards.public_key,
            terms=terms,
            notice=notice,
            request_sha256=sha256(request.encode()) if request else b"",
        )
        whose = SubjectCertificate(self._keys.vault, towards.public_key, terms.grantee)
        return version, sign_subject(whose, self._keys.signer)

    def amend(
        self, consent: OwnConsent, event: ConsentEvent, terms: Terms, notice: Notice, request: str = ""
    ) -> Changed:
        """Narrow or renew a consent; fresh handovers replace the old ones.

        Raises:
            As `give`.
        """
        version = self._next(consent, event)
        version = replace(version, terms=terms, notice=notice)
        if request:
            version = replace(version, request_sha256=sha256(request.encode()))
        return self._send(
            f"{self._path}/{b64u(consent.id)}/versions", version, {"request": request}, self._rings.read()
        )

    def withdraw(self, consent: OwnConsent) -> Changed:
        """End a consent; when this returns, the log shows it and the service's keys are gone.

        Raises:
            NoReceipt: The log does not show the withdrawal.
        """
        version = self._next(consent, ConsentEvent.WITHDRAWN)
        return self._send(f"{self._path}/{b64u(consent.id)}/versions", version, {}, None)

    def handed_over(self, consent: OwnConsent) -> bool:
        """Say whether this client handed the newest ring's keys over under this version of the consent."""
        handed = self._profile.remembered(_handed(consent.id))
        return handed is not None and handed.version == self._rings.read().ring.head.version

    def signer_of(self, shown: Any) -> bytes:
        """Return the service's key that signed an ending, out of a receipt as the service shows it.

        Raises:
            ForgedConsents: The operator vouches for no such key.
        """
        return self._service_key(parse_envelope(parse_b64u(field(shown, "envelope"))))

    def _next(self, consent: OwnConsent, event: ConsentEvent) -> ConsentVersion:
        current = consent.current
        return replace(
            current,
            version=current.version + 1,
            consent_seq=current.consent_seq + 1,
            prev=consent.sha256,
            event=event,
            event_time=max(unix_s(self._clock.now()), current.event_time),
        )

    def _send(self, path: str, version: ConsentVersion, body: dict[str, Any], own: OwnRing | None) -> Changed:
        envelope = self._signed(version)
        body = {**body, "envelope": b64u(envelope.encoded)}
        try:
            answer = self._post(path, body, version, own, KEPT_S)
        except ApiError as error:
            if error.slug != _STALE:
                raise
            # A new epoch is in force that this client, which keeps what it was shown for a while, has not seen.
            answer = self._post(path, body, version, own, 0)
        checkpoint = verify_changed(field(answer, "receipt", dict), self._profile.trust, version, envelope)
        seen = verify_grown(self._api, self._profile, checkpoint)
        seen |= {f"consent/{b64u(version.consent_id)}": Remembered(version.version, envelope.digest)}
        if own is not None:
            seen[_handed(ConsentId(version.consent_id))] = Remembered(own.ring.head.version, own.head.digest)
        self._profile.remember_all(seen)
        return Changed(version)

    def _signed(self, version: ConsentVersion) -> Envelope:
        return sign_record(PayloadType.CONSENT, dump_consent(version), self._keys.towards(version.terms.grantee))

    def _post(
        self, path: str, body: dict[str, Any], version: ConsentVersion, own: OwnRing | None, at_most_s: float
    ) -> Any:
        if own is not None:
            body = {**body, "handovers": [b64u(item.encoded) for item in self._handovers(version, own, at_most_s)]}
        return json_of(self._api.request("POST", path, auth=self._auth, json=body))

    def _handovers(self, version: ConsentVersion, own: OwnRing, at_most_s: float) -> list[Handover]:
        terms = version.terms
        if not terms.usable:
            special = " ".join(f"--special {one}" for one in sorted(terms.categories))
            raise NothingToGive(
                f"All that is named is specially protected, and none of it explicitly allowed, so there is nothing to hand"
                f" over; allow it with `{special}`, each for itself, or end a consent with `twinvault owner withdraw`."
            )
        compartments = own.covered(terms.usable, terms.data_from, terms.data_to)
        if not compartments:
            raise NothingToGive("The vault has no keys of these categories and months; import traces first.")
        return [self._handover(version, own, kind, compartments, at_most_s) for kind in HANDOVERS[terms.kind]]

    def _handover(
        self,
        version: ConsentVersion,
        own: OwnRing,
        kind: KeyKind,
        compartments: Mapping[CompartmentId, Compartment],
        at_most_s: float,
    ) -> Handover:
        terms = version.terms
        # Verified against the pinned operator before anything is sealed to it.
        recipient = sealing_key(self._api, self._profile, _HOLDER[kind], self._clock, at_most_s=at_most_s)
        handed = HandoverTerms(
            vault=self._keys.vault,
            consent=ConsentId(version.consent_id),
            kind=kind,
            compartments=tuple(sorted(compartments)),
            to=recipient.key_hash,
            not_before_s=terms.not_before,
            not_after_s=terms.not_after,
            ring_version=own.ring.head.version,
        )
        return seal_handover(handed, self._rings.keys(own, compartments, kind), recipient, self._keys.signer)

    def _verify(self, shown: Any) -> OwnConsent:
        versions: list[ConsentVersion] = []
        previous: ConsentVersion | None = None
        digest, request = b"", ""
        for item in field(shown, "versions", list):
            envelope = parse_envelope(parse_b64u(field(item, "envelope")))
            version = parse_consent(unverified_record(envelope))
            self._verify_signed(version, envelope)
            if previous is not None:
                verify_successor(version, previous, digest)
            elif version.version != 1:
                raise ForgedConsents("The service withholds the first version of a consent.")
            previous, digest = version, envelope.digest
            request = field(item, "request") or request
            versions.append(version)
        if previous is None or previous.consent_id != parse_id(field(shown, "consent")):
            raise ForgedConsents("The service shows a consent without its signed versions.")
        self._profile.remember(f"consent/{b64u(previous.consent_id)}", Remembered(previous.version, digest))
        live = field(shown, "live", bool) and previous.event.live
        has_keys, quota_left = field(shown, "keys", bool), field(shown, "quota_left", int)
        return OwnConsent(previous, digest, live, has_keys, quota_left, tuple(versions), request)

    def _verify_signed(self, version: ConsentVersion, envelope: Envelope) -> None:
        ours = self._keys.towards(version.terms.grantee).public_key
        if version.principal_key != ours:
            raise ForgedConsents("The service shows a consent that this owner never signed.")
        if version.event.by_person:
            verify_envelope(envelope, PayloadType.CONSENT, ours)
            return
        verify_envelope(envelope, PayloadType.CONSENT, self._service_key(envelope))

    def _service_key(self, envelope: Envelope) -> bytes:
        named = envelope.signatures[0][0]
        signer = signing_key(self._api, self._profile, KeyName.SERVICE, named, self._clock)
        if signer is None:
            raise ForgedConsents("A consent was ended by a key that the operator does not vouch for.")
        return signer


def _handed(consent_id: ConsentId) -> str:
    return f"handover/{b64u(consent_id)}"
