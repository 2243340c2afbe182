"""Account records: the owner's locked signing and pairwise seeds, one current version per vault."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.seal.account import Account, verify_account
from vault.seal.dsse import Envelope
from vault.seal.ids import VaultId
from vault.seal.version import Remembered
from vault.store.models import account, store_leaf
from vault.store.versions import require_successor
from vault.tlog.log import append


def publish(session: Session, vault: VaultId, owner_key: bytes, envelope: Envelope, *, now: datetime) -> None:
    """Put an account record in force if it follows the stored one; writes the row and its leaf.

    Args:
        session: An open writing transaction.
        vault: Whose.
        owner_key: The owner key in force.
        envelope: What arrived; the stored one again is accepted and changes nothing.
        now: The current time.

    Raises:
        SealError: Not signed by the owner, another vault's, or malformed.
        VersionConflict: Another version was published first.
    """
    record = verify_account(envelope, owner_key, vault)
    connection = session.connection()
    row = connection.execute(select(account).where(account.c.vault_id == vault).with_for_update()).one_or_none()
    current = None if row is None else Remembered(row.version, row.digest)
    if current is not None and current.digest == envelope.digest:
        return
    require_successor(record.version, record.prev, current)
    _put(session, record, envelope, now, first=current is None)


def put_again(session: Session, vault: VaultId, owner_key: bytes, envelope: Envelope, *, now: datetime) -> None:
    """Put an account record in force that a restored database forgot, with the versions before it; writes row and leaf.

    Args:
        session: An open writing transaction.
        vault: Whose.
        owner_key: The owner key in force.
        envelope: The record.
        now: The current time.

    Raises:
        SealError: Not signed by the owner, another vault's, or malformed.
    """
    record = verify_account(envelope, owner_key, vault)
    _put(session, record, envelope, now, first=find(session, vault) is None)


def _put(session: Session, record: Account, envelope: Envelope, now: datetime, *, first: bool) -> None:
    connection, vault = session.connection(), record.vault
    values = {"version": record.version, "digest": envelope.digest, "envelope": envelope.encoded}
    if first:
        connection.execute(insert(account), {"vault_id": vault, **values})
    else:
        connection.execute(update(account).where(account.c.vault_id == vault).values(**values))
    pending = append(
        session,
        LeafKind.ACCOUNT,
        {"period": f"{now:%Y-%m}"},
        {"vault": b64u(vault), "version": record.version, "record": b64u(envelope.digest), "at": unix_s(now)},
        about=vault,
    )
    connection.execute(insert(store_leaf), {"pending_id": pending.id, "vault_id": vault})


def find(session: Session, vault: VaultId) -> bytes | None:
    """Return the envelope bytes of the account record in force."""
    wanted = select(account.c.envelope).where(account.c.vault_id == vault)
    envelope: bytes | None = session.connection().execute(wanted).scalar_one_or_none()
    return envelope


def forget(session: Session, vault: VaultId) -> None:
    """Delete the account record; erasure calls this."""
    session.connection().execute(delete(account).where(account.c.vault_id == vault))
