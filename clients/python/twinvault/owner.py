"""The owner's client: holds the root in memory, believes no server, and is the only one that opens everything.

owner = Owner.unlock(Profile.load(folder), passphrase="...")
owner.import_traces(traces)
asked = owner.read_request(jws)
owner.give_company(asked)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

from twinvault.api import Api, ApiError, field, json_of
from twinvault.approvals import Approvals
from twinvault.consent_receipts import ConsentReceipt, verify_consent_receipt
from twinvault.consents import Changed, ConsentKeeper, OwnConsent, UnknownConsent
from twinvault.device import Device, Flushed
from twinvault.history import read_history
from twinvault.notice import render
from twinvault.profile import Profile
from twinvault.receipts import NoReceipt, VerifiedAnswer, answer_path, remember_checkpoint, verify_answered
from twinvault.rings import RingKeeper
from twinvault.signin import SignedIn
from twinvault.terms import YEAR_S, AskedBy, own_terms, verify_asked, verify_company
from twinvault.vaults import Keys, create_vault, recover_vault, unlock_vault
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import b64u, dump_json
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.question import Question, dump_question
from vault.schema.terms import SELF_GRANTEE, ConsentKind, Terms
from vault.schema.trace import Period, Trace, period_of, periods_from
from vault.seal.device import Device as RingDevice
from vault.seal.device import DeviceRole
from vault.seal.ids import ID_BYTES, ConsentId, DeviceId, VaultId
from vault.seal.kit import RecoveryKit
from vault.seal.person import Profile as Person
from vault.seal.person import Role, sign_freeze
from vault.seal.ring import MONTHS_AHEAD
from vault.seal.signing import SigningKey
from vault.seal.slot import passphrase_key, recovery_key

_FROZEN: Final = "frozen"


class Owner:
    """One unlocked vault; make it with `init`, `unlock` or `recover`.

    Args:
        api: The service.
        profile: The profile on this machine.
        keys: The vault's secrets.
        clock: Tells the time.
    """

    def __init__(self, api: Api, profile: Profile, keys: Keys, clock: Clock) -> None:
        self.profile = profile
        self._api = api
        self._keys = keys
        self._clock = clock
        self._auth = SignedIn(profile.trust, keys.vault, keys.signer, Role.OWNER)
        self._rings = RingKeeper(api, self._auth, profile, keys, clock)
        self._consents = ConsentKeeper(api, self._auth, profile, keys, rings=self._rings, clock=clock)
        self._device = Device(profile, api, clock)
        self.approvals = Approvals(api, self._auth)
        self._path = f"/v1/vaults/{b64u(keys.vault)}"

    @classmethod
    def init(
        cls,
        folder: Path,
        trust: TrustedRoot,
        *,
        passphrase: str | None,
        categories: Iterable[Category],
        time_zone: str = "UTC",
        person: Person | None = None,
        api: Api | None = None,
        clock: Clock | None = None,
    ) -> tuple[Owner, RecoveryKit]:
        """Begin a vault with its own device and compartments for the coming year.

        Args:
            folder: Where its profile will lie on this machine.
            trust: The keys to pin.
            passphrase: Opens it on this machine; None for a vault that only the recovery kit opens.
            categories: What may be sealed from the start.
            time_zone: IANA name; decides the local date of every trace, for good.
            person: Adult and alive if not given.
            api: The service; the trust file's issuer if not given.
            clock: The machine's own if not given.

        Returns:
            The unlocked vault, and the recovery kit: print it, it is kept nowhere.

        Raises:
            ApiError: The service refuses.
            BadProfile: The folder exists.
        """
        api, clock = api or Api(trust.issuer), clock or SystemClock()
        profile, keys, kit = create_vault(
            api, folder, trust, passphrase=passphrase, time_zone=time_zone, categories=list(categories),
            periods=periods_from(_this_month(clock), MONTHS_AHEAD + 1), person=person or Person(), clock=clock,
        )  # fmt: skip
        return cls(api, profile, keys, clock), kit

    @classmethod
    def unlock(
        cls,
        profile: Profile,
        *,
        passphrase: str | None = None,
        kit: RecoveryKit | None = None,
        api: Api | None = None,
        clock: Clock | None = None,
    ) -> Owner:
        """Open the profile's vault by passphrase, or by its recovery kit.

        Raises:
            ApiError: Wrong passphrase or kit (`not-stored`), or the service refuses.
            SealError: The service returned something forged or older than before.
        """
        api, clock = api or Api(profile.trust.issuer), clock or SystemClock()
        if kit is not None:
            key = recovery_key(kit.recovery_code)
        else:
            key = passphrase_key(passphrase or "", profile.binary("device_secret", 16))
        return cls(api, profile, unlock_vault(api, profile, key), clock)

    @classmethod
    def recover(
        cls, folder: Path, trust: TrustedRoot, kit: RecoveryKit, *, api: Api | None = None, clock: Clock | None = None
    ) -> Owner:
        """Bring a vault to this machine from its recovery kit, with a device of its own.

        Raises:
            ApiError: No vault belongs to this kit.
            BadProfile: The folder exists.
        """
        api, clock = api or Api(trust.issuer), clock or SystemClock()
        profile, keys = recover_vault(api, folder, trust, kit)
        owner = cls(api, profile, keys, clock)
        public_key = SigningKey(profile.binary("device_seed", 32)).public_key
        owner._rings.enrol(RingDevice(public_key, DeviceRole.OWNER))
        return owner

    @property
    def vault(self) -> VaultId:
        """The vault's id."""
        return self._keys.vault

    @property
    def device(self) -> Device:
        """This machine's own device."""
        return self._device

    def enrol(self, public_key: bytes, role: DeviceRole = DeviceRole.SOURCE) -> None:
        """Let another device seal traces to this vault; it can open none.

        Args:
            public_key: The device's Ed25519 key, 32 bytes.
            role: What it is to the vault.
        """
        self._rings.enrol(RingDevice(public_key, role))

    def devices(self) -> list[RingDevice]:
        """Return every device that the signed ring head lists, revoked ones included."""
        return list(self._rings.read().ring.head.devices.values())

    def revoke_device(self, device: DeviceId) -> RingDevice:
        """End a device for good; see `RingKeeper.revoke`."""
        return self._rings.revoke(device)

    def frozen(self) -> bool:
        """Say whether the vault is frozen: nothing is answered, refreshed or trained then."""
        return str(field(self._person(), "state")) == _FROZEN

    def freeze(self, *, frozen: bool) -> None:
        """Freeze or unfreeze everything at once, by a signed and logged order; consents stay as they are."""
        sequence = field(self._person(), "sequence", int) + 1
        order = sign_freeze(self._keys.signer, frozen=frozen, vault_id=self._keys.vault, sequence=sequence)
        body = {"order": b64u(order.encoded)}
        done = json_of(self._api.request("POST", f"{self._path}/freezes", auth=self._auth, json=body))
        if (field(done, "state") == _FROZEN) is not frozen:
            raise ApiError("unexpected-answer", 200, "The service did not follow the order.")

    def receipt(self, consent_id: ConsentId, version: int) -> tuple[ConsentReceipt, Any]:
        """Return a version's receipt, verified, and its JSON form to keep."""
        path = f"{self._path}/consents/{b64u(consent_id)}/versions/{version}/receipt"
        kept = self._api.get(path, auth=self._auth)
        found = verify_consent_receipt(kept, self.profile.trust)
        if (found.version.consent_id, found.version.version) != (consent_id, version):
            raise NoReceipt("The service returned the receipt of another version.")
        return found, kept

    def publish(self, categories: Iterable[Category], periods: Iterable[Period]) -> bool:
        """Make sure that each month has keys for each category; say whether any were missing."""
        return self._rings.publish_months(categories, periods)

    def import_traces(self, traces: Iterable[Trace], progress: Callable[[int], None] | None = None) -> Flushed:
        """Seal and send traces through this machine's device, and let the live self consent cover their months.

        Args:
            traces: From an importer, or any other source.
            progress: Called with the number of traces that each upload brought home.

        Raises:
            ApiError: The service refuses.
            Unreachable: No answer; the traces stay in the spool, and running it again sends them.
        """
        device = self._device
        device.add(traces)
        for category, periods in device.months().items():
            self.publish([category], periods)
        flushed = device.flush(progress)
        self.cover()
        return flushed

    def cover(self) -> Changed | None:
        """Publish the coming year and renew the self consent, if it lacks keys that the ring has.

        Returns:
            The renewal, or None where nothing was missing or no self consent is live.
        """
        consent = self._self_consent()
        if consent is None:
            return None
        terms = consent.current.terms
        self.publish(terms.categories, periods_from(_this_month(self._clock), MONTHS_AHEAD + 1))
        if self._consents.handed_over(consent):
            return None
        usual = self.terms_for(ConsentKind.SELF, terms.categories)
        widened = replace(
            terms, data_from=min(terms.data_from, usual.data_from), data_to=max(terms.data_to, usual.data_to),
            not_after=max(terms.not_after, usual.not_after),
        )  # fmt: skip
        return self.renew(consent.id, widened)

    def consents(self) -> list[OwnConsent]:
        """Return every consent of this vault, verified, ended ones included."""
        return self._consents.read()

    def terms_for(self, kind: ConsentKind, categories: Iterable[Category], data_from: Period | None = None) -> Terms:
        """Return the usual terms of a self or cohort consent: one year, all months that have keys.

        Args:
            kind: Self or cohort.
            categories: About what.
            data_from: First month; the first one with keys if not given.
        """
        wanted = list(categories)
        periods = [c.period for c in self._rings.read().ring.compartments.values() if c.category in wanted]
        now, this = unix_s(self._clock.now()), _this_month(self._clock)
        return own_terms(
            kind, self.profile.trust.issuer, wanted,
            data_from=data_from or min(periods, default=this), data_to=max(periods, default=this),
            not_before=now, not_after=now + YEAR_S,
        )  # fmt: skip

    def consent(self, consent_id: ConsentId) -> OwnConsent:
        """Return one consent of this vault, verified, ended or not."""
        return self._consents.get(consent_id)

    def notice(self, terms: Terms, company: str | None = None) -> str:
        """Return what the person must read before giving these terms; the grantee's name is looked up if not given."""
        return self._text(terms) if company is None else render(terms, company)

    def give(self, terms: Terms) -> Changed:
        """Give a self or cohort consent.

        Raises:
            NothingToGive: No keys of these categories and months exist.
            SealError: The service shows keys that the pinned operator did not sign.
            NoReceipt: The log does not show what was signed.
        """
        return self._consents.give(terms, render(terms))

    def read_request(self, unverified_jws: str) -> AskedBy:
        """Return what a company asks for, if its registered key signed it."""
        return verify_asked(self._api, unverified_jws)

    def give_company(self, asked: AskedBy, terms: Terms | None = None) -> Changed:
        """Give a company what it asked for, or less.

        Args:
            asked: From `read_request`.
            terms: Narrower terms; all that was asked if not given.

        Raises:
            As `give`.
        """
        granted = terms or asked.request.terms
        return self._consents.give(granted, render(granted, asked.company), asked.jws)

    def narrow(self, consent_id: ConsentId, terms: Terms) -> Changed:
        """Keep a consent inside narrower terms; keys beyond them are taken away."""
        consent = self._consents.get(consent_id)
        return self._changed(self._consents.amend(consent, ConsentEvent.NARROWED, terms, self._text(terms)))

    def renew(self, consent_id: ConsentId, terms: Terms | None = None, asked: AskedBy | None = None) -> Changed:
        """Renew a consent with fresh keys, under the same terms or, within what was asked, others.

        Args:
            consent_id: Which.
            terms: New terms; the old ones if not given.
            asked: A new request of the company, if it made one.
        """
        consent = self._consents.get(consent_id)
        granted = terms or consent.current.terms
        notice = render(granted, asked.company) if asked else self._text(granted)
        request = asked.jws if asked else ""
        return self._changed(self._consents.amend(consent, ConsentEvent.RENEWED, granted, notice, request))

    def withdraw(self, consent_id: ConsentId) -> Changed:
        """End a consent: nothing happens under it any more, its keys are gone, and new data gets new ones.

        Raises:
            UnknownConsent: This vault has no consent of that id.
            NoReceipt: The log does not show the withdrawal.
        """
        return self._changed(self._consents.withdraw(self._consents.get(consent_id)))

    def refresh(self) -> int:
        """Ask the worker to bring the twin up to date under the self consent; return the job's number."""
        answer = json_of(self._api.request("POST", f"{self._path}/refresh", auth=self._auth))
        return int(field(answer, "job", int))

    def twin(self) -> Any:
        """Return the twin's state: releases, what they cost, and the newest job."""
        return self._api.get(f"{self._path}/twin", auth=self._auth)

    def budget(self) -> Any:
        """Return what the days have cost so far, month by month, and the caps they stay under."""
        return self._api.get(f"{self._path}/budget", auth=self._auth)

    def ask(self, question: Question, question_id: bytes | None = None) -> VerifiedAnswer:
        """Ask one's own twin under the live self consent.

        Raises:
            UnknownConsent: No self consent is live.
            ApiError: The service denies it; the sentence names the rule.
            NoReceipt: The answer does not prove that it is in the log; it is not returned.
        """
        consent = self._self_consent()
        if consent is None:
            raise UnknownConsent("No self consent is live; run `twinvault owner give --kind self`.")
        question_id = question_id or token_bytes(ID_BYTES)
        body = dump_json(dump_question(question))
        response = self._api.request("PUT", answer_path(consent.id, question_id), auth=self._auth, content=body)
        found = verify_answered(
            response.content, self.profile.trust, consent=consent.id, question_id=question_id, question=question,
            requester=SELF_GRANTEE,
        )  # fmt: skip
        remember_checkpoint(self._api, self.profile, found.checkpoint)
        return found

    def history(self, after: int = -1) -> list[dict[str, Any]]:
        """Return who asked what and what was decided, from the log, oldest first.

        Args:
            after: Only events after this leaf index.
        """
        return read_history(self._api, self._auth, self._path, after)

    def close(self) -> None:
        """Close this machine's spool and give the connections back."""
        self._device.close()
        self._api.close()

    def _changed(self, changed: Changed) -> Changed:
        if changed.new_epoch:
            self._rings.next_epoch(changed.new_epoch, _this_month(self._clock))
        return changed

    def _person(self) -> Any:
        return self._api.get(f"{self._path}/person", auth=self._auth)

    def _self_consent(self) -> OwnConsent | None:
        live = (consent for consent in self._consents.read() if consent.live)
        return next((consent for consent in live if consent.current.terms.kind is ConsentKind.SELF), None)

    def _text(self, terms: Terms) -> str:
        """Return the notice of terms towards a known grantee, with the name from its own record."""
        if terms.kind is not ConsentKind.COMPANY:
            return render(terms)
        name, _ = verify_company(self._api.get(f"/v1/companies/{terms.grantee}"), terms.grantee)
        return render(terms, name)


def _this_month(clock: Clock) -> Period:
    return period_of(clock.now().date())
