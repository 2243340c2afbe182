"""What is kept of a vault beside what its owner signed: how fresh the twin is wanted, and that a vault is for trying out."""

from __future__ import annotations

from sqlmodel import Session, col, select

from vault.parties.models import PersonRow
from vault.parties.people import Person, get, locked
from vault.schema.freshness import Freshness
from vault.seal.ids import VaultId


def choose_freshness(session: Session, vault_id: VaultId, freshness: Freshness) -> Person:
    """Let days close as the owner chose from now on; days that have their rows keep them.

    Args:
        session: An open writing transaction; the person stays locked until it ends.
        vault_id: Whose.
        freshness: Which days close together.

    Raises:
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    row.freshness = freshness
    session.add(row)
    session.flush()
    return get(session, vault_id)


def make_sandbox(session: Session, vault_id: VaultId) -> None:
    """Let test companies, which nobody approved, ask this vault; the operator's own, with invented traces.

    Raises:
        UnknownVault: No such vault.
    """
    row = locked(session, vault_id)
    row.sandbox = True
    session.add(row)
    session.flush()


def is_sandbox(session: Session, vault_id: VaultId) -> bool:
    """Say whether test companies may ask this vault."""
    marked = select(PersonRow.sandbox).where(col(PersonRow.vault_id) == vault_id)
    return session.exec(marked).one_or_none() is True
