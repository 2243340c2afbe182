"""An owner with a plan and executors with shares, as their own clients act, at a service whose clock a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from tests.vault_kit import NOW, Owner, begin
from vault.clock import unix_s
from vault.db import Database
from vault.legacy import legacies, steps
from vault.legacy.steps import Legacy
from vault.parties import people
from vault.parties.people import Person
from vault.parties.sessions import SESSION_S, SignInDesk
from vault.seal.dsse import Envelope
from vault.seal.ids import key_id, new_id
from vault.seal.legacy import Act, Choice, LegacyTerms, Plan, Statement, legacy_key, sign_plan, sign_statement
from vault.seal.person import Role, SignIn, sign_sign_in
from vault.seal.signing import SigningKey, new_seed
from vault.seal.version import NO_PREV
from vault.store import devices
from vault.tlog.log import PendingId

ORIGIN = "https://vault.example"
DAY = timedelta(days=1)
LATER = NOW + timedelta(seconds=SESSION_S)
"""When the session is over in which an owner made the plan."""


@dataclass
class Heirs:
    """One owner, the newest plan, and the secret that its executors share."""

    database: Database
    shortkeys: Database
    secret: bytes = field(default_factory=new_seed)
    owner: Owner = field(init=False)
    version: int = 0
    prev: bytes = NO_PREV

    def __post_init__(self) -> None:
        self.owner, self.source = begin(self.database, self.shortkeys)
        self.desk = SignInDesk(
            ORIGIN, b"s" * 32, devices.live_key, partial(legacies.sign_of_life, service=SigningKey(new_seed()))
        )

    @property
    def key(self) -> SigningKey:
        return legacy_key(self.secret)

    @property
    def id(self) -> bytes:
        return key_id(self.key.public_key)

    def terms(self, **changed: Any) -> LegacyTerms:
        values: dict[str, Any] = {
            "legacy_key": self.key.public_key,
            "threshold": 2,
            "shares": 3,
            "waiting_days": 30,
            "choice": Choice.FREEZE,
        }
        return LegacyTerms(**values | changed)

    def plan(self, terms: LegacyTerms | None, now: datetime = NOW) -> Envelope:
        """Sign the next version."""
        return sign_plan(Plan(self.owner.vault, self.version + 1, self.prev, unix_s(now), terms), self.owner.key)

    def publish(self, envelope: Envelope | None = None, now: datetime = NOW, **changed: Any) -> Envelope:
        """Put a plan in force, as the route does."""
        envelope = envelope or self.plan(self.terms(**changed), now)
        with self.database.transaction() as session:
            legacies.publish(session, self.owner.vault, envelope, now=now)
        self.version, self.prev = self.version + 1, envelope.digest
        return envelope

    def statement(self, signer: SigningKey | None = None, now: datetime = LATER, **changed: Any) -> Envelope:
        """Sign what executors state; `changed` forges fields of it."""
        honest = Statement(self.owner.vault, self.prev, new_id(), Act.DECLARE, "gone", unix_s(now))
        return sign_statement(replace(honest, **changed), signer or self.key)

    def declare(self, envelope: Envelope | None = None, now: datetime = LATER) -> Legacy:
        envelope = envelope or self.statement(now=now)
        with self.database.transaction() as session:
            return legacies.declare(session, self.id, envelope, now=now)

    def answered(self, now: datetime, signer: SigningKey | None = None, role: Role = Role.OWNER) -> Envelope:
        """Answer a sign-in challenge."""
        device = self.source.device.id if role is Role.DEVICE else None
        nonce = self.desk.challenge(self.owner.vault, role, now=now)
        return sign_sign_in(signer or self.owner.key, SignIn(self.owner.vault, role, device, nonce, ORIGIN))

    def sign_in(self, now: datetime, signer: SigningKey | None = None, role: Role = Role.OWNER) -> str:
        answer = self.answered(now, signer, role)
        with self.database.transaction() as session:
            return self.desk.sign_in(session, answer, now=now)

    def take_effect(self, now: datetime) -> int:
        return legacies.take_effect_due(self.database, now=now)

    @property
    def now(self) -> Legacy:
        with self.database.snapshot() as session:
            found = steps.find(session, self.owner.vault)
        assert found is not None
        return found

    @property
    def person(self) -> Person:
        with self.database.snapshot() as session:
            return people.get(session, self.owner.vault)

    def steps(self) -> list[str]:
        """Return the kinds of the leaves about the legacy and the freeze, in order."""
        with self.database.snapshot() as session:
            kinds = session.connection().exec_driver_sql("SELECT kind FROM log_entry ORDER BY id").scalars()
            return [kind for kind in kinds if kind.startswith("legacy-") or kind == "freeze"]


def leaf_ids(heirs: Heirs) -> list[PendingId]:
    """Return the leaves that a signed record is kept for."""
    with heirs.database.snapshot() as session:
        return sorted(steps.records(session, heirs.owner.vault))
