"""Where batches may go: what ingest asks about compartments, in one query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select
from sqlmodel import Session

from vault.seal.ids import CompartmentId, VaultId
from vault.store.models import compartment

_later = compartment.alias("later")
_PLACES = select(
    compartment.c.compartment_id,
    compartment.c.key_hash,
    compartment.c.locked,
    compartment.c.epoch,
    select(func.max(_later.c.epoch))
    .where(
        _later.c.vault_id == compartment.c.vault_id,
        _later.c.period == compartment.c.period,
        _later.c.category == compartment.c.category,
    )
    .scalar_subquery()
    .label("newest"),
).where(
    compartment.c.vault_id == bindparam("vault_id"),
    compartment.c.compartment_id.in_(bindparam("ids", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch wants to go.

    Args:
        key_hash: SHA-256 of the compartment's public key.
        is_open: Whether it takes batches: the highest epoch of its category and month, not erased.
    """

    key_hash: bytes
    is_open: bool


def find(session: Session, vault: VaultId, ids: Iterable[CompartmentId]) -> dict[CompartmentId, Place]:
    """Return what ingest asks about each listed compartment; those that the ring does not list are missing."""
    rows = session.connection().execute(_PLACES, {"vault_id": vault, "ids": list(ids)})
    return {
        CompartmentId(row.compartment_id): Place(row.key_hash, row.locked is not None and row.epoch == row.newest)
        for row in rows
    }
