"""Opening a handover against a permit: the one way from stored keys to usable ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from vault.clock import unix_s
from vault.errors import VaultError
from vault.policy.permits import Permit
from vault.seal.chain import Chain, verify_chain
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind, VerifiedHandover, open_handover
from vault.seal.ids import CompartmentId
from vault.seal.recipient import Opener
from vault.seal.ring import Compartment


class Openers(Protocol):
    """The identities of one process; `identities.Epochs` is the one that exists."""

    def find(self, key_hash: bytes) -> Opener | None:
        """Return the identity whose public key has this hash, if this process holds it."""


class KeysRefused(VaultError):
    """A handover that does not belong to the permit it was to be opened for."""

    slug = "keys-refused"
    title = "Keys refused"
    status = 403


def open_keys(
    unverified: Chain,
    permit: Permit,
    kind: KeyKind,
    *,
    openers: Openers,
    owner_keys: Collection[bytes],
    resealers: Collection[bytes],
    compartments: Mapping[CompartmentId, Compartment],
    now: datetime,
) -> dict[CompartmentId, bytes]:
    """Return all keys of a handover, by compartment.

    Args:
        unverified: As stored.
        permit: What may happen; only its consent's handover opens.
        kind: Which keys are expected.
        openers: The identities of this process.
        owner_keys: Every signing key that the owner has had.
        resealers: Every key that the operator stated for reseals of this kind of keys.
        compartments: Of the vault's ring.
        now: The current time.

    Raises:
        KeysRefused: Of another consent or kind, or outside the handover's window.
        SealError: It does not descend from what the owner signed, is sealed to another identity, or holds a
            seed whose public key is not the ring's.
    """
    handover = verify_chain(unverified, permit.vault_id, owner_keys, resealers)
    terms = handover.terms
    if terms.consent != permit.consent_id or terms.kind is not kind:
        raise KeysRefused("The stored keys belong to another consent or are of another kind.")
    if not terms.not_before_s <= unix_s(now) < terms.not_after_s:
        raise KeysRefused("The stored keys may not be used at this time.")
    return open_handover(handover, opener_of(handover, openers), compartments)


def opener_of(handover: VerifiedHandover, openers: Openers) -> Opener:
    """Return the identity that a handover is sealed to.

    Raises:
        SealError: This process does not hold it.
    """
    opener = openers.find(handover.terms.to)
    if opener is None:
        raise SealError("A handover is sealed to another identity.")
    return opener


def permitted(
    keys: Mapping[CompartmentId, bytes], compartments: Mapping[CompartmentId, Compartment], permit: Permit
) -> dict[CompartmentId, bytes]:
    """Return those keys whose category and month the permit names."""
    return {
        name: key
        for name, key in keys.items()
        if compartments[name].category in permit.categories
        and permit.data_from <= compartments[name].period <= permit.data_to
    }
