"""What an owner decides: give, narrow, renew, withdraw, freeze, each after a notice made on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final

from twinvault.api import Api, ApiError, field, json_of
from twinvault.approvals import Approvals, Waiting
from twinvault.consent_receipts import ConsentReceipt, verify_consent_receipt
from twinvault.consents import Changed, ConsentKeeper, NothingToGive, OwnConsent
from twinvault.handed import Handed, former, verify_handed
from twinvault.keys import statement_of
from twinvault.notice import notice_of, render
from twinvault.profile import Profile
from twinvault.receipts import NoReceipt, remember_checkpoint, verify_logged
from twinvault.rings import RingKeeper
from twinvault.signin import SignedIn
from twinvault.terms import AskedBy, verify_asked, verify_company
from twinvault.vaults import Keys
from vault.clock import Clock, unix_s
from vault.encoding import b64u
from vault.errors import VaultError
from vault.proof.leaf import LeafKind
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent, Notice
from vault.schema.language import Language
from vault.schema.terms import ConsentKind, Terms
from vault.schema.trace import Period, period_of
from vault.seal.advance import Advance
from vault.seal.dsse import Envelope
from vault.seal.ids import ConsentId
from vault.seal.person import Profile as Person
from vault.seal.person import Role, sign_freeze, sign_profile

_FROZEN: Final = "frozen"


class Consenting:
    """The deciding half of an `Owner`.

    Args:
        api: The service.
        profile: The profile on this machine; names the owner's language.
        keys: The vault's secrets.
        clock: Tells the time.
        role: As what it signs in.
    """

    def __init__(self, api: Api, profile: Profile, keys: Keys, clock: Clock, role: Role = Role.OWNER) -> None:
        self.profile = profile
        self.language = Language(str(profile.record.get("language", Language.EN)))
        """In which language notices are shown and recorded."""
        self._api = api
        self._keys = keys
        self._clock = clock
        self._auth = SignedIn(profile.trust, keys.vault, keys.signer, role)
        self._rings = RingKeeper(api, self._auth, profile, keys, clock)
        self._consents = ConsentKeeper(api, self._auth, profile, keys, rings=self._rings, clock=clock)
        self._path = f"/v1/vaults/{b64u(keys.vault)}"
        self.approvals = Approvals(api, self._auth)

    def consents(self) -> list[OwnConsent]:
        """Return every consent of this vault, verified, ended ones included."""
        return self._consents.read()

    def grantees(self) -> list[str]:
        """Return to whom the service shows consents by this owner's keys, even if it does not show them whole."""
        return self._consents.grantees()

    def consent(self, consent_id: ConsentId) -> OwnConsent:
        """Return one consent of this vault, verified, ended or not."""
        return self._consents.get(consent_id)

    def notice(self, terms: Terms, company: str | None = None) -> str:
        """Return what the person must read before giving these terms; the grantee's name is looked up if not given."""
        return render(terms, self._name(terms) if company is None else company, self.language)

    def give(self, terms: Terms) -> Changed:
        """Give a self or cohort consent.

        Raises:
            NothingToGive: No keys of these categories and months exist.
            SealError: The service shows keys that the pinned operator did not sign.
            NoReceipt: The log does not show what was signed.
        """
        return self._consents.give(terms, self._shown(terms))

    def give_all(self, wanted: Iterable[Terms]) -> list[Changed]:
        """Give a self and a cohort consent at once, on one reading of what the service keeps.

        Raises:
            As `give`; those before stay given.
        """
        return self._consents.give_all([(terms, self._shown(terms)) for terms in wanted])

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
        return self._consents.give(granted, self._shown(granted, asked.company), asked.jws)

    def for_after_death(self, asked: AskedBy) -> Terms:
        """Return what a consent sealed in advance grants of what a company asks: what is for after death, and necessary.

        Raises:
            NothingToGive: The company asks for nothing after death.
        """
        wanted = asked.request.terms
        if not wanted.post_mortem:
            raise NothingToGive("The company asks for nothing after your death; only that can be sealed in advance.")
        return replace(
            wanted, purposes=wanted.post_mortem, optional=frozenset(), explicit_special=frozenset(),
            influence_opt_in=False, agent_allowed=False,
        )  # fmt: skip

    def seal(self, asked: AskedBy, terms: Terms) -> Advance:
        """Sign a consent in advance, for a legacy plan; nothing of it is in force, and it is sent to nobody.

        Args:
            asked: From `read_request`.
            terms: From `for_after_death`.

        Raises:
            NothingToGive: No keys of these categories and months exist.
            SealError: The service shows keys that the pinned operator did not sign.
        """
        return self._consents.seal(terms, self._shown(terms, asked.company), asked.jws)

    def ending(self) -> list[dict[str, Any]]:
        """Return the service's notices of consents that end within a week; `consents` shows the signed dates."""
        return list(field(self._api.get(f"{self._path}/history/ending", auth=self._auth), "ending", list))

    def requests(self) -> list[Waiting]:
        """Return what companies ask that this owner may decide now."""
        return self.approvals.waiting()

    def answer(self, waiting: Waiting, terms: Terms | None = None) -> Changed:
        """Give or renew what waits, or less, and say so: a browser that waits moves on.

        Args:
            waiting: From `requests`, or from `approvals.read` by a short code.
            terms: Narrower terms; all that was asked if not given.

        Raises:
            ApiError: It was answered, taken back or replaced meanwhile; a consent given for it does not stay.
            As `give`.
        """
        if waiting.renew is not None:
            changed = self.renew(waiting.renew, terms or waiting.asked.request.terms, waiting.asked)
            self.approvals.approve(waiting.name, waiting.renew)
            return changed
        changed = self.give_company(waiting.asked, terms)
        given = ConsentId(changed.version.consent_id)
        try:
            self.approvals.approve(waiting.name, given)
        except VaultError:
            self.withdraw(given)  # the company never got the code: nothing may stay open for it
            raise
        return changed

    def narrow(self, consent_id: ConsentId, terms: Terms) -> Changed:
        """Keep a consent inside narrower terms; keys beyond them are taken away."""
        consent = self._consents.get(consent_id)
        return self._changed(self._consents.amend(consent, ConsentEvent.NARROWED, terms, self._shown(terms)))

    def renew(self, consent_id: ConsentId, terms: Terms | None = None, asked: AskedBy | None = None) -> Changed:
        """Renew a consent with fresh keys, under the same terms or, within what was asked, others.

        Args:
            consent_id: Which.
            terms: New terms; the old ones if not given.
            asked: A new request of the company, if it made one.
        """
        consent = self._consents.get(consent_id)
        granted = terms or consent.current.terms
        notice = self._shown(granted, asked.company if asked else None)
        request = asked.jws if asked else ""
        return self._changed(self._consents.amend(consent, ConsentEvent.RENEWED, granted, notice, request))

    def withdraw(self, consent_id: ConsentId) -> Changed:
        """End a consent: nothing happens under it any more, its keys are gone, and new data gets new ones.

        Raises:
            UnknownConsent: This vault has no consent of that id.
            NoReceipt: The log does not show the withdrawal.
        """
        return self._changed(self._consents.withdraw(self._consents.get(consent_id)))

    def close_former(self) -> tuple[Category, ...]:
        """Replace the keys of the months to come of each category that no self or cohort consent hands over any more.

        Whatever ended that: this owner, somebody else, time, or a run that broke off before it came to this. Once done,
        it is remembered.
        """
        found = former(self.consents(), unix_s(self._clock.now()))
        due = {name: seen for name, seen in found.items() if self.profile.remembered(f"former/{name}") != seen}
        if due:
            self._rings.next_epoch(due, this_month(self._clock))
            self.profile.remember_all({f"former/{name}": seen for name, seen in due.items()})
        return tuple(sorted(due))

    def receipt(self, consent_id: ConsentId, version: int) -> tuple[ConsentReceipt, Any]:
        """Return a version's receipt, verified, and its JSON form to keep: it holds without the service."""
        path = f"{self._path}/consents/{b64u(consent_id)}/versions/{version}/receipt"
        shown = self._api.get(path, auth=self._auth)
        owned = next((item for item in self._consents.get(consent_id).versions if item.version == version), None)
        if owned is None:
            raise NoReceipt("The service returned the receipt of a version that the consent does not have.")
        kept = {**shown, "company": self._name(owned.terms)}
        if not owned.event.by_person:
            kept["signer"] = statement_of(self._api, self.profile, self._consents.signer_of(shown))
        found = verify_consent_receipt(kept, self.profile.trust)
        if (found.version.consent_id, found.version.version) != (consent_id, version):
            raise NoReceipt("The service returned the receipt of another version.")
        return found, kept

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
        self._require_logged(done, LeafKind.FREEZE, order)

    def person(self) -> Person:
        """Return what the rules go by about the owner, as the service keeps it."""
        return _person_in(self._person())

    def declare(self, person: Person) -> None:
        """Sign and log what the rules go by about the owner from now on; nothing decided before it is answered."""
        sequence = field(self._person(), "sequence", int) + 1
        signed = sign_profile(self._keys.signer, person, vault_id=self._keys.vault, sequence=sequence)
        body = {"profile": b64u(signed.encoded)}
        done = json_of(self._api.request("POST", f"{self._path}/profiles", auth=self._auth, json=body))
        if _person_in(done) != person:
            raise ApiError("unexpected-answer", 200, "The service did not put the profile in force.")
        self._require_logged(done, LeafKind.PROFILE, signed)

    def handed_over(self, consent_id: ConsentId) -> list[Handed]:
        """Return which of the service's keys hold the keys that a consent handed over, verified step by step.

        Raises:
            BrokenChain: They do not descend from what this owner handed over.
            NoReceipt: The log does not show a step.
            SealError: A signature that does not hold.
        """
        shown = field(
            self._api.get(f"{self._path}/consents/{b64u(consent_id)}/handovers", auth=self._auth), "handovers", list
        )
        keys, api = self._keys, self._api
        return [
            verify_handed(item, api, self.profile, vault=keys.vault, owner_keys=keys.owner_keys, consent=consent_id)
            for item in shown
        ]

    def companies(self, grantees: Iterable[str]) -> dict[str, str]:
        """Return the names of companies, each from its own signed record, by their ids.

        Raises:
            BadRequest: A record is not the company's.
        """
        return {one: self._company(one) for one in dict.fromkeys(grantees)}

    def _require_logged(self, done: Any, kind: LeafKind, signed: Envelope) -> None:
        shown = verify_logged(field(done, "receipt", dict), self.profile.trust)
        if (shown.kind, shown.personal.get("record")) != (kind.value, b64u(signed.digest)):
            raise NoReceipt("The log's entry is not about the order that was signed.")
        remember_checkpoint(self._api, self.profile, shown.checkpoint)

    def _person(self) -> Any:
        return self._api.get(f"{self._path}/person", auth=self._auth)

    def _changed(self, changed: Changed) -> Changed:
        if changed.version.terms.kind is ConsentKind.COMPANY:
            return changed
        return replace(changed, new_epoch=self.close_former())

    def _shown(self, terms: Terms, company: str | None = None) -> Notice:
        return notice_of(self.notice(terms, company), self.language)

    def _name(self, terms: Terms) -> str:
        """Return a company's name from its own record; self and cohort consents name nobody."""
        if terms.kind is not ConsentKind.COMPANY:
            return ""
        return self._company(terms.grantee)

    def _company(self, company_id: str) -> str:
        name, _ = verify_company(self._api.get(f"/v1/companies/{company_id}"), company_id)
        return name


def this_month(clock: Clock) -> Period:
    """Return the calendar month of a clock."""
    return period_of(clock.now().date())


def _person_in(answer: Any) -> Person:
    flags = field(answer, "profile", dict)
    return Person(**{one.name: bool(field(flags, one.name, int)) for one in fields(Person)})
