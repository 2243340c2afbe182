"""Retention: months older than an installation keeps are erased by themselves, one vault after the other.

Each vault is erased like by anyone else who may, in a transaction of its own: charged days stay charged, the owner
is told, tombstones account for what is gone. Whatever a crash interrupts, the next run goes on with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.consent.handovers import Custody
from vault.db import Database
from vault.erasure.erase import Erased, ErasureRequest, Forget, NothingToErase, erase
from vault.schema.trace import Period
from vault.seal.erasure import MAX_COMPARTMENTS, Author, Scope
from vault.seal.ids import VaultId, new_id
from vault.seal.signing import Signer
from vault.store import rings, shortkeys

EVERY_S: Final = 3_600
MAX_MONTHS: Final = 1_200


def oldest_kept(months: int, now: datetime) -> Period:
    """Return the oldest month that is kept: the current one and so many before it.

    Args:
        months: 1 to `MAX_MONTHS`.
        now: The current time, UTC.
    """
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    return Period(f"{year:04}-{month + 1:02}")


def overdue(session: Session, oldest: Period) -> Iterator[Scope]:
    """Yield what lies in months before the oldest that is kept, vault by vault."""
    after = VaultId(b"")
    while vaults := rings.vaults_before(session, oldest, after=after):
        for vault in vaults:
            named = sorted(name for name, c in rings.listed(session, vault).items() if c.period < oldest)
            for start in range(0, len(named), MAX_COMPARTMENTS):
                yield Scope(vault, tuple(named[start : start + MAX_COMPARTMENTS]))
        after = vaults[-1]


def erase_overdue(
    database: Database, custody: Custody, service: Signer, months: int, *, now: datetime, also: Iterable[Forget] = ()
) -> list[Erased]:
    """Erase what is older than the published retention; safe to run again and at any time.

    Args:
        database: The main database.
        custody: The short keys, and what forgets opened ones.
        service: The service's signing key.
        months: How many months before the current one are kept.
        now: The current time.
        also: What domains above this one destroy.

    Guarantees: when this returns, no month before that can be read here; a consent whose keys opened one has
        none until its owner's client renews it.
    """
    shortkeys.delete_scheduled(database, custody.short_keys)  # of a run that was interrupted before it
    with database.snapshot() as session:
        scopes = list(overdue(session, oldest_kept(months, now)))
    done = []
    for scope in scopes:
        asked = ErasureRequest(
            new_id(),
            scope,
            Author.RETENTION,
            f"This service keeps {months} months before the current one.",
        )
        try:
            with database.transaction() as session:
                erased = erase(session, custody.short_keys, asked, service=service, now=now, also=also)
        except NothingToErase:
            continue  # by its owner, or another process, meanwhile
        for consent_id in erased.consents:
            custody.forget(consent_id)
        shortkeys.delete_scheduled(database, custody.short_keys)
        done.append(erased)
    return done
