"""The serving identity: opens imprint keys, and locks answers away for a repeated question."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import handovers
from vault.consent.errors import KeysGone
from vault.db import Database
from vault.keys import statements
from vault.keys.kms import LocalKeyring, NoSuchKey
from vault.keys.opening import KeysRefused, Openers, open_keys, permitted
from vault.parties import people
from vault.policy.permits import Permit
from vault.proof.decision_record import Action
from vault.seal.errors import SealError
from vault.seal.framing import frames
from vault.seal.handover import KeyKind
from vault.seal.ids import CompartmentId, ConsentId
from vault.seal.ring import Compartment
from vault.store import rings

_MAX_OPENED: Final = 512


@dataclass(frozen=True)
class _Opened:
    """The opened keys of one handover, good while that handover is the one in force."""

    version: int
    digest: bytes
    not_before_s: int
    not_after_s: int
    keys: Mapping[CompartmentId, bytes]
    compartments: Mapping[CompartmentId, Compartment]


class Serving:
    """Opens what self and company consents hand over to the web process: never a trace.

    Args:
        identities: Every epoch of the `serving` identity.
        kms: Holds the keys that bundles are locked under.
        key_name: The key in force, such as `serving/1`.
        short_keys: Database of the short keys.
        operator_key: States the keys whose reseals are accepted, 32 bytes.
    """

    def __init__(
        self, identities: Openers, kms: LocalKeyring, key_name: str, short_keys: Database, operator_key: bytes
    ) -> None:
        self._identities = identities
        self._kms = kms
        self._key_name = key_name
        self._short_keys = short_keys
        self._operator_key = operator_key
        self._opened: OrderedDict[ConsentId, _Opened] = OrderedDict()
        self._mutex = threading.Lock()

    def imprint_keys(self, session: Session, permit: Permit, now: datetime) -> dict[CompartmentId, bytes]:
        """Return the imprint keys that a permit allows to open.

        Opening costs an HPKE decapsulation, so opened keys are kept in memory; the row of the handover
        in force is read each time, and an opened copy of any other handover is dropped.

        Args:
            session: The transaction in which the consent was just read.
            permit: To answer one question.
            now: The current time.

        Raises:
            KeysRefused: The permit is for something else, or the keys are not for it.
            KeysGone: The keys were taken away.
            SealError: What is stored does not descend from what the owner signed, or is sealed to another identity.
        """
        if permit.action is not Action.ASK:
            raise KeysRefused("Imprint keys are opened to answer a question only.")
        opened = self._opened_for(session, permit, now)
        return permitted(opened.keys, opened.compartments, permit)

    def forget(self, consent_id: ConsentId) -> None:
        """Drop a consent's opened keys from memory."""
        with self._mutex:
            self._opened.pop(consent_id, None)

    @property
    def versions(self) -> dict[ConsentId, int]:
        """The consents whose opened keys are in memory, each with the version that handed them over."""
        with self._mutex:
            return {consent_id: opened.version for consent_id, opened in self._opened.items()}

    def wrap_bundle(self, bundle: bytes, question_id: bytes, consent_id: ConsentId) -> bytes:
        """Lock an answer away, so that the same question can be answered again with the same bytes."""
        return self._kms.wrap(self._key_name, bundle, _about(question_id, consent_id))

    def unwrap_bundle(self, wrapped: bytes, question_id: bytes, consent_id: ConsentId) -> bytes:
        """Undo `wrap_bundle`, of the epoch in force or of a former one that is not destroyed yet.

        Raises:
            NoSuchKey: This process holds no serving key.
            SealError: Of another question or consent, altered, or locked under a key that was destroyed.
        """
        name, _, epoch = self._key_name.partition("/")
        former = [f"{name}/{other}" for other in reversed(self._kms.epochs(name)) if str(other) != epoch]
        for key_name in former:  # where there are any, a rollover is under way and most may be older
            with suppress(SealError, NoSuchKey):
                return self._kms.unwrap(key_name, wrapped, _about(question_id, consent_id))
        return self._kms.unwrap(self._key_name, wrapped, _about(question_id, consent_id))

    def rewrap_bundle(self, wrapped: bytes, question_id: bytes, consent_id: ConsentId) -> bytes | None:
        """Lock a bundle of a former epoch under the key in force; None if it is locked under that already."""
        about = _about(question_id, consent_id)
        with suppress(SealError):
            self._kms.unwrap(self._key_name, wrapped, about)
            return None
        return self._kms.wrap(self._key_name, self.unwrap_bundle(wrapped, question_id, consent_id), about)

    def _opened_for(self, session: Session, permit: Permit, now: datetime) -> _Opened:
        try:
            digest = handovers.find_live(session, permit.consent_id, permit.version, KeyKind.IMPRINT)
        except KeysGone:
            self.forget(permit.consent_id)
            raise
        with self._mutex:
            opened = self._opened.get(permit.consent_id)
            if (
                opened is not None
                and opened.digest == digest
                and opened.not_before_s <= unix_s(now) < opened.not_after_s
            ):
                self._opened.move_to_end(permit.consent_id)
                return opened
        opened = self._open(session, permit, now)
        with self._mutex:
            self._opened[permit.consent_id] = opened
            while len(self._opened) > _MAX_OPENED:
                self._opened.popitem(last=False)
        return opened

    def _open(self, session: Session, permit: Permit, now: datetime) -> _Opened:
        stored = handovers.read(session, self._short_keys, permit.consent_id, permit.version, KeyKind.IMPRINT)
        terms = stored.newest.terms
        listed = rings.compartments(session, permit.vault_id, terms.compartments)
        keys = open_keys(
            stored,
            permit,
            KeyKind.IMPRINT,
            openers=self._identities,
            resealers=statements.resealers(session, self._operator_key, KeyKind.IMPRINT),
            owner_keys=people.get(session, permit.vault_id).owner_keys,
            compartments=listed,
            now=now,
        )
        window = terms.not_before_s, terms.not_after_s
        return _Opened(permit.version, stored.newest.envelope.digest, *window, keys, listed)


def _about(question_id: bytes, consent_id: ConsentId) -> bytes:
    return frames(b"bundle", question_id, consent_id)
