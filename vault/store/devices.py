"""Devices as rings list them, one row each, and what a restored database forgot was revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update
from sqlmodel import Session

from vault.encoding import b64u, dump_json, parse_b64u, parse_json
from vault.seal.device import Device, DeviceRole, dump_chain_head, parse_chain_heads
from vault.seal.dsse import parse_envelope, unverified_record
from vault.seal.errors import SealError
from vault.seal.ids import ID_BYTES, DeviceId, VaultId
from vault.seal.ring import verify_head
from vault.store.errors import BadRing
from vault.store.models import ring_device, ring_head
from vault.tlog.log import Leaf, PendingId

_DEVICE: Final = select(ring_device).where(
    ring_device.c.vault_id == bindparam("vault_id"), ring_device.c.device_id == bindparam("device_id")
)


def find(session: Session, vault: VaultId, device_id: DeviceId) -> Device | None:
    """Return a device of the vault's ring head, revoked or not; None if the head does not list it."""
    row = session.connection().execute(_DEVICE, {"vault_id": vault, "device_id": device_id}).one_or_none()
    if row is None:
        return None
    accepted = None if row.accepted is None else parse_chain_heads(parse_json(row.accepted))
    return Device(row.public_key, DeviceRole(row.role), accepted)


def live_key(session: Session, vault: VaultId, device_id: DeviceId) -> bytes | None:
    """Return the public key of a device that the ring lists and has not revoked."""
    found = find(session, vault, device_id)
    return None if found is None or found.accepted is not None else found.public_key


def put(session: Session, vault: VaultId, devices: Mapping[DeviceId, Device]) -> None:
    """Replace a vault's devices by those of its new ring head.

    Raises:
        BadRing: A device that was revoked is not revoked in it.
    """
    connection, listed = session.connection(), ring_device.c.vault_id == vault
    was_revoked = select(ring_device.c.device_id).where(listed, ring_device.c.accepted.is_not(None))
    for name in connection.execute(was_revoked).scalars():
        if name not in devices or devices[name].accepted is None:
            raise BadRing("A device that was revoked stays listed and revoked; enrol one with a new key.")
    connection.execute(delete(ring_device).where(listed))
    rows = [
        {
            "vault_id": vault,
            "device_id": name,
            "public_key": known.public_key,
            "role": known.role.value,
            "accepted": _dump(known),
        }
        for name, known in devices.items()
    ]
    if rows:
        connection.execute(insert(ring_device), rows)


def revocations(session: Session, leaves: Sequence[Leaf]) -> dict[PendingId, bytes]:
    """Return those of the ring heads behind these leaves that revoke a device, as far as they are in force still.

    A head that another followed before the log took it is left out: what it revoked is revoked in the other too.
    """
    found: dict[PendingId, bytes] = {}
    for leaf in leaves:
        if leaf.personal is None:
            continue
        vault = parse_b64u(parse_json(leaf.personal.body)["vault"], size=ID_BYTES)
        this = (ring_head.c.vault_id == vault) & (ring_head.c.pending_id == leaf.pending_id)
        envelope = session.connection().execute(select(ring_head.c.envelope).where(this)).scalar_one_or_none()
        if envelope is not None and _revokes(envelope):
            found[leaf.pending_id] = envelope
    return found


def revoke_again(session: Session, vault: VaultId, unverified_head: bytes, owner_key: bytes) -> int:
    """Revoke what a ring head revoked that a restored database forgot; safe to repeat.

    The ring itself stays as the backup has it: the pages that the head names may be lost. Its owner's clients publish
    it again.

    Args:
        session: An open writing transaction.
        vault: Whose ring.
        unverified_head: The envelope of the head.
        owner_key: The owner key in force.

    Returns:
        How many devices were in force until now.

    Raises:
        SealError: The owner did not sign it, or it is no ring head of this vault.

    Guarantees: no device is in force again that its owner had revoked, and none that was not in force before.
    """
    head = verify_head(parse_envelope(unverified_head), owner_key, vault)
    again = 0
    for name, known in head.devices.items():
        if known.accepted is not None:
            this = (ring_device.c.vault_id == vault) & (ring_device.c.device_id == name)
            live = update(ring_device).where(this, ring_device.c.accepted.is_(None))
            again += session.connection().execute(live.values(accepted=_dump(known))).rowcount
    return again


def _revokes(envelope: bytes) -> bool:
    listed = unverified_record(parse_envelope(envelope)).get("devices")
    if not isinstance(listed, dict):
        raise SealError("A stored ring head lists no devices.")
    return any(isinstance(known, dict) and "accepted" in known for known in listed.values())


def _dump(device: Device) -> bytes | None:
    if device.accepted is None:
        return None
    return dump_json({b64u(compartment): dump_chain_head(head) for compartment, head in device.accepted.items()})
