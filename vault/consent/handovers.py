"""Handovers as the service keeps them: checked against consent and ring, then opaque under a short key.

Nothing here can open one. Every live version of a consent brings its own handovers, which replace
those of the version before: narrowing takes keys away, it does not merely promise to ignore them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, insert, select, update
from sqlmodel import Session

from vault.consent.errors import BadHandover, KeysGone, StaleRecipient
from vault.consent.models import handover
from vault.db import Database, Prepared
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind, Terms
from vault.seal.chain import Chain, parse_chain
from vault.seal.dsse import Envelope
from vault.seal.handover import KeyKind, VerifiedHandover, parse_handover, verify_handover
from vault.seal.ids import CompartmentId, ConsentId, VaultId
from vault.seal.wrap import lock_short, unlock_short
from vault.store import rings, shortkeys
from vault.tlog.log import PendingId

_GONE: Final = "This consent's keys were taken away; its owner can renew it."

_IN_FORCE: Final = select(handover.c.digest, handover.c.locked).where(
    handover.c.consent_id == bindparam("consent_id"),
    handover.c.version == bindparam("version"),
    handover.c.key_kind == bindparam("key_kind"),
    handover.c.live,
)
_LIVE: Final = Prepared(_IN_FORCE)
_DIGEST: Final = Prepared(_IN_FORCE.with_only_columns(handover.c.digest))

REQUIRED: Final[Mapping[ConsentKind, frozenset[KeyKind]]] = {
    ConsentKind.SELF: frozenset({KeyKind.RAW, KeyKind.IMPRINT}),
    ConsentKind.COHORT: frozenset({KeyKind.RAW}),
    # A company's consent never opens a trace, not even inside the service.
    ConsentKind.COMPANY: frozenset({KeyKind.IMPRINT}),
}


@dataclass(frozen=True)
class Custody:
    """To whom keys may be handed, and where the short keys over them lie.

    Args:
        short_keys: Database of the short keys.
        recipients: SHA-256 of the processor's public key for seeds, of the serving identity's for imprint keys.
        forget: Drops a consent's opened keys from this process's memory.
    """

    short_keys: Database
    recipients: Mapping[KeyKind, bytes]
    forget: Callable[[ConsentId], None]


def verify_handovers(
    session: Session,
    encoded: Sequence[bytes],
    *,
    vault_id: VaultId,
    owner_key: bytes,
    consent: ConsentVersion,
    custody: Custody,
) -> list[VerifiedHandover]:
    """Return the handovers of a version if they are exactly those it needs and no wider than it allows.

    Args:
        session: Any transaction.
        encoded: What arrived, each an owner-signed handover.
        vault_id: Whose.
        owner_key: The owner's signing key in force.
        consent: The version they come with.
        custody: To whom keys may go.

    Raises:
        BadHandover: A kind of keys missing, twice or never allowed for this kind of consent; about
            another consent; to another identity; longer than the consent; or a compartment that the
            ring does not list, the consent does not cover, or whose special category it does not explicitly allow.
        SealError: Malformed, another vault's, or not signed by its owner.
    """
    handovers = [verify_handover(parse_handover(data), vault_id, owner_key) for data in encoded]
    kinds = [item.terms.kind for item in handovers]
    required = REQUIRED[consent.terms.kind]
    if sorted(kinds) != sorted(required):
        raise BadHandover(
            f"A {consent.terms.kind} consent comes with exactly one handover of each of: {', '.join(sorted(required))}."
        )
    for item in handovers:
        if item.terms.consent != consent.consent_id:
            raise BadHandover("A handover belongs to another consent.")
        if item.terms.to != custody.recipients[item.terms.kind]:
            raise StaleRecipient("A handover is sealed to another key than the one in force; fetch /v1/keys again.")
        _refuse_wider(session, item, consent.terms)
    return handovers


def keep(
    session: Session,
    handovers: Sequence[VerifiedHandover],
    *,
    consent: ConsentVersion,
    custody: Custody,
    leaf_id: PendingId,
) -> None:
    """Store the handovers of a version, each locked under a fresh short key.

    Args:
        session: An open writing transaction.
        handovers: From `verify_handovers`.
        consent: The version they come with.
        custody: Where the short keys lie; they are committed here, before what they lock.
        leaf_id: The leaf that names the handovers.

    Raises:
        BadHandover: One was handed over before: each version's has a short key of its own, which goes with it.
    """
    known = select(handover.c.digest).where(handover.c.digest.in_([item.envelope.digest for item in handovers]))
    if session.connection().execute(known).first() is not None:
        raise BadHandover("A handover was handed over before; seal the keys anew for each version of a consent.")
    names = {item.envelope.digest: shortkeys.handover_key(item.envelope.digest) for item in handovers}
    keys = shortkeys.create(custody.short_keys, names.values())
    rows = [
        {
            "digest": digest,
            "consent_id": consent.consent_id,
            "version": consent.version,
            "key_kind": item.terms.kind.value,
            "live": True,
            "recipient": item.terms.to,
            "locked": lock_short(keys[names[digest]], Chain((), item).encoded, consent.consent_id),
            "leaf_id": leaf_id,
        }
        for digest, item in zip(names, handovers, strict=True)
    ]
    session.connection().execute(insert(handover), rows)


def close(session: Session, consent_id: ConsentId) -> None:
    """Take the keys of a consent away.

    Guarantees: once this commits and `shortkeys.delete_scheduled` ran, the handovers are unreadable
        here and in every backup of the main database.
    """
    live = (handover.c.consent_id == consent_id, handover.c.live)
    connection = session.connection()
    digests = connection.execute(select(handover.c.digest).where(*live)).scalars().all()
    shortkeys.schedule_deletion(session, [shortkeys.handover_key(digest) for digest in digests])
    connection.execute(update(handover).where(*live).values(live=False, locked=b""))


def forget(session: Session, consent_id: ConsentId) -> list[PendingId]:
    """Take the keys of a consent away and drop their rows; return the leaves whose openings must go too."""
    close(session, consent_id)
    mine = handover.c.consent_id == consent_id
    leaves = session.connection().execute(select(handover.c.leaf_id).where(mine)).scalars().all()
    session.connection().execute(delete(handover).where(mine))
    return [PendingId(leaf_id) for leaf_id in leaves]


def find_live(session: Session, consent_id: ConsentId, version: int, kind: KeyKind) -> bytes:
    """Return the digest of the handover in force: what an opened copy must still match.

    Raises:
        KeysGone: Withdrawn or replaced.
    """
    return bytes(_live(_DIGEST, session, consent_id, version, kind).digest)


def read(session: Session, short_keys: Database, consent_id: ConsentId, version: int, kind: KeyKind) -> Chain:
    """Return a live handover with its chain; its signatures are still to be checked by whoever opens it.

    Args:
        session: Any transaction.
        short_keys: Database of the short keys.
        consent_id: Which consent.
        version: The version in force.
        kind: Which keys.

    Raises:
        KeysGone: Withdrawn, replaced, or its short key is already deleted.
        SealError: What is stored is not what was stored.
    """
    row = _live(_LIVE, session, consent_id, version, kind)
    name = shortkeys.handover_key(row.digest)
    key = shortkeys.read(short_keys, [name]).get(name)
    if key is None:
        raise KeysGone(_GONE)
    return parse_chain(unlock_short(key, row.locked, consent_id))


def compartments(
    session: Session, short_keys: Database, consent_id: ConsentId, version: int
) -> frozenset[CompartmentId]:
    """Return the compartments whose keys the live handovers of a consent hold; opens none of the keys."""
    held: set[CompartmentId] = set()
    for kind in KeyKind:
        with suppress(KeysGone):
            held |= set(read(session, short_keys, consent_id, version, kind).newest.terms.compartments)
    return frozenset(held)


def chains(
    session: Session, short_keys: Database, consent_id: ConsentId, version: int
) -> dict[KeyKind, list[tuple[Envelope, PendingId]]]:
    """Return, by kind of keys, the signed records of every live handover of a version and the leaves that show them.

    The owner's handover comes first, then each reseal of it. A leaf may not be in the log yet.

    Raises:
        KeysGone: A short key is already deleted.
        SealError: What is stored is not what was stored.
    """
    mine = select(handover.c.digest, handover.c.leaf_id, handover.c.key_kind, handover.c.live)
    mine = mine.where(handover.c.consent_id == consent_id, handover.c.version == version)
    rows = session.connection().execute(mine).all()
    leaf_ids = {row.digest: PendingId(row.leaf_id) for row in rows}
    found = {}
    for kind in sorted(KeyKind(row.key_kind) for row in rows if row.live):
        chain = read(session, short_keys, consent_id, version, kind)
        found[kind] = [(envelope, leaf_ids[envelope.digest]) for envelope in chain.envelopes]
    return found


def _live(query: Prepared, session: Session, consent_id: ConsentId, version: int, kind: KeyKind) -> Any:
    row = query.one(session, consent_id=consent_id, version=version, key_kind=kind.value)
    if row is None:
        raise KeysGone(_GONE)
    return row


def _refuse_wider(session: Session, item: VerifiedHandover, terms: Terms) -> None:
    if item.terms.not_before_s < terms.not_before or item.terms.not_after_s > terms.not_after:
        raise BadHandover("A handover is valid for longer than its consent.")
    listed = rings.compartments(session, item.terms.vault, item.terms.compartments)
    for name in item.terms.compartments:
        compartment = listed.get(name)
        if compartment is None:
            raise BadHandover("A handover names a compartment that the ring does not list.")
        if compartment.category not in terms.categories or not terms.data_from <= compartment.period <= terms.data_to:
            raise BadHandover("A handover holds keys to a category or month that the consent does not cover.")
        if compartment.category not in terms.usable:
            raise BadHandover(
                f"A handover holds keys to {compartment.category}, a special category that the consent does not explicitly"
                " allow; leave its compartments out, or sign terms that name it in explicit_special."
            )
