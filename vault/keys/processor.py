"""The processor's identity: opens compartment seeds, and therefore traces. Only the worker may import this."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session

from vault.consent import handovers
from vault.db import Database
from vault.keys import statements
from vault.keys.opening import KeysRefused, Openers, open_keys, permitted
from vault.parties import people
from vault.policy.permits import Permit
from vault.proof.decision_record import Action
from vault.seal.dsse import parse_envelope
from vault.seal.handover import KeyKind
from vault.seal.ids import CompartmentId
from vault.seal.ring import verify_ring
from vault.store import rings


class Processor:
    """Opens what self and cohort consents hand over.

    Args:
        identities: Every epoch of the `processor` identity.
        short_keys: Database of the short keys.
        operator_key: States the keys whose reseals are accepted, 32 bytes.
    """

    def __init__(self, identities: Openers, short_keys: Database, operator_key: bytes) -> None:
        self._identities = identities
        self._short_keys = short_keys
        self._operator_key = operator_key

    def seeds(self, session: Session, permit: Permit, now: datetime) -> dict[CompartmentId, bytes]:
        """Return the compartment seeds that a permit allows to open.

        Args:
            session: Any transaction.
            permit: To refresh or train.
            now: The current time.

        Raises:
            KeysRefused: The permit is for something else, or the keys are not for it.
            KeysGone: The keys were taken away.
            SealError: What is stored does not descend from what the owner signed, is sealed to another identity,
                or holds a seed whose public key is not the one in the owner's signed ring.
        """
        if permit.action not in {Action.REFRESH, Action.TRAIN}:
            raise KeysRefused("Traces are opened to refresh or to train, never to answer.")
        person = people.get(session, permit.vault_id)
        stored_ring = rings.read(session, permit.vault_id)
        pages = [parse_envelope(page) for page, _ in stored_ring.pages]
        # The signed ring, not the look-up table made from it: a swapped key in the database must show.
        ring = verify_ring(parse_envelope(stored_ring.head), pages, person.owner_key, permit.vault_id)
        stored = handovers.read(session, self._short_keys, permit.consent_id, permit.version, KeyKind.RAW)
        keys = open_keys(
            stored,
            permit,
            KeyKind.RAW,
            openers=self._identities,
            owner_keys=person.owner_keys,
            resealers=statements.resealers(session, self._operator_key, KeyKind.RAW),
            compartments=ring.compartments,
            now=now,
        )
        return permitted(keys, ring.compartments, permit)
