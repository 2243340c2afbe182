"""Replacing a handover by a reseal of it: the same consent, the same keys or fewer, another identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlmodel import Session

from vault.clock import month_of, unix_s
from vault.consent import consents
from vault.consent.models import consent, handover
from vault.db import Database
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.seal.chain import Chain
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId, VaultId
from vault.seal.wrap import lock_short
from vault.store import shortkeys
from vault.tlog.log import append


@dataclass(frozen=True, slots=True)
class Live:
    """One live handover.

    Args:
        consent_id: Under which consent.
        vault_id: Whose vault.
        version: The version that it came with.
        kind: Which keys.
        digest: Names it.
    """

    consent_id: ConsentId
    vault_id: VaultId
    version: int
    kind: KeyKind
    digest: bytes


def sealed_elsewhere(
    session: Session, kind: KeyKind, recipient: bytes, *, after: bytes = b"", at_most: int = 100
) -> Iterator[Live]:
    """Yield live handovers that are sealed to another key than this one, in the order of their digests.

    Args:
        session: Any transaction.
        kind: Which keys.
        recipient: SHA-256 of the public key in force.
        after: The last digest of the page before.
        at_most: Page size.
    """
    query = (
        select(handover.c.consent_id, consent.c.vault_id, handover.c.version, handover.c.digest)
        .join(consent)
        .where(handover.c.key_kind == kind.value, handover.c.live, handover.c.recipient != recipient)
        .where(handover.c.digest > after)
        .order_by(handover.c.digest)
        .limit(at_most)
    )
    for row in session.connection().execute(query):
        yield Live(ConsentId(row.consent_id), VaultId(row.vault_id), row.version, kind, bytes(row.digest))


def count_elsewhere(session: Session, kind: KeyKind, recipient: bytes) -> int:
    """Return how many live handovers are sealed to another key than this one."""
    elsewhere = handover.c.live & (handover.c.key_kind == kind.value) & (handover.c.recipient != recipient)
    return session.connection().execute(select(func.count()).select_from(handover).where(elsewhere)).scalar_one()


def put(session: Session, replaced: Live, resealed: Chain, *, short_keys: Database, now: datetime) -> bool:
    """Put a reseal in place of the handover that it continues, and log it; the key over the old one goes.

    Args:
        session: An open writing transaction; `shortkeys.delete_scheduled` follows its commit.
        replaced: What was read and resealed.
        resealed: Verified: made from it just now.
        short_keys: Database of the short keys.
        now: The current time.

    Returns:
        Whether it was still in force. A consent that was withdrawn, narrowed, renewed or resealed by another
        process meanwhile keeps what it has: a reseal revives nothing.
    """
    new = shortkeys.handover_key(resealed.newest.envelope.digest)
    key = shortkeys.create(short_keys, [new])[new]
    connection = session.connection()
    consents.lock(session, replaced.consent_id)
    taken = (
        update(handover)
        .where(handover.c.digest == replaced.digest, handover.c.live)
        .values(live=False, locked=b"")
        .returning(handover.c.version)
    )
    if connection.execute(taken).one_or_none() is None:
        shortkeys.schedule_deletion(session, [new])
        return False
    terms = resealed.newest.terms
    leaf = append(
        session,
        LeafKind.RESEAL,
        {"period": month_of(now)},
        {
            "vault": b64u(replaced.vault_id),
            "consent": b64u(replaced.consent_id),
            "version": replaced.version,
            "keys": replaced.kind.value,
            "to": b64u(terms.to),
            "prev": b64u(replaced.digest),
            "record": b64u(resealed.newest.envelope.digest),
            "at": unix_s(now),
        },
        about=replaced.vault_id,
    )
    row = {
        "digest": resealed.newest.envelope.digest,
        "consent_id": replaced.consent_id,
        "version": replaced.version,
        "key_kind": replaced.kind.value,
        "live": True,
        "recipient": terms.to,
        "locked": lock_short(key, resealed.encoded, replaced.consent_id),
        "leaf_id": leaf.id,
    }
    connection.execute(insert(handover), row)
    shortkeys.schedule_deletion(session, [shortkeys.handover_key(replaced.digest)])
    return True
