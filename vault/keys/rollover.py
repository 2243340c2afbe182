"""Epoch rollover: live handovers move to the newer identity, then the older one is destroyed.

Each process does this for its own keys with its own credential, while it serves. Every step is one
transaction or one idempotent act, and what is left to do is read from database and keyring each time:
a process killed anywhere goes on where it was. An old key is destroyed only when no live handover
needs it and no process can still be using it.

Source: DESIGN section 3 (KMS, short keys, handover).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import handovers, reseals
from vault.consent.errors import KeysGone
from vault.consent.reseals import Live
from vault.db import Database
from vault.keys import statements
from vault.keys.identities import destroy_identity
from vault.keys.kms import LocalKeyring
from vault.keys.opening import Openers, opener_of
from vault.parties import people
from vault.parties.people import UnknownVault
from vault.seal.chain import Chain, verify_chain
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind, open_handover, reseal
from vault.seal.recipient import Recipient
from vault.seal.signing import Signer
from vault.seal.statement import KeyStatement
from vault.store import rings, shortkeys

GRACE_S: Final = 60
"""For how long after its successor's statement an old key is kept: processes and clients look for new ones more often."""

_PAGE: Final = 100

_log = structlog.get_logger()


@dataclass(frozen=True)
class Resealer:
    """What moving one kind of keys to a newer identity takes.

    Args:
        database: The main database.
        short_keys: Database of the short keys.
        operator_key: States the keys whose reseals are accepted, 32 bytes.
        kind: Seeds in the worker, imprint keys in the app.
        openers: This process's identities.
        signer: This process's signing key.
    """

    database: Database
    short_keys: Database
    operator_key: bytes
    kind: KeyKind
    openers: Openers
    signer: Signer

    def move_all(self, to: Recipient, now: datetime) -> int:
        """Reseal every live handover that is sealed to another key; return how many of them cannot be.

        One that cannot be opened or verified is left as it is: it could not be used under its own key either.
        """
        refused, after = 0, b""
        while page := self._page(to, after):
            for live in page:
                try:
                    self._move(live, to, now)
                except (SealError, KeysGone, UnknownVault) as error:
                    refused += 1
                    _log.warning("reseal.refused", reason=error.slug)
            after = page[-1].digest
            shortkeys.delete_scheduled(self.database, self.short_keys)
        return refused

    def _page(self, to: Recipient, after: bytes) -> list[Live]:
        with self.database.snapshot() as session:
            return list(reseals.sealed_elsewhere(session, self.kind, to.key_hash, after=after, at_most=_PAGE))

    def _move(self, live: Live, to: Recipient, now: datetime) -> None:
        with self.database.snapshot() as session:
            resealed = self._resealed(session, live, to)
        with self.database.transaction() as session:
            reseals.put(session, live, resealed, short_keys=self.short_keys, now=now)

    def _resealed(self, session: Session, live: Live, to: Recipient) -> Chain:
        kept = handovers.read(session, self.short_keys, live.consent_id, live.version, self.kind)
        owner_keys = people.get(session, live.vault_id).owner_keys
        accepted = statements.resealers(session, self.operator_key, self.kind)
        verified = verify_chain(kept, live.vault_id, owner_keys, accepted)
        if verified.terms.consent != live.consent_id or verified.terms.kind is not self.kind:
            raise SealError("A stored handover belongs to another consent or is of another kind.")
        listed = rings.compartments(session, live.vault_id, verified.terms.compartments)
        keys = open_handover(verified, opener_of(verified, self.openers), listed)
        return kept.then(reseal(verified, keys, to, self.signer))


def former(kms: LocalKeyring, statement: KeyStatement) -> list[str]:
    """Return the names of a process's keys of epochs before the one in force."""
    return [f"{statement.name}/{epoch}" for epoch in kms.epochs(statement.name) if epoch < statement.epoch]


def is_over(statement: KeyStatement, now: datetime) -> bool:
    """Say whether every process has surely gone over to an epoch."""
    return unix_s(now) >= statement.not_before + GRACE_S


def retire(folder: Path, kms: LocalKeyring, statement: KeyStatement) -> None:
    """Destroy the keys of epochs before the one in force; safe to run again."""
    for name in former(kms, statement):
        if statement.name.seals:
            destroy_identity(folder, kms, name)
        else:
            kms.destroy(name)
        _log.info("key.destroyed", key_name=name)
