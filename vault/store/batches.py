"""Sealed batches as the server keeps them: append-only, one chain per device and compartment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlmodel import Session

from vault.seal.batch import Batch, VerifiedBatch
from vault.seal.device import ChainHead, parse_chain_heads
from vault.seal.dsse import Envelope, parse_envelope, unverified_record
from vault.seal.fields import Fields
from vault.seal.ids import CompartmentId, DeviceId, VaultId
from vault.store.models import batch, head_list
from vault.tlog.log import PendingId, delete_personal_openings

_PAGE_BYTES: Final = 8 << 20
_PAGE_BATCHES: Final = 256

_INSERT = insert(batch)
_INSERT_HEADS = insert(head_list)
_UPDATE_HEADS = (
    update(head_list)
    .where(head_list.c.vault_id == bindparam("of_vault"), head_list.c.device_id == bindparam("of_device"))
    .values(version=bindparam("new_version"), envelope=bindparam("new_envelope"))
)
_HEADS = select(head_list.c.version, head_list.c.envelope).where(
    head_list.c.vault_id == bindparam("vault_id"), head_list.c.device_id == bindparam("device_id")
)

_IN_COMPARTMENT = (
    batch.c.vault_id == bindparam("vault_id"),
    batch.c.compartment_id == bindparam("compartment_id"),
    batch.c.id > bindparam("after"),
)
_SIZES = (
    select(batch.c.id, func.length(batch.c.batch).label("size_bytes"))
    .where(*_IN_COMPARTMENT)
    .order_by(batch.c.id)
    .limit(_PAGE_BATCHES)
)
_PAGE = select(batch.c.id, batch.c.batch).where(*_IN_COMPARTMENT, batch.c.id <= bindparam("last")).order_by(batch.c.id)
_DIGESTS = select(batch.c.compartment_id, batch.c.digest).where(
    batch.c.vault_id == bindparam("vault_id"), batch.c.compartment_id.in_(bindparam("wanted", expanding=True))
)


@dataclass(frozen=True, slots=True)
class DeviceHeads:
    """Where a device's chains end.

    Args:
        version: Of its newest head list, 0 before the first.
        heads: By compartment, all that it ever sealed to.
    """

    version: int
    heads: Mapping[CompartmentId, ChainHead]


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch read back.

    Args:
        id: Grows with each batch of a vault; the cursor of `read`.
        encoded: The batch's bytes, exactly as they came.
    """

    id: int
    encoded: bytes


def device_heads(session: Session, vault: VaultId, device: DeviceId) -> DeviceHeads:
    """Return where a device's chains end, as its newest accepted head list says."""
    row = session.connection().execute(_HEADS, {"vault_id": vault, "device_id": device}).one_or_none()
    if row is None:
        return DeviceHeads(0, {})
    record = Fields(unverified_record(parse_envelope(row.envelope)))  # its signature was checked when it came
    return DeviceHeads(row.version, parse_chain_heads(record.object("heads")))


def append(
    session: Session,
    vault: VaultId,
    device: DeviceId,
    batches: Sequence[VerifiedBatch],
    heads: Envelope,
    *,
    version: int,
    leaf: PendingId,
) -> None:
    """Store verified batches and the head list that ends with them.

    Args:
        session: An open writing transaction that holds the vault's turn (`rings.lock`).
        vault: Whose.
        device: Who sealed and signed.
        batches: In order, each the next of its chain.
        heads: The device's head list after them.
        version: Its version; 1 only for the device's first.
        leaf: The upload's leaf.
    """
    connection = session.connection()
    rows = [
        {
            "vault_id": vault,
            "compartment_id": new.compartment,
            "device_id": device,
            "seq": new.seq,
            "digest": new.head.digest,
            "batch": new.encoded,
            "pending_id": leaf,
        }
        for new in batches
    ]
    connection.execute(_INSERT, rows)
    place = {"of_vault": vault, "of_device": device}
    values = {"new_version": version, "new_envelope": heads.encoded}
    if connection.execute(_UPDATE_HEADS, {**place, **values}).rowcount == 0:
        connection.execute(
            _INSERT_HEADS,
            {"vault_id": vault, "device_id": device, "version": version, "envelope": heads.encoded},
        )


def are_stored(session: Session, vault: VaultId, device: DeviceId, sent: Iterable[Batch]) -> bool:
    """Say whether exactly these batches are stored in their places."""
    places = {(new.compartment, new.seq): new.head.digest for new in sent}
    found = session.connection().execute(
        select(batch.c.compartment_id, batch.c.seq, batch.c.digest).where(
            batch.c.vault_id == vault,
            batch.c.device_id == device,
            # Each by itself: SQLite finds no row by a pair, and would read every batch of the vault.
            batch.c.compartment_id.in_({compartment for compartment, _ in places}),
            batch.c.seq.in_({seq for _, seq in places}),
        )
    )
    stored = {(row.compartment_id, row.seq): row.digest for row in found}
    return all(stored.get(place) == digest for place, digest in places.items())


def read(session: Session, vault: VaultId, compartment: CompartmentId, *, after: int = 0) -> list[StoredBatch]:
    """Return batches of one compartment in the order they came, at most 8 MiB or 256 of them, at least one if any.

    Args:
        session: Any transaction.
        vault: Whose.
        compartment: Which.
        after: The last id already read.
    """
    place = {"vault_id": vault, "compartment_id": compartment, "after": after}
    last, left_bytes = after, _PAGE_BYTES
    for row in session.connection().execute(_SIZES, place):
        left_bytes -= row.size_bytes
        if left_bytes < 0 and last != after:
            break
        last = row.id
    rows = session.connection().execute(_PAGE, {**place, "last": last})
    return [StoredBatch(row.id, row.batch) for row in rows]


def digests(
    session: Session, vault: VaultId, compartments: Iterable[CompartmentId]
) -> dict[CompartmentId, list[bytes]]:
    """Return SHA-256 of every batch of these compartments: what a release id binds.

    Args:
        session: Any transaction.
        vault: Whose.
        compartments: Which; each has its list, empty or not.
    """
    found: dict[CompartmentId, list[bytes]] = {name: [] for name in sorted(compartments)}
    for row in session.connection().execute(_DIGESTS, {"vault_id": vault, "wanted": list(found)}):
        found[CompartmentId(row.compartment_id)].append(row.digest)
    return found


def heads(
    session: Session, vault: VaultId, compartments: Iterable[CompartmentId]
) -> dict[tuple[CompartmentId, DeviceId], int]:
    """Return, for these compartments, the sequence number of the last batch of each device's chain."""
    wanted = batch.c.compartment_id.in_(sorted(set(compartments)))
    place = batch.c.compartment_id, batch.c.device_id
    query = select(*place, func.max(batch.c.seq)).where(batch.c.vault_id == vault, wanted).group_by(*place)
    return {(CompartmentId(one), DeviceId(two)): seq for one, two, seq in session.connection().execute(query)}


def head_lists(session: Session, vault: VaultId) -> dict[DeviceId, bytes]:
    """Return the newest head list of each device, as signed: dropped batches show against it."""
    rows = session.connection().execute(select(head_list).where(head_list.c.vault_id == vault))
    return {DeviceId(row.device_id): row.envelope for row in rows}


def forget(session: Session, vault: VaultId, compartments: Iterable[CompartmentId] | None = None) -> None:
    """Delete batches, all of the vault's with their head lists if no compartments are given.

    Uploads that no batch is left of lose the personal opening of their leaf.
    """
    connection = session.connection()
    gone = batch.c.vault_id == vault
    if compartments is None:
        connection.execute(delete(head_list).where(head_list.c.vault_id == vault))
    else:
        gone &= batch.c.compartment_id.in_(sorted(set(compartments)))
    leaves = set(connection.execute(select(batch.c.pending_id).where(gone).distinct()).scalars())
    connection.execute(delete(batch).where(gone))
    left = select(batch.c.pending_id).where(batch.c.vault_id == vault).distinct()
    leaves -= set(connection.execute(left).scalars())
    delete_personal_openings(session, [PendingId(leaf) for leaf in sorted(leaves)])
