"""Accepting an upload: everything that a server without any key can check about sealed batches.

One upload is one transaction: all its batches, the head list that ends with them and one leaf, or
nothing. A client relies on none of these checks; they keep an honest owner's store consistent and
tell an honest device early what it did wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import b64u
from vault.errors import VaultError
from vault.parties.caller import DeviceCaller
from vault.proof.leaf import LeafKind
from vault.seal.batch import Batch
from vault.seal.device import ChainHead, Device
from vault.seal.ids import CompartmentId
from vault.seal.upload import Acknowledgement, Upload, verify_upload
from vault.store import batches, devices, places, rings
from vault.tlog.log import append

_NO_BATCH: Final = ChainHead(0, bytes(32))


class UnknownDevice(VaultError):
    """A device that the vault's ring does not list, or that it has revoked."""

    slug = "unknown-device"
    title = "Unknown device"
    status = 403


class UnknownCompartment(VaultError):
    """A batch for a compartment that this vault's ring does not list; fetch the ring and seal again."""

    slug = "unknown-compartment"
    title = "Unknown compartment"
    status = 409


class ClosedEpoch(VaultError):
    """A batch for a compartment that a newer epoch replaced or that was erased; seal to the newest one."""

    slug = "closed-epoch"
    title = "Closed epoch"
    status = 409


class BrokenChain(VaultError):
    """A batch that does not follow the last one accepted from its device in its compartment."""

    slug = "broken-chain"
    title = "Broken chain"
    status = 409


class StaleHeadList(VaultError):
    """A head list older than one the device signed before."""

    slug = "stale-head-list"
    title = "Stale head list"
    status = 409


def accept(session: Session, caller: DeviceCaller, upload: Upload, *, now: datetime) -> Acknowledgement:
    """Store an upload; the caller signs and sends the acknowledgement after the commit.

    Batches that are stored already, byte for byte, are skipped, so a device that lost the answer
    sends again what it sent.

    Args:
        session: An open writing transaction.
        caller: The device, signed in.
        upload: From `parse_upload`; nothing in it is trusted.
        now: The current time.

    Raises:
        UnknownDevice: The ring does not list the device, or has revoked it.
        UnknownCompartment: A batch names a compartment or key that the ring does not.
        ClosedEpoch: A batch is for a compartment that takes no more.
        BrokenChain: A gap, a fork, another order; the sentence says which number is expected.
        StaleHeadList: The head list does not grow.
        SealError: A signature, address or the head list does not verify.

    Guarantees: what is acknowledged is committed with its leaf; what is refused leaves no trace.
    """
    rings.lock(session, caller.vault_id)
    device = _live_device(session, caller)
    stored = batches.device_heads(session, caller.vault_id, caller.device_id)
    old, new = _split(upload.batches, stored.heads)
    if old and not batches.are_stored(session, caller.vault_id, caller.device_id, old):
        raise _broken(old[0], stored.heads[old[0].compartment])
    touched = {batch.compartment for batch in upload.batches}
    heads = _store(session, caller, device, replace(upload, batches=new), stored, now=now) if new else stored.heads
    return Acknowledgement(
        caller.vault_id, caller.device_id, upload.digest, unix_s(now), {name: heads[name] for name in touched}
    )


def _split(
    sent: Iterable[Batch], stored: Mapping[CompartmentId, ChainHead]
) -> tuple[tuple[Batch, ...], tuple[Batch, ...]]:
    """Return the batches whose numbers are taken already, and those that go on where the chains end."""
    heads = dict(stored)
    old: list[Batch] = []
    new: list[Batch] = []
    for batch in sent:
        last = heads.get(batch.compartment, _NO_BATCH)
        if batch.seq <= stored.get(batch.compartment, _NO_BATCH).seq:
            old.append(batch)
        elif (batch.seq, batch.prev) == (last.seq + 1, last.digest):
            new.append(batch)
            heads[batch.compartment] = batch.head
        else:
            raise _broken(batch, last)
    return tuple(old), tuple(new)


def _store(
    session: Session,
    caller: DeviceCaller,
    device: Device,
    upload: Upload,
    stored: batches.DeviceHeads,
    *,
    now: datetime,
) -> Mapping[CompartmentId, ChainHead]:
    keys = _open_keys(session, caller, upload)
    verified, head_list = verify_upload(upload, caller.vault_id, device, keys, stored.heads)
    if head_list.version <= stored.version:
        raise StaleHeadList(f"The head list must have a version above {stored.version}; sign a newer one.")
    leaf = append(
        session,
        LeafKind.UPLOAD,
        {"period": f"{now:%Y-%m}"},
        {
            "vault": b64u(caller.vault_id),
            "device": b64u(caller.device_id),
            "head_list": b64u(upload.head_list.digest),
            "batches": [b64u(batch.head.digest) for batch in verified],
            "count": len(verified),
            "at": unix_s(now),
        },
        about=caller.vault_id,
    )
    batches.append(
        session, caller.vault_id, caller.device_id, verified, upload.head_list, version=head_list.version, leaf=leaf.id
    )
    return head_list.heads


def _live_device(session: Session, caller: DeviceCaller) -> Device:
    device = devices.find(session, caller.vault_id, caller.device_id)
    if device is None or device.accepted is not None:
        raise UnknownDevice("The vault's ring does not list this device, or has revoked it; ask the owner to add it.")
    return device


def _open_keys(session: Session, caller: DeviceCaller, upload: Upload) -> dict[CompartmentId, bytes]:
    wanted = {batch.compartment: batch.key_hash for batch in upload.batches}
    found = places.find(session, caller.vault_id, wanted)
    for name in wanted:
        if name not in found:
            raise UnknownCompartment("The vault's ring lists no such compartment; fetch the ring and seal again.")
        if not found[name].is_open:
            raise ClosedEpoch("The compartment takes no more batches; fetch the ring and seal to its newest epoch.")
    return {name: place.key_hash for name, place in found.items()}


def _broken(batch: Batch, last: ChainHead) -> BrokenChain:
    return BrokenChain(
        f"A batch says number {batch.seq} or another predecessor where number {last.seq + 1} after the last accepted "
        f"batch of compartment {b64u(batch.compartment)} is expected."
    )
