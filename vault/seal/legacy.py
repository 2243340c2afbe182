"""What becomes of a vault without its owner: the owner's plan, and what the executors' legacy key states.

The legacy key is split among the executors; put together it signs statements and opens nothing. A statement names
the plan that it invokes, so that none outlives its plan, and a claim, so that each is followed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vault.clock import DAY_S
from vault.encoding import JsonObject, b64u
from vault.seal.derive import derive
from vault.seal.dsse import Envelope, PayloadType, sign_record, unverified_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields, parse_hash
from vault.seal.ids import VaultId
from vault.seal.signing import Signer, SigningKey
from vault.seal.version import parse_version

SECRET_BYTES: Final = 32
LEAST_THRESHOLD: Final = 2
"""One executor alone never suffices."""

MOST_SHARES: Final = 16
LEAST_WAITING_DAYS: Final = 7
MOST_WAITING_DAYS: Final = 366
LEAST_INACTIVE_DAYS: Final = 30
MOST_INACTIVE_DAYS: Final = 3_660
MOST_SEALED: Final = 16
MAX_REASON: Final = 200


class Choice(StrEnum):
    """What the owner wants once the waiting period has passed.

    Frozen, as by default; frozen and erasable by the executors; or answering for what stays allowed after death.
    """

    FREEZE = "freeze"
    ERASE = "erase"
    ANSWER = "answer"


class Act(StrEnum):
    """What executors state."""

    DECLARE = "declare"
    FREEZE = "freeze"
    ERASE = "erase"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class LegacyTerms:
    """Who may declare that the owner is gone, and what follows.

    Args:
        legacy_key: Ed25519 public key, 32 bytes; its seed comes from the secret that the executors share.
        threshold: How many of them it takes, 2 to `shares`.
        shares: How many there are, at most 16.
        waiting_days: From the declaration until it takes effect, 7 to 366.
        choice: What then happens.
        sealed: SHA-256 of the signed first version of each consent sealed in advance, which may then be given; at most
            16, and none unless the choice is to answer.
        inactive_days: After how many days without a sign of life the waiting period begins by itself, and only a freeze
            follows; 0 for never.

    Raises:
        SealError: Numbers outside these ranges, or consents that do not go with the choice.
    """

    legacy_key: bytes
    threshold: int
    shares: int
    waiting_days: int
    choice: Choice = Choice.FREEZE
    sealed: tuple[bytes, ...] = ()
    inactive_days: int = 0

    def __post_init__(self) -> None:
        if not LEAST_THRESHOLD <= self.threshold <= self.shares <= MOST_SHARES:
            raise SealError(f"A legacy takes {LEAST_THRESHOLD} or more of at most {MOST_SHARES} executors.")
        if not LEAST_WAITING_DAYS <= self.waiting_days <= MOST_WAITING_DAYS:
            raise SealError(f"A legacy waits {LEAST_WAITING_DAYS} to {MOST_WAITING_DAYS} days before it takes effect.")
        if self.inactive_days and not LEAST_INACTIVE_DAYS <= self.inactive_days <= MOST_INACTIVE_DAYS:
            raise SealError(
                f"A plan begins by itself after {LEAST_INACTIVE_DAYS} to {MOST_INACTIVE_DAYS} days, or never."
            )
        if len(set(self.sealed)) != len(self.sealed) or len(self.sealed) > MOST_SEALED:
            raise SealError(f"A plan names each consent sealed in advance once, and at most {MOST_SEALED} of them.")
        if self.sealed and self.choice is not Choice.ANSWER:
            raise SealError("Only a plan whose choice is to answer names consents sealed in advance.")

    @property
    def waiting_s(self) -> int:
        """From the declaration until it takes effect, seconds."""
        return self.waiting_days * DAY_S

    @property
    def inactive_s(self) -> int:
        """How long without a sign of life until the waiting period begins by itself, seconds; 0 for never."""
        return self.inactive_days * DAY_S


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of an owner's plan.

    Args:
        vault: Whose.
        version: 1, 2, ...
        prev: Digest of the envelope of the version before.
        issued_at: Unix seconds.
        terms: None where the owner withdraws the plan.
    """

    vault: VaultId
    version: int
    prev: bytes
    issued_at: int
    terms: LegacyTerms | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What enough executors say together.

    Args:
        vault: About whose vault.
        plan: Digest of the envelope of the plan that they invoke.
        claim: 16 random bytes that name this declaration, and all that follows from it.
        act: What they declare or order.
        reason: In their words, may be empty.
        issued_at: Unix seconds.
    """

    vault: VaultId
    plan: bytes
    claim: bytes
    act: Act
    reason: str
    issued_at: int


def legacy_key(secret: bytes) -> SigningKey:
    """Return the key that executors sign with, from the secret that they share.

    Raises:
        SealError: The secret is too short.
    """
    return SigningKey(derive(secret, "legacy"))


def sign_plan(plan: Plan, owner: Signer) -> Envelope:
    """Return a plan under the owner's key."""
    terms = plan.terms
    record: JsonObject = {
        "vault": b64u(plan.vault),
        "version": plan.version,
        "prev": b64u(plan.prev),
        "issued_at": plan.issued_at,
        "terms": {} if terms is None else _dump_terms(terms),
    }
    return sign_record(PayloadType.EXECUTORS, record, owner)


def verify_plan(envelope: Envelope, owner_key: bytes, vault: VaultId) -> Plan:
    """Return a plan that the vault's owner signed.

    Args:
        envelope: What arrived.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        vault: Whose plan it is to be.

    Raises:
        SealError: Malformed, another vault's, or signed by another key.
    """
    verify_envelope(envelope, PayloadType.EXECUTORS, owner_key)
    return parse_plan(envelope, vault)


def parse_plan(envelope: Envelope, vault: VaultId) -> Plan:
    """Return what a plan says; its signature is not checked.

    Raises:
        SealError: Malformed, or another vault's.
    """
    fields = Fields(unverified_record(envelope))
    version, prev = parse_version(fields, vault)
    issued_at, terms = fields.integer("issued_at"), fields.object("terms")
    fields.end()
    return Plan(vault, version, prev, issued_at, _parse_terms(Fields(terms)) if terms else None)


def sign_statement(statement: Statement, key: Signer) -> Envelope:
    """Return a statement under the legacy key."""
    record: JsonObject = {
        "vault": b64u(statement.vault),
        "plan": b64u(statement.plan),
        "claim": b64u(statement.claim),
        "act": str(statement.act),
        "reason": statement.reason,
        "issued_at": statement.issued_at,
    }
    return sign_record(PayloadType.LEGACY, record, key)


def verify_statement(envelope: Envelope, legacy_public_key: bytes, vault: VaultId, plan: bytes) -> Statement:
    """Return a statement that the plan's legacy key signed; its age is the receiver's to check.

    Args:
        envelope: What arrived.
        legacy_public_key: From the plan's terms.
        vault: The vault it must be about.
        plan: Digest of the plan it must invoke.

    Raises:
        SealError: Malformed, signed by another key, about another vault, or under another plan.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.LEGACY, legacy_public_key))
    about = fields.id("vault"), fields.hash("plan")
    claim, act = fields.id("claim"), fields.text("act")
    reason, issued_at = fields.text("reason", most=MAX_REASON), fields.integer("issued_at")
    fields.end()
    if about != (vault, plan):
        raise SealError("The statement is about another vault, or invokes another plan than the one in force.")
    if act not in set(Act):
        raise SealError("A statement orders something that TwinVault does not know.")
    return Statement(vault, plan, claim, Act(act), reason, issued_at)


def unverified_claim(envelope: Envelope) -> bytes:
    """Return the claim that a statement names; nothing is checked.

    Raises:
        SealError: It names none.
    """
    return Fields(unverified_record(envelope)).id("claim")


def _dump_terms(terms: LegacyTerms) -> JsonObject:
    return {
        "legacy_key": b64u(terms.legacy_key),
        "threshold": terms.threshold,
        "shares": terms.shares,
        "waiting_days": terms.waiting_days,
        "choice": str(terms.choice),
        "sealed": [b64u(digest) for digest in terms.sealed],
        "inactive_days": terms.inactive_days,
    }


def _parse_terms(fields: Fields) -> LegacyTerms:
    key, choice = fields.public_key("legacy_key"), fields.text("choice")
    if choice not in set(Choice):
        raise SealError("A plan makes a choice that TwinVault does not know.")
    threshold, shares, waiting_days = (fields.integer(name) for name in ("threshold", "shares", "waiting_days"))
    sealed = tuple(parse_hash(str(digest)) for digest in fields.items("sealed"))
    inactive_days = fields.integer("inactive_days")
    terms = LegacyTerms(key, threshold, shares, waiting_days, Choice(choice), sealed, inactive_days)
    fields.end()
    return terms
