"""Slots: the root behind a passphrase or recovery code, found by SHA-256 of a locator that only its owner can compute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import delete, func, select
from sqlmodel import Session

from vault.errors import VaultError
from vault.seal.ids import VaultId
from vault.seal.slot import Slot
from vault.store import rings
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
    rings.lock(session, vault)  # two slots at once must not both be the sixteenth
    connection = session.connection()
    others = select(func.count()).select_from(slot).where(slot.c.vault_id == vault, slot.c.locator_hash != new.slot_id)
    if connection.execute(others).scalar_one() >= MAX_SLOTS:
        raise TooManySlots(f"A vault has at most {MAX_SLOTS} slots; delete one first.")
    sqlite = session.get_bind().dialect.name == "sqlite"
    dialect = sqlalchemy.dialects.sqlite if sqlite else sqlalchemy.dialects.postgresql
    statement = (
        dialect.insert(slot)
        .values(locator_hash=new.slot_id, vault_id=vault, slot=new.encoded)
        .on_conflict_do_update(
            index_elements=["locator_hash"], set_={"slot": new.encoded}, where=slot.c.vault_id == vault
        )
        .returning(slot.c.vault_id)
    )
    if connection.execute(statement).one_or_none() is None:
        raise AlreadyStored("A slot lies there already; choose another passphrase or device secret.")


def find(session: Session, locator_hash: bytes) -> tuple[VaultId, bytes] | None:
    """Return the vault and the bytes of the slot behind a locator, if there is one."""
    row = session.connection().execute(select(slot).where(slot.c.locator_hash == locator_hash)).one_or_none()
    return None if row is None else (VaultId(row.vault_id), row.slot)


def every(session: Session, vault: VaultId) -> list[bytes]:
    """Return all slots of a vault."""
    wanted = select(slot.c.slot).where(slot.c.vault_id == vault).order_by(slot.c.locator_hash)
    return list(session.connection().execute(wanted).scalars())


def put_only(session: Session, vault: VaultId, kept: Iterable[Slot]) -> None:
    """Store slots in place of all that the vault has: nothing else opens it from now on.

    Raises:
        AlreadyStored: Another vault has a slot there.
        TooManySlots: More than 16.
    """
    forget(session, vault)
    for one in sorted(kept, key=lambda one: one.slot_id):  # one order, so that no two wait for each other
        put(session, vault, one)


def remove(session: Session, vault: VaultId, locator_hash: bytes) -> None:
    """Delete a slot of this vault; nothing happens if it has none there."""
    session.connection().execute(delete(slot).where(slot.c.locator_hash == locator_hash, slot.c.vault_id == vault))


def forget(session: Session, vault: VaultId) -> None:
    """Delete all slots of a vault; erasure calls this."""
    session.connection().execute(delete(slot).where(slot.c.vault_id == vault))
