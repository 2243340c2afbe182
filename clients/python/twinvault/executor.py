"""The executors' side of a legacy: look with one share, act with enough of them.

executor = Executor([parse_share(data) for data in files])
executor.declare("We buried her on Monday.")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twinvault.api import Api, ClientError, field, json_of
from twinvault.erasures import ErasedForGood, Expected, ForgedCertificate, verify_erased
from twinvault.receipts import NoReceipt, verify_logged
from twinvault.shares import BadShare, Share, combine
from vault.clock import Clock, SystemClock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.proof.bundle import parse_bundle
from vault.proof.leaf import LeafKind
from vault.proof.report import Report
from vault.proof.verify import verify_bundle
from vault.schema.consent import parse_consent
from vault.seal.advance import unlock_advance
from vault.seal.dsse import Envelope, parse_envelope, unverified_record
from vault.seal.erasure import Author, Scope
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, VaultId, new_id
from vault.seal.legacy import Act, LegacyTerms, Plan, Statement, legacy_key, sign_statement, verify_plan
from vault.seal.person import verify_identity


class NotThePlan(ClientError):
    """What the service shows is not the plan that the shares are of."""

    slug = "not-the-plan"
    title = "Not the plan of these shares"


@dataclass(frozen=True, slots=True)
class Seen:
    """The plan that a share is of, as its owner signed it.

    Args:
        plan: What it says.
        terms: The same, as it was not withdrawn.
        digest: SHA-256 of the signed plan, which every statement names.
        state: How far it has come, as the service says; `bundle` proves it.
        claim: The declaration that is waiting or in force; empty before any.
        until_s: When it takes effect; 0 before any.
    """

    plan: Plan
    terms: LegacyTerms
    digest: bytes
    state: str
    claim: bytes
    until_s: int


class Executor:
    """What holders of shares do.

    Args:
        shares: One to look, as many as the plan takes to act.
        api: The service; the issuer that the owner pinned if not given.
        clock: The machine's own if not given.

    Raises:
        BadShare: No share at all.
    """

    def __init__(self, shares: Sequence[Share], api: Api | None = None, clock: Clock | None = None) -> None:
        if not shares:
            raise BadShare("Name at least one share.")
        self._shares = shares
        self._first = shares[0]
        self.trust = self._first.trust
        self._api = api or Api(self.trust.issuer)
        self._clock = clock or SystemClock()
        self._path = f"/v1/legacies/{b64u(self._first.legacy_id)}"

    @property
    def vault(self) -> VaultId:
        """About whose vault."""
        return self._first.vault

    def look(self) -> Seen:
        """Return the plan and how far it has come; one share is enough.

        Raises:
            ApiError: The owner changed or withdrew the plan, or the vault was erased.
            NotThePlan: The service shows another plan than that of the shares.
            SealError: What it shows was not signed by the vault's owner.
        """
        return self._seen(self._api.get(self._path))

    def declare(self, reason: str = "") -> Seen:
        """Declare that the owner is gone: the waiting period begins, and the owner is told.

        Args:
            reason: For the owner to read, at most 200 characters.

        Raises:
            BadShare: Too few shares, or not of one plan.
            ApiError: The plan is waiting, in force or ended already, or the owner is signed in.
            NoReceipt: The log does not show the declaration.
        """
        seen = self.look()
        statement = self._sign(seen, Act.DECLARE, new_id(), reason)
        body = {"statement": b64u(statement.encoded)}
        done = json_of(self._api.request("POST", f"{self._path}/declarations", json=body, repeatable=True))
        logged = verify_logged(field(done, "receipt", dict), self.trust)
        if (logged.kind, logged.personal.get("record")) != (LeafKind.LEGACY_CLAIM.value, b64u(statement.digest)):
            raise NoReceipt("The log's entry is not about what was declared.")
        return self.look()

    def erase(self, reason: str = "") -> ErasedForGood:
        """Erase everything that is kept about the owner, for good; the certificate is what is left.

        Args:
            reason: For the certificate, at most 200 characters.

        Raises:
            BadShare: Too few shares, or not of one plan.
            ApiError: The plan does not allow it, or its waiting period has not passed.
            ForgedCertificate: The service does not prove it, or not that it followed from the owner's plan.
        """
        seen = self.look()
        statement = self._sign(seen, Act.ERASE, seen.claim or new_id(), reason)
        body = {"statement": b64u(statement.encoded)}
        done = json_of(self._api.request("POST", f"{self._path}/erasures", json=body, repeatable=True))
        scope = Scope(self._first.vault, None)
        wanted = Expected(seen.claim, scope, Author.EXECUTORS, statement.digest)
        erased = verify_erased(self._api, self, done, wanted, self._clock)
        if "bundle" not in done:  # it was carried out before, and what proved that went with the vault
            return erased
        proven = field(done, "bundle", str).encode()
        failures = verify_bundle(parse_bundle(proven), self.trust).failures
        if failures:
            raise ForgedCertificate(f"The erasure does not follow from the owner's plan: {failures[0].detail}")
        return replace(erased, steps=proven)

    def freeze(self, reason: str = "") -> None:
        """Freeze a vault that answers after death, once the declaration is in force; nothing is answered any more.

        Args:
            reason: At most 200 characters.

        Raises:
            BadShare: Too few shares, or not of one plan.
            ApiError: The waiting period has not passed, or the owner ended it.
            NoReceipt: The log does not show it.
        """
        seen = self.look()
        statement = self._sign(seen, Act.FREEZE, seen.claim or new_id(), reason)
        body = {"statement": b64u(statement.encoded)}
        done = json_of(self._api.request("POST", f"{self._path}/freezes", json=body, repeatable=True))
        logged = verify_logged(field(done, "receipt", dict), self.trust)
        if (logged.kind, logged.personal.get("record")) != (LeafKind.FREEZE.value, b64u(statement.digest)):
            raise NoReceipt("The log's entry is not about the order that was signed.")

    def open_sealed(self) -> list[ConsentId]:
        """Give the consents that the owner sealed in advance, once the declaration is in force.

        Returns:
            Their ids: tell each company its own, to ask under.

        Raises:
            BadShare: Too few shares, not of one plan, or what they hold sealed does not open.
            ApiError: The plan names nothing to open, its waiting period has not passed, or the service has newer keys
                than the consents were sealed to.
            NoReceipt: The log does not show it.
        """
        seen = self.look()
        secret = combine(self._shares)
        try:
            sealed = [unlock_advance(item, secret, self.vault) for item in self._first.sealed]
        except SealError as error:
            raise BadShare("What the share holds sealed does not open under these shares.") from error
        if not sealed:
            raise BadShare("The owner sealed no consent in advance.")
        statement = self._sign(seen, Act.OPEN, seen.claim or new_id(), "")
        body = {"statement": b64u(statement.encoded), "sealed": [b64u(item.encoded) for item in sealed]}
        done = json_of(self._api.request("POST", f"{self._path}/openings", json=body, repeatable=True))
        logged = verify_logged(field(done, "receipt", dict), self.trust)
        named = logged.personal.get("consents")
        given = {b64u(item.version.digest) for item in sealed}
        if logged.kind != LeafKind.LEGACY_OPEN.value or not isinstance(named, list) or given != {*map(str, named)}:
            raise NoReceipt("The log's entry is not about what was opened.")
        return [ConsentId(parse_consent(unverified_record(item.version)).consent_id) for item in sealed]

    def bundle(self) -> tuple[bytes, Report]:
        """Return the proof of every step so far, to keep, and what verifying it against the pinned keys found."""
        data = self._api.request("GET", f"{self._path}/bundle").content
        return data, verify_bundle(parse_bundle(data), self.trust)

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    def _sign(self, seen: Seen, act: Act, claim: bytes, reason: str) -> Envelope:
        key = legacy_key(combine(self._shares))
        said = Statement(self._first.vault, seen.digest, claim, act, reason, unix_s(self._clock.now()))
        return sign_statement(said, key)

    def _seen(self, answer: Any) -> Seen:
        share, envelope = self._first, parse_envelope(parse_b64u(field(answer, "plan")))
        identity = [parse_envelope(parse_b64u(item)) for item in field(answer, "identity", list)]
        plan = _plan_of(envelope, verify_identity(identity, share.vault), share)
        if plan.terms is None or (plan.terms.legacy_key, plan.terms.threshold) != (share.legacy_key, share.threshold):
            raise NotThePlan("The service shows another plan than the one that this share is of.")
        claim = parse_b64u(field(answer, "claim"))
        return Seen(plan, plan.terms, envelope.digest, field(answer, "state"), claim, field(answer, "until", int))


def _plan_of(envelope: Envelope, owner_keys: Sequence[bytes], share: Share) -> Plan:
    """Return a plan that the owner key in force, or one before it, signed."""
    for key in reversed(owner_keys[1:]):
        try:
            return verify_plan(envelope, key, share.vault)
        except SealError:
            continue
    return verify_plan(envelope, owner_keys[0], share.vault)
