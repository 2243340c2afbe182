"""Rings as the server keeps them: compare-and-swap of head and pages, and the look-ups made from them.

The server checks what the owner signed as strictly as a client does, although no client relies on
it: a ring that contradicts itself would lock its owner out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.proof.leaf import LeafKind
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.device import Device
from vault.seal.dsse import Envelope
from vault.seal.ids import CompartmentId, DeviceId, VaultId, sha256
from vault.seal.ring import Compartment, Page, Ring, verify_page, verify_ring
from vault.seal.version import Remembered
from vault.seal.wrap import lock_short, unlock_short
from vault.store import batches, devices, shortkeys
from vault.store.errors import BadRing, NotStored, VersionConflict
from vault.store.models import compartment, ring_device, ring_head, ring_page, store_leaf
from vault.store.versions import require_successor
from vault.tlog.log import append, delete_personal_openings

MAX_DEVICES: Final = 256
MAX_COMPARTMENTS_PER_PAGE: Final = 256
MAX_PAGES: Final = 1_200

_LOCK = (
    select(ring_head.c.version, ring_head.c.digest)
    .where(ring_head.c.vault_id == bindparam("vault_id"))
    .with_for_update()
)
_HEAD = select(ring_head).where(ring_head.c.vault_id == bindparam("vault_id"))
_PAGES = select(ring_page).where(ring_page.c.vault_id == bindparam("vault_id"))
_COMPARTMENTS = select(compartment).where(compartment.c.vault_id == bindparam("vault_id"))


@dataclass(frozen=True)
class VerifiedRing:
    """A head with the pages that change, all signed by one owner key; build it through `verify_publish`.

    Args:
        owner_key: The key that signed: the caller checks that it is still in force.
        head: Envelope of the head.
        pages: Envelope of each page that changes, by month.
        ring: What they say.
        locked: Locked seeds of the new compartments, each under its short key.
    """

    owner_key: bytes
    head: Envelope
    pages: Mapping[Period, Envelope]
    ring: Ring
    locked: Mapping[CompartmentId, bytes]


@dataclass(frozen=True)
class StoredRing:
    """A ring as its owner's clients fetch it.

    Args:
        head: Envelope bytes.
        pages: Per month, the page's envelope bytes and the locked seeds that were not erased.
        leaf: The pending id of the head's leaf.
    """

    head: bytes
    pages: Sequence[tuple[bytes, Mapping[CompartmentId, bytes]]]
    leaf: int


def verify_publish(
    vault: VaultId,
    owner_key: bytes,
    head: Envelope,
    pages: Sequence[Envelope],
    *,
    locked_seeds: Mapping[CompartmentId, bytes],
    short_key_database: Database,
) -> VerifiedRing:
    """Check a head and its changed pages, and lock their seeds under short keys; needs no open transaction.

    Args:
        vault: Whose ring.
        owner_key: The owner key in force.
        head: The new head.
        pages: The pages that change with it.
        locked_seeds: Seeds locked under the root, of every compartment that is new.
        short_key_database: Where the short keys lie; they are committed here.

    Raises:
        SealError: Not signed by the owner, another vault's, or pages that the head does not name.
        BadRing: Too large, or a locked seed that no page names.
    """
    ring = verify_ring(head, pages, owner_key, vault)
    for page in pages:  # what is new is by the key in force, not only what names it
        verify_page(page, owner_key, vault)
    if len(ring.pages) != len(pages):
        raise BadRing("The upload holds two pages of one month.")
    if len(ring.head.devices) > MAX_DEVICES or len(ring.head.pages) > MAX_PAGES:
        raise BadRing(f"A ring holds at most {MAX_DEVICES} devices and {MAX_PAGES} months.")
    if any(len(page.compartments) > MAX_COMPARTMENTS_PER_PAGE for page in ring.pages.values()):
        raise BadRing(f"A ring page holds at most {MAX_COMPARTMENTS_PER_PAGE} compartments.")
    for name, seed in locked_seeds.items():
        if name not in ring.compartments or sha256(seed) != ring.compartments[name].locked_hash:
            raise BadRing("A locked seed is not the one that the ring page names.")
    names = {name: shortkeys.compartment_key(vault, name) for name in locked_seeds}
    keys = shortkeys.create(short_key_database, names.values())
    locked = {name: lock_short(keys[names[name]], seed, name) for name, seed in locked_seeds.items()}
    by_month = dict(zip(ring.pages, pages, strict=True))
    return VerifiedRing(owner_key, head, by_month, ring, locked)


def publish(session: Session, vault: VaultId, new: VerifiedRing, *, now: datetime, at_once: bool = False) -> None:
    """Put a ring in force if it follows the stored one; writes head, pages, look-ups and the leaf.

    The stored head sent again is accepted and changes nothing, so a lost response is no conflict.

    Args:
        session: An open writing transaction, in which the caller has checked `new.owner_key`.
        vault: Whose ring.
        new: From `verify_publish`.
        now: The current time.
        at_once: Revoke devices even without what they sealed since their owner read their head lists.

    Raises:
        VersionConflict: Another ring was published first, or a device that the head revokes sealed more meanwhile.
        BadRing: The pages contradict the head or change what may not change.

    Guarantees: of several publishes of one version exactly one commits; a compartment, once listed,
    keeps its key, and leaves the ring only after its erasure; a head that revokes a device, unless at once,
    accepts every batch that the device was acknowledged for.
    """
    connection = session.connection()
    head = new.ring.head
    current = lock(session, vault)
    if current is not None and current.digest == new.head.digest:
        return
    require_successor(head.version, head.prev, current)
    if not at_once:
        _refuse_behind(session, vault, head.devices)
    rows = connection.execute(_PAGES, {"vault_id": vault})
    stored = {Period(row.period): Remembered(row.version, row.digest) for row in rows}
    digests = {period: page.digest for period, page in stored.items()}
    if {**digests, **{period: envelope.digest for period, envelope in new.pages.items()}} != dict(head.pages):
        raise BadRing("The head does not name exactly the stored pages and those sent with it.")
    for period, page in new.ring.pages.items():
        _put_page(session, page, new.pages[period], stored.get(period))
        _put_compartments(session, page, new.locked)
    revoked = devices.put(session, vault, head.devices)
    # What a restored backup must not undo. Of a head as a whole its signer alone decides the size.
    more: JsonObject = {"revoked": [b64u(name) for name in revoked]} if revoked else {}
    pending = append(
        session,
        LeafKind.RING_HEAD,
        {"period": f"{now:%Y-%m}"},
        {"vault": b64u(vault), "version": head.version, "record": b64u(new.head.digest), "at": unix_s(now), **more},
        about=vault,
    )
    values = {
        "version": head.version,
        "digest": new.head.digest,
        "envelope": new.head.encoded,
        "pending_id": pending.id,
    }
    if current is None:
        connection.execute(insert(ring_head), {"vault_id": vault, **values})
    else:
        connection.execute(update(ring_head).where(ring_head.c.vault_id == vault).values(**values))
    connection.execute(insert(store_leaf), {"pending_id": pending.id, "vault_id": vault})


def lock(session: Session, vault: VaultId) -> Remembered | None:
    """Take the vault's turn until the transaction ends; return version and digest of its ring head.

    Everything about one vault's store is decided after this, so that its leaves come in order.
    """
    row = session.connection().execute(_LOCK, {"vault_id": vault}).one_or_none()
    return None if row is None else Remembered(row.version, row.digest)


def read(
    session: Session,
    vault: VaultId,
    periods: Iterable[Period] | None = None,
    *,
    short_key_database: Database | None = None,
) -> StoredRing:
    """Return the ring.

    Args:
        session: Any transaction.
        vault: Whose.
        periods: Only these months' pages; all if None.
        short_key_database: Opens the outer lock of the locked seeds, for the owner; without it none are returned.

    Raises:
        NotStored: The vault has no ring.
    """
    connection = session.connection()
    head = connection.execute(_HEAD, {"vault_id": vault}).one_or_none()
    if head is None:
        raise NotStored("No ring lies here for this vault.")
    wanted = None if periods is None else sorted(set(periods))
    pages = _PAGES.order_by(ring_page.c.period)
    if wanted is not None:
        pages = pages.where(ring_page.c.period.in_(wanted))
    stored = connection.execute(pages, {"vault_id": vault}).all()
    locked = {} if short_key_database is None else _locked_seeds(session, vault, wanted, short_key_database)
    return StoredRing(head.envelope, [(row.envelope, locked.get(row.period, {})) for row in stored], head.pending_id)


def _locked_seeds(
    session: Session, vault: VaultId, periods: list[Period] | None, short_key_database: Database
) -> dict[str, dict[CompartmentId, bytes]]:
    wanted = _COMPARTMENTS.where(compartment.c.locked.is_not(None))
    if periods is not None:
        wanted = wanted.where(compartment.c.period.in_(periods))
    found = session.connection().execute(wanted, {"vault_id": vault}).all()
    names = {row.compartment_id: shortkeys.compartment_key(vault, row.compartment_id) for row in found}
    keys = shortkeys.read(short_key_database, names.values())
    locked: dict[str, dict[CompartmentId, bytes]] = {}
    for row in found:
        key = keys.get(names[row.compartment_id])
        if key is not None:  # its deletion may be committed and this snapshot older
            seed = unlock_short(key, row.locked, row.compartment_id)
            locked.setdefault(row.period, {})[CompartmentId(row.compartment_id)] = seed
    return locked


def compartments(session: Session, vault: VaultId, ids: Iterable[CompartmentId]) -> dict[CompartmentId, Compartment]:
    """Return those compartments that the ring lists and nobody erased: for handovers and for opening."""
    wanted = _COMPARTMENTS.where(compartment.c.compartment_id.in_(list(ids)), compartment.c.locked.is_not(None))
    found = session.connection().execute(wanted, {"vault_id": vault})
    return {CompartmentId(row.compartment_id): _compartment(row) for row in found}


def listed(session: Session, vault: VaultId) -> dict[CompartmentId, Compartment]:
    """Return every compartment that the ring lists and nobody erased."""
    wanted = _COMPARTMENTS.where(compartment.c.locked.is_not(None))
    found = session.connection().execute(wanted, {"vault_id": vault})
    return {CompartmentId(row.compartment_id): _compartment(row) for row in found}


def vaults_before(session: Session, period: Period, *, after: VaultId, at_most: int = 256) -> list[VaultId]:
    """Return vaults whose rings list a month before another that nobody erased, one page at a time, by their ids."""
    old = (compartment.c.period < period) & compartment.c.locked.is_not(None) & (compartment.c.vault_id > after)
    page = select(compartment.c.vault_id).where(old).distinct().order_by(compartment.c.vault_id).limit(at_most)
    return [VaultId(vault) for vault in session.connection().execute(page).scalars()]


def newest(session: Session, vault: VaultId, category: Category, period: Period) -> Compartment | None:
    """Return the compartment of the highest epoch of a category and month: the one that takes batches."""
    wanted = (
        _COMPARTMENTS.where(compartment.c.category == category, compartment.c.period == period)
        .order_by(compartment.c.epoch.desc())
        .limit(1)
    )
    row = session.connection().execute(wanted, {"vault_id": vault}).one_or_none()
    return None if row is None or row.locked is None else _compartment(row)


def forget(session: Session, vault: VaultId, ids: Iterable[CompartmentId] | None = None) -> None:
    """Destroy compartments, or all of a vault's with its ring: locked seeds, batches and their short keys.

    The caller runs `shortkeys.delete_scheduled` after the commit and before any acknowledgement.
    Compartments named one by one stay listed, closed and empty, until the owner publishes pages
    without them.
    """
    lock(session, vault)
    connection = session.connection()
    gone = compartment.c.vault_id == vault
    if ids is not None:
        gone &= compartment.c.compartment_id.in_(sorted(set(ids)))
    found = list(connection.execute(select(compartment.c.compartment_id).where(gone)).scalars())
    shortkeys.schedule_deletion(session, [shortkeys.compartment_key(vault, name) for name in found])
    batches.forget(session, vault, None if ids is None else found)
    if ids is not None:
        connection.execute(update(compartment).where(gone).values(locked=None))
        return
    leaves = connection.execute(select(store_leaf.c.pending_id).where(store_leaf.c.vault_id == vault)).scalars()
    delete_personal_openings(session, list(leaves))
    for table in (compartment, ring_page, ring_device, ring_head, store_leaf):
        connection.execute(delete(table).where(table.c.vault_id == vault))


def _refuse_behind(session: Session, vault: VaultId, listed: Mapping[DeviceId, Device]) -> None:
    """Refuse to revoke a device without what it was acknowledged for after the owner had read its head list."""
    for name, known in listed.items():
        if known.accepted is None or devices.live_key(session, vault, name) is None:
            continue
        for place, last in batches.device_heads(session, vault, name).heads.items():
            if place not in known.accepted or known.accepted[place].seq < last.seq:
                raise VersionConflict("The device sealed more meanwhile; read its head list again, then revoke it.")


def _put_page(session: Session, page: Page, envelope: Envelope, stored: Remembered | None) -> None:
    require_successor(page.version, page.prev, stored)
    values = {"version": page.version, "digest": envelope.digest, "envelope": envelope.encoded}
    if stored is None:
        session.connection().execute(insert(ring_page), {"vault_id": page.vault, "period": page.period, **values})
        return
    place = (ring_page.c.vault_id == page.vault, ring_page.c.period == page.period)
    session.connection().execute(update(ring_page).where(*place).values(**values))


def _put_compartments(session: Session, page: Page, locked: Mapping[CompartmentId, bytes]) -> None:
    connection = session.connection()
    rows = connection.execute(_COMPARTMENTS.where(compartment.c.period == page.period), {"vault_id": page.vault}).all()
    known = {CompartmentId(row.compartment_id): row for row in rows}
    for name, row in known.items():
        if name in page.compartments and _compartment(row) != page.compartments[name]:
            raise BadRing("A compartment keeps its category, epoch, key and locked seed; make a new epoch instead.")
        if name not in page.compartments and row.locked is not None:
            raise BadRing("A compartment leaves the ring only after it was erased.")
    dropped = list(known.keys() - page.compartments.keys())
    connection.execute(
        delete(compartment).where(compartment.c.vault_id == page.vault, compartment.c.compartment_id.in_(dropped))
    )
    new = [c for name, c in page.compartments.items() if name not in known]
    _refuse_misplaced(session, page, new, rows)
    if any(c.id not in locked for c in new):
        raise BadRing("A new compartment came without its locked seed; its owner could never open it.")
    if new:
        connection.execute(insert(compartment), [_row(page.vault, c, locked[c.id]) for c in new])


def _refuse_misplaced(session: Session, page: Page, new: Sequence[Compartment], rows: Sequence[Row[Any]]) -> None:
    epochs: dict[str, int] = {}
    for row in rows:
        epochs[row.category] = max(row.epoch, epochs.get(row.category, 0))
    if any(c.epoch <= epochs.get(c.category, 0) for c in new):
        raise BadRing("A new compartment must have a higher epoch than those its category had that month.")
    elsewhere = _COMPARTMENTS.where(compartment.c.compartment_id.in_([c.id for c in new]))
    if session.connection().execute(elsewhere, {"vault_id": page.vault}).first() is not None:
        raise BadRing("A compartment id is already used in another month.")


def _row(vault: VaultId, c: Compartment, locked: bytes) -> dict[str, Any]:
    return {
        "vault_id": vault,
        "compartment_id": c.id,
        "category": c.category,
        "period": c.period,
        "epoch": c.epoch,
        "public_key": c.public,
        "key_hash": sha256(c.public),
        "locked_hash": c.locked_hash,
        "locked": locked,
    }


def _compartment(row: Row[Any]) -> Compartment:
    return Compartment(
        CompartmentId(row.compartment_id), Category(row.category), Period(row.period), row.epoch, row.public_key,
        row.locked_hash,
    )  # fmt: skip
