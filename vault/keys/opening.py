"""Opening a handover against a permit: the one way from stored keys to usable ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from vault.clock import unix_s
from vault.errors import VaultError
from vault.policy.permits import Permit
from vault.seal.handover import Handover, KeyKind, open_handover, verify_handover
from vault.seal.ids import CompartmentId
from vault.seal.recipient import Opener
from vault.seal.ring import Compartment


class KeysRefused(VaultError):
    """A handover that does not belong to the permit it was to be opened for."""

    slug = "keys-refused"
    title = "Keys refused"
    status = 403


def open_keys(
    unverified: Handover,
    permit: Permit,
    kind: KeyKind,
    *,
    opener: Opener,
    owner_key: bytes,
    compartments: Mapping[CompartmentId, Compartment],
    now: datetime,
) -> dict[CompartmentId, bytes]:
    """Return all keys of a handover, by compartment.

    Args:
        unverified: As stored.
        permit: What may happen; only its consent's handover opens.
        kind: Which keys are expected.
        opener: The identity of this process.
        owner_key: The owner's signing key in force.
        compartments: Of the vault's ring.
        now: The current time.

    Raises:
        KeysRefused: Of another consent or kind, or outside the handover's window.
        SealError: Not signed by the owner, sealed to another identity, or a seed whose public key is
            not the ring's.
    """
    handover = verify_handover(unverified, permit.vault_id, owner_key)
    terms = handover.terms
    if terms.consent != permit.consent_id or terms.kind is not kind:
        raise KeysRefused("The stored keys belong to another consent or are of another kind.")
    if not terms.not_before_s <= unix_s(now) < terms.not_after_s:
        raise KeysRefused("The stored keys may not be used at this time.")
    return open_handover(handover, opener, compartments)


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
