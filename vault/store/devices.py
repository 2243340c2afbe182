"""Devices as rings list them, one row each, and what a restored database forgot was revoked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update
from sqlmodel import Session

from vault.encoding import b64u, dump_json, parse_json
from vault.seal.device import Device, DeviceRole, dump_chain_head, parse_chain_heads
from vault.seal.ids import DeviceId, VaultId
from vault.store.errors import BadRing
from vault.store.models import ring_device

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


def put(session: Session, vault: VaultId, devices: Mapping[DeviceId, Device]) -> list[DeviceId]:
    """Replace a vault's devices by those of its new ring head.

    Returns:
        Those that it revokes and the head before did not.

    Raises:
        BadRing: A device that was revoked is not revoked in it.
    """
    connection, listed = session.connection(), ring_device.c.vault_id == vault
    query = select(ring_device.c.device_id).where(listed, ring_device.c.accepted.is_not(None))
    was_revoked = set(connection.execute(query).scalars())
    revoked = {name for name, known in devices.items() if known.accepted is not None}
    if was_revoked - revoked:
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
    return sorted(revoked - was_revoked)


def revoke_again(session: Session, vault: VaultId, names: Collection[DeviceId]) -> int:
    """Revoke devices that a restored database lists as in force although they were revoked; safe to repeat.

    The ring itself stays as the backup has it: the pages that a newer head names may be lost. Its owner's clients
    publish it again, and with it the last batches that count.

    Args:
        session: An open writing transaction.
        vault: Whose.
        names: Which.

    Returns:
        How many were in force until now.
    """
    live = update(ring_device).where(
        ring_device.c.vault_id == vault, ring_device.c.device_id.in_(names), ring_device.c.accepted.is_(None)
    )
    return session.connection().execute(live.values(accepted=dump_json({}))).rowcount


def _dump(device: Device) -> bytes | None:
    if device.accepted is None:
        return None
    return dump_json({b64u(compartment): dump_chain_head(head) for compartment, head in device.accepted.items()})
