"""The owner's side of a legacy: make a plan, hand out its shares, see how far it has come, withdraw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any, Final

import httpx

from twinvault.api import Api, ApiError, ClientError, field, json_of
from twinvault.keys import replaced_at
from twinvault.profile import Profile
from twinvault.receipts import NoReceipt, remember_checkpoint, verify_logged
from twinvault.shares import Share, split
from twinvault.vaults import Keys
from vault.clock import Clock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.proof.leaf import LeafKind
from vault.seal.advance import Advance
from vault.seal.dsse import Envelope, named_key, parse_envelope
from vault.seal.legacy import SECRET_BYTES, Choice, LegacyTerms, Plan, legacy_key, sign_plan, verify_plan
from vault.seal.statement import KeyName
from vault.seal.version import NO_PREV, Remembered

_PLAN: Final = "legacy"
_UNKNOWN: Final = "unknown-legacy"
_RUNNING: Final = frozenset({"waiting", "in-force"})


class NotHeeded(ClientError):
    """A sign of life that the service does not heed."""

    slug = "not-heeded"
    title = "Sign of life is not heeded"


@dataclass(frozen=True, slots=True)
class OwnLegacy:
    """The owner's newest plan, as its owner signed it.

    Args:
        plan: What it says.
        state: How far it has come, as the service says.
        until_s: When what the executors declared takes effect; 0 if they declared nothing.
        spent: How many consents sealed in advance can be given no more: the service's key that they were sealed to has
            been replaced, and who could seal them to the next one, has nothing of them.
    """

    plan: Plan
    state: str
    until_s: int
    spent: int


class Legacies:
    """The legacy of one vault.

    Args:
        api: The service.
        auth: The owner's session; opening it is a sign of life.
        profile: Pins the log, and remembers the newest plan.
        keys: The unlocked vault.
        clock: Tells the time.
    """

    def __init__(self, api: Api, auth: httpx.Auth, profile: Profile, keys: Keys, clock: Clock) -> None:
        self._api = api
        self._auth = auth
        self._profile = profile
        self._keys = keys
        self._clock = clock
        self._path = f"/v1/vaults/{b64u(keys.vault)}/legacy"

    def read(self) -> OwnLegacy | None:
        """Return the newest plan and how far it has come, or None if there never was one.

        Raises:
            RolledBack: The service shows an older plan than this client has seen.
            SealError: What it shows is not the owner's.
            NotHeeded: It says that a declaration goes on.
        """
        found = self._newest()
        if found is None:
            return None
        answer, _, plan = found
        if field(answer, "state") in _RUNNING:  # nothing can be declared while this session is open
            raise NotHeeded("The service goes on with what executors declared although you signed in; do not trust it.")
        return OwnLegacy(plan, field(answer, "state"), field(answer, "until", int), self._spent(plan))

    def plan(
        self,
        *,
        threshold: int,
        shares: int,
        waiting_days: int,
        choice: Choice = Choice.FREEZE,
        sealed: Sequence[Advance] = (),
        inactive_days: int = 0,
    ) -> list[Share]:
        """Put a plan in force in the place of the one before, and return its shares: they are kept nowhere.

        Args:
            threshold: How many executors it takes, at least 2.
            shares: How many there are, at most 16.
            waiting_days: From their declaration until it takes effect, 7 to 366.
            choice: What then happens.
            sealed: With `Choice.ANSWER`: consents that executors may then give, from `Owner.seal`.
            inactive_days: After how many days without a sign of life it begins by itself; 0 for never.

        Raises:
            SealError: Numbers outside these ranges.
            NoReceipt: The log does not show the plan.
        """
        secret = token_bytes(SECRET_BYTES)
        digests = tuple(item.version.digest for item in sealed)
        terms = LegacyTerms(
            legacy_key(secret).public_key, threshold, shares, waiting_days, choice, digests, inactive_days
        )
        vault, trust = self._keys.vault, self._profile.trust
        made = split(secret, trust, vault, threshold=threshold, shares=shares, sealed=sealed)
        self._publish(terms)
        return made

    def withdraw(self) -> None:
        """Take the plan back: its shares are good for nothing any more.

        Raises:
            ApiError: There is none.
            NoReceipt: The log does not show the withdrawal.
        """
        if self._newest() is None:
            raise ApiError(_UNKNOWN, 404, "This vault has no legacy plan.")
        self._publish(None)

    def _spent(self, plan: Plan) -> int:
        sealed = 0 if plan.terms is None else len(plan.terms.sealed)
        if sealed and plan.issued_at < replaced_at(self._api, self._profile, KeyName.SERVING, self._clock):
            return sealed
        return 0

    def _publish(self, terms: LegacyTerms | None) -> None:
        found = self._newest()
        version, prev = (1, NO_PREV) if found is None else (found[2].version + 1, found[1].digest)
        plan = Plan(self._keys.vault, version, prev, unix_s(self._clock.now()), terms)
        signed = sign_plan(plan, self._keys.signer)
        body = {"plan": b64u(signed.encoded)}
        done = json_of(self._api.request("PUT", self._path, auth=self._auth, json=body))
        logged = verify_logged(field(done, "receipt", dict), self._profile.trust)
        if (logged.kind, logged.personal.get("record")) != (LeafKind.LEGACY_PLAN.value, b64u(signed.digest)):
            raise NoReceipt("The log's entry is not about the plan that was signed.")
        remember_checkpoint(self._api, self._profile, logged.checkpoint)
        self._profile.remember(_PLAN, Remembered(version, signed.digest))

    def _newest(self) -> tuple[Any, Envelope, Plan] | None:
        try:
            answer = self._api.get(self._path, auth=self._auth)
        except ApiError as refusal:
            if refusal.slug != _UNKNOWN or self._profile.remembered(_PLAN) is not None:
                raise
            return None
        envelope = parse_envelope(parse_b64u(field(answer, "plan")))
        plan = verify_plan(envelope, named_key(envelope, self._keys.owner_keys), self._keys.vault)
        self._profile.remember(_PLAN, Remembered(plan.version, envelope.digest))
        return answer, envelope, plan
