"""An owner's succession as the owner's own client makes it, each part of which can be forged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.vault_kit import NOW, Owner
from vault.db import Database
from vault.encoding import b64u
from vault.parties import people, succession
from vault.parties.succession import Replacement
from vault.seal.account import OwnerSeeds, seal_account
from vault.seal.dsse import Envelope
from vault.seal.ids import VaultId
from vault.seal.person import sign_succession
from vault.seal.ring import Head, sign_head
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import Slot, recovery_key, seal_slot


@dataclass
class Successor:
    """What an owner with the recovery kit makes: the next owner, and the kit after that.

    Args:
        owner: As the service knows it.
        prev: Digest of the newest genesis or succession.
        account_version: Of the account record in force.
        account_prev: Its digest.
    """

    owner: Owner
    prev: bytes
    account_version: int
    account_prev: bytes
    code: bytes = field(default_factory=new_seed)
    next_seed: bytes = field(default_factory=new_seed)

    @classmethod
    def of(cls, owner: Owner) -> Successor:
        """Return the first succession of an owner whose vault has just begun."""
        return cls(owner, owner.genesis.digest, 1, owner.account_record.digest)

    @property
    def key(self) -> SigningKey:
        return SigningKey(self.owner.next_seed)

    def sign(self, key: SigningKey | None = None, **forged: Any) -> Envelope:
        honest: dict[str, Any] = {"vault_id": self.owner.vault, "prev": self.prev}
        return sign_succession(key or self.key, SigningKey(self.next_seed).public_key, **{**honest, **forged})

    def account(self, seed: bytes | None = None, **forged: Any) -> Envelope:
        seeds = OwnerSeeds(seed or self.owner.next_seed, self.owner.seeds.pairwise)
        honest: dict[str, Any] = {
            "vault": self.owner.vault, "version": self.account_version + 1, "prev": self.account_prev,
        }  # fmt: skip
        return seal_account(seeds, self.owner.root, **{**honest, **forged})

    def head(self, key: SigningKey | None = None, **forged: Any) -> Envelope:
        owner = self.owner
        assert owner.head is not None
        digests = {period: envelope.digest for period, (_, envelope) in owner.pages.items()}
        honest = Head(
            owner.vault, owner.version + 1, owner.head.digest, int(NOW.timestamp()), digests, dict(owner.devices)
        )
        return sign_head(replace(honest, **forged), key or self.key)

    def slot(self) -> Slot:
        return seal_slot(self.owner.root, recovery_key(self.code))

    def replacement(self) -> Replacement:
        return Replacement(self.sign(), self.account(), (self.slot(),))

    def body(self, **forged: Any) -> dict[str, Any]:
        slot = self.slot()
        return {
            "succession": b64u(self.sign().encoded),
            "account": b64u(self.account().encoded),
            "slots": [{"locator_hash": b64u(slot.slot_id), "slot": b64u(slot.encoded)}],
            "head": b64u(self.head().encoded),
            **forged,
        }

    def then(self, account: Envelope) -> Successor:
        """Return the succession after this one, which took effect with this account record."""
        owner = self.owner
        after = Owner(
            owner.root, OwnerSeeds(owner.next_seed, owner.seeds.pairwise), owner.devices, owner.pages, owner.locked,
            self.head(), owner.version + 1, self.next_seed,
        )  # fmt: skip
        after.genesis = owner.genesis
        return Successor(after, self.sign().digest, self.account_version + 1, account.digest)


def succeed(database: Database, new: Successor, replacement: Replacement | None = None) -> None:
    """Let a succession take effect, but for the ring."""
    with database.transaction() as session:
        succession.succeed(session, new.owner.vault, replacement or new.replacement(), now=NOW)


def owner_keys(database: Database, vault: VaultId) -> tuple[bytes, ...]:
    """Return every owner key of a vault, the one in force last."""
    with database.snapshot() as session:
        return people.get(session, vault).owner_keys
