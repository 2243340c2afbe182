"""Slots: the root behind a passphrase or recovery code, found by SHA-256 of a locator that only its owner can compute."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlmodel import Session

from vault.errors import VaultError
from vault.seal.ids import VaultId
from vault.seal.slot import Slot
from vault.store.errors import AlreadyStored
from vault.store.models import slot

MAX_SLOTS: Final = 16


class TooManySlots(VaultError):
    """A vault with as many slots as it may have; delete one first."""

    slug = "too-many-slots"
    title = "Too many slots"
    status = 409


def put(session: Session, vault: VaultId, new: Slot) -> None:
    """Store a slot, replacing the vault's own one of the same locator.

    Raises:
        AlreadyStored: Another vault has a slot there.
        TooManySlots: The vault has 16 already.
    """
    connection = session.connection()
    holder = connection.execute(select(slot.c.vault_id).where(slot.c.locator_hash == new.slot_id)).scalar_one_or_none()
    if holder is None:
        count = select(func.count()).select_from(slot).where(slot.c.vault_id == vault)
        if connection.execute(count).scalar_one() >= MAX_SLOTS:
            raise TooManySlots(f"A vault has at most {MAX_SLOTS} slots; delete one first.")
        connection.execute(insert(slot), {"locator_hash": new.slot_id, "vault_id": vault, "slot": new.encoded})
    elif holder == vault:
        connection.execute(update(slot).where(slot.c.locator_hash == new.slot_id).values(slot=new.encoded))
    else:
        raise AlreadyStored("A slot lies there already; choose another passphrase or device secret.")


def find(session: Session, locator_hash: bytes) -> tuple[VaultId, bytes] | None:
    """Return the vault and the bytes of the slot behind a locator, if there is one."""
    row = session.connection().execute(select(slot).where(slot.c.locator_hash == locator_hash)).one_or_none()
    return None if row is None else (VaultId(row.vault_id), row.slot)


def remove(session: Session, vault: VaultId, locator_hash: bytes) -> None:
    """Delete a slot of this vault; nothing happens if it has none there."""
    session.connection().execute(delete(slot).where(slot.c.locator_hash == locator_hash, slot.c.vault_id == vault))


def forget(session: Session, vault: VaultId) -> None:
    """Delete all slots of a vault; erasure calls this."""
    session.connection().execute(delete(slot).where(slot.c.vault_id == vault))
