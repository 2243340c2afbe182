"""Consents whose window is over end by themselves: logged as expired, their keys taken away, each in its own transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from vault.consent import changes, consents
from vault.consent.errors import UnknownConsent
from vault.consent.handovers import Custody
from vault.db import Database
from vault.schema.consent import ConsentEvent
from vault.schema.terms import BadConsent
from vault.seal.signing import Signer
from vault.store import shortkeys

EVERY_S: Final = 60


def expire_due(database: Database, custody: Custody, service: Signer, *, now: datetime) -> int:
    """End consents whose window is over; answers stopped at that second already, this takes the keys and tells the owner.

    Every process does this each minute, and drops what it has read of consents: people may have been erased by another.

    Args:
        database: The main database.
        custody: What forgets their keys.
        service: The service's signing key.
        now: The current time.

    Returns:
        How many ended. A consent that was renewed, withdrawn, erased or ended meanwhile is left alone.
    """
    with database.snapshot() as session:
        due = changes.due_to_expire(session, now=now)
    ended = 0
    for consent_id in due:
        try:
            with database.transaction() as session:
                changes.end(session, consent_id, ConsentEvent.EXPIRED, service=service, now=now)
        except (BadConsent, UnknownConsent):
            continue
        custody.forget(consent_id)
        ended += 1
    if ended:
        shortkeys.delete_scheduled(database, custody.short_keys)
    consents.forget_parsed()
    return ended
