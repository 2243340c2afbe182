"""The owner's client: holds the root in memory, believes no server, and is the only one that opens everything.

owner = Owner.unlock(Profile.load(folder), passphrase="...")
owner.import_traces(traces)
asked = owner.read_request(jws)
owner.give_company(asked)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from twinvault.api import Api, ClientError, field, json_of
from twinvault.closing import Closing
from twinvault.consenting import Consenting, this_month
from twinvault.consents import Changed, OwnConsent, UnknownConsent
from twinvault.device import Device, Flushed
from twinvault.erasures import Erasures
from twinvault.history import follow_history, read_history
from twinvault.legacy import Legacies
from twinvault.profile import Profile
from twinvault.receipts import VerifiedAnswer, answer_path, remember_checkpoint, verify_answered
from twinvault.successions import replace_owner_key
from twinvault.terms import YEAR_S, own_terms
from twinvault.vaults import Keys, create_vault, recover_vault, unlock_vault
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import b64u, dump_json
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category
from vault.schema.freshness import Freshness
from vault.schema.language import Language
from vault.schema.question import Question, dump_question
from vault.schema.terms import SELF_GRANTEE, ConsentKind, Terms
from vault.schema.trace import Period, Trace, periods_from
from vault.seal.device import Device as RingDevice
from vault.seal.device import DeviceRole
from vault.seal.ids import DeviceId, VaultId, new_id
from vault.seal.kit import RecoveryKit
from vault.seal.person import Profile as Person
from vault.seal.person import Role
from vault.seal.ring import MONTHS_AHEAD
from vault.seal.signing import SigningKey
from vault.seal.slot import passphrase_key, recovery_key

_FIRST_COMPARTMENTS: Final = 80  # as many as the service takes, with their keys, of somebody whom it does not know yet
_READ_BACK: Final = 24  # months: a trace with a wrong year must not publish keys of centuries


class Owner(Consenting):
    """One unlocked vault; make it with `init`, `unlock` or `recover`.

    Args:
        api: The service.
        profile: The profile on this machine.
        keys: The vault's secrets.
        clock: Tells the time.
        role: `Role.WATCHER` for a program that reads the history while the owner is away.
    """

    def __init__(self, api: Api, profile: Profile, keys: Keys, clock: Clock, role: Role = Role.OWNER) -> None:
        super().__init__(api, profile, keys, clock, role)
        self._device = Device(profile, api, clock)
        self.erasures = Erasures(self, api, self._auth, profile, keys, rings=self._rings, clock=clock)
        self.legacy = Legacies(api, self._auth, profile, keys, clock)

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
        language: Language = Language.EN,
        api: Api | None = None,
        clock: Clock | None = None,
    ) -> tuple[Owner, RecoveryKit]:
        """Begin a vault with its own device and compartments for the coming year.

        Of many categories, the later months follow once the vault is there; what of them does not get through, an
        import brings, or `cover`.

        Args:
            folder: Where its profile will lie on this machine.
            trust: The keys to pin.
            passphrase: Opens it on this machine; None for a vault that only the recovery kit opens.
            categories: What may be sealed from the start.
            time_zone: IANA name; decides the local date of every trace, for good.
            person: Adult and alive if not given.
            language: In which notices are shown and recorded.
            api: The service; the trust file's issuer if not given.
            clock: The machine's own if not given.

        Returns:
            The unlocked vault, and the recovery kit: print it, it is kept nowhere.

        Raises:
            ApiError: The service refuses.
            BadProfile: The folder exists.
        """
        api, clock, named = api or Api(trust.issuer), clock or SystemClock(), list(categories)
        periods = periods_from(this_month(clock), MONTHS_AHEAD + 1)
        first = periods[: max(1, _FIRST_COMPARTMENTS // max(1, len(named)))]
        profile, keys, kit = create_vault(
            api, folder, trust, passphrase=passphrase, time_zone=time_zone, categories=named, periods=first,
            person=person or Person(), language=language, clock=clock,
        )  # fmt: skip
        owner = cls(api, profile, keys, clock)
        if first != periods:
            with suppress(ClientError):  # the vault is there, and its kit must reach its owner
                owner.publish(named, periods)
        return owner, kit

    @classmethod
    def unlock(
        cls,
        profile: Profile,
        *,
        passphrase: str | None = None,
        kit: RecoveryKit | None = None,
        api: Api | None = None,
        clock: Clock | None = None,
        role: Role = Role.OWNER,
    ) -> Owner:
        """Open the profile's vault by passphrase, or by its recovery kit.

        With `Role.WATCHER` it only reads the history, and is no sign of life of its owner.

        Raises:
            ApiError: Wrong passphrase or kit (`not-stored`), or the service refuses.
            SealError: The service returned something forged or older than before.
        """
        api, clock = api or Api(profile.trust.issuer), clock or SystemClock()
        secret = profile.binary("device_secret", 16)
        if kit is None:
            keys = unlock_vault(api, profile, passphrase_key(passphrase or "", secret))
        else:
            keys = unlock_vault(api, profile, recovery_key(kit.recovery_code))
            if kit.device_secret != secret:  # the owner key was replaced on another machine
                profile.keep({"device_secret": b64u(kit.device_secret)})
        return cls(api, profile, keys, clock, role)

    @classmethod
    def succeed(
        cls,
        profile: Profile,
        kit: RecoveryKit,
        new_kit: RecoveryKit,
        *,
        passphrase: str | None = None,
        restored: bool = False,
        api: Api | None = None,
        clock: Clock | None = None,
    ) -> Owner:
        """Replace the owner key, which may be stolen, by the kit's; see `successions.replace_owner_key`."""
        api, clock = api or Api(profile.trust.issuer), clock or SystemClock()
        keys = replace_owner_key(
            api, profile, kit, new_kit, passphrase=passphrase, restored=restored, clock=clock
        )  # fmt: skip
        return cls(api, profile, keys, clock)

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

    def revoke_device(self, device: DeviceId, *, at_once: bool = False) -> RingDevice:
        """End a device for good; see `RingKeeper.revoke`."""
        return self._rings.revoke(device, at_once=at_once)

    def publish(self, categories: Iterable[Category], periods: Iterable[Period]) -> bool:
        """Make sure that each month has keys for each category; say whether any were missing."""
        return self._rings.publish_months(categories, periods)

    def import_traces(self, traces: Iterable[Trace], progress: Callable[[int], None] | None = None) -> Flushed:
        """Seal and send traces through this machine's device, and let the live self consent cover their months.

        A month between theirs that left no trace gets keys too, so that it has a row like any other: which months
        were empty is nobody's business, and a chain of daily rows goes on through them.

        Args:
            traces: From an importer, or any other source.
            progress: Called with the number of traces that each upload brought home.

        Raises:
            ApiError: The service refuses.
            Unreachable: No answer; the traces stay in the spool, and running it again sends them.
        """
        device = self._device
        device.add(traces)
        self.close_former()  # before anything is sealed
        for category, periods in device.months().items():
            self.publish([category], periods | _between(periods))
        flushed = device.flush(progress)
        self.cover()
        return flushed

    def cover(self) -> Changed | None:
        """Publish the coming year and renew the self consent, if it lacks keys that the ring has.

        Other consents that an erasure left without keys get those of what is left first.

        Returns:
            The renewal, or None where nothing was missing or no self consent is live.
        """
        self.erasures.hand_out_again()
        consent = self.self_consent()
        if consent is None:
            return None
        terms = consent.current.terms
        self.publish(terms.categories, periods_from(this_month(self._clock), MONTHS_AHEAD + 1))
        if self._consents.handed_over(consent):
            return None
        usual = self.terms_for(ConsentKind.SELF, terms.categories)
        widened = replace(
            terms, data_from=min(terms.data_from, usual.data_from), data_to=max(terms.data_to, usual.data_to),
            not_after=max(terms.not_after, usual.not_after),
        )  # fmt: skip
        return self.renew(consent.id, widened)

    def terms_for(self, kind: ConsentKind, categories: Iterable[Category], data_from: Period | None = None) -> Terms:
        """Return the usual terms of a self or cohort consent: one year, all months that have keys.

        Args:
            kind: Self or cohort.
            categories: About what.
            data_from: First month; the first one with keys if not given.
        """
        wanted = list(categories)
        periods = [c.period for c in self._rings.read().ring.compartments.values() if c.category in wanted]
        now, this = unix_s(self._clock.now()), this_month(self._clock)
        return own_terms(
            kind, self.profile.trust.issuer, wanted,
            data_from=data_from or min(periods, default=this), data_to=max(periods, default=this),
            not_before=now, not_after=now + YEAR_S,
        )  # fmt: skip

    def refresh(self) -> int:
        """Ask the worker to bring the twin up to date under the self consent; return the job's number.

        Consents that an erasure left without keys get those of what is left first.
        """
        self.erasures.hand_out_again()
        answer = json_of(self._api.request("POST", f"{self._path}/refresh", auth=self._auth))
        return int(field(answer, "job", int))

    def twin(self) -> Any:
        """Return the twin's state: releases, what they cost, and the newest job."""
        return self._api.get(f"{self._path}/twin", auth=self._auth)

    def closing(self) -> Closing:
        """Return when days close: what comes after a day's row is made is in no answer."""
        return Closing.of(field(self.twin(), "freshness", dict))

    def choose_freshness(self, freshness: Freshness) -> Closing:
        """Let days close one by one, by weeks or by months, from now on; days that have their row keep it."""
        body = {"freshness": freshness}
        return Closing.of(json_of(self._api.request("PUT", f"{self._path}/freshness", auth=self._auth, json=body)))

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
        consent = self.self_consent()
        if consent is None:
            raise UnknownConsent("No self consent is live; run `twinvault owner give --kind self`.")
        question_id = question_id or new_id()
        body = dump_json(dump_question(question))
        response = self._api.request("PUT", answer_path(consent.id, question_id), auth=self._auth, content=body)
        found = verify_answered(
            response.content, self.profile.trust, consent=consent.id, question_id=question_id, question=question,
            requester=SELF_GRANTEE,
        )  # fmt: skip
        remember_checkpoint(self._api, self.profile, found.checkpoint)
        return found

    def history(self, after: int = -1) -> list[dict[str, Any]]:
        """Return who asked what and what was decided, from the log, oldest first, in the owner's language.

        Args:
            after: Only events after this leaf index.
        """
        return read_history(self._api, self._auth, self._path, after, self.language)

    def follow(self, after: int = -1) -> Iterator[dict[str, Any]]:
        """Yield the same, and then each event as it is logged, without end."""
        return follow_history(self._api, self._auth, self._path, after, self.language)

    def close(self) -> None:
        """Close this machine's spool and give the connections back."""
        self._device.close()
        self._api.close()

    def self_consent(self) -> OwnConsent | None:
        """Return the self consent that is live; None without one."""
        live = (consent for consent in self._consents.read() if consent.live)
        return next((consent for consent in live if consent.current.terms.kind is ConsentKind.SELF), None)


def _between(periods: set[Period]) -> set[Period]:
    """Return the months from the first to the last of some, as far back from the last as a backbone reads."""
    first, last = min(periods), max(periods)
    count = 12 * (int(last[:4]) - int(first[:4])) + int(last[5:]) - int(first[5:]) + 1
    return set(periods_from(first, count)[-_READ_BACK:])
