"""What witnesses see of a waiting period, kept for the step that ends it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session

from vault.clock import unix_s
from vault.legacy import steps
from vault.legacy.steps import LegacyState
from vault.parties import people
from vault.proof.merkle import inclusion_proof
from vault.proof.waited import SLACK_S, Waited, parse_waited
from vault.seal.dsse import parse_envelope
from vault.seal.ids import VaultId
from vault.seal.legacy import parse_plan
from vault.tlog import log, witnesses
from vault.tlog.log import PendingId


def begin(session: Session, vault_id: VaultId, *, now: datetime) -> bool:
    """Keep the first cosigned checkpoint that covers a declaration; where that took long, the waiting takes longer.

    Returns:
        Whether there was one, and none before.
    """
    if not people.lock(session, vault_id):
        return False
    row = steps.read(session, vault_id)
    if row is None or row.state != LegacyState.WAITING or row.begun:
        return False
    index, seen = log.leaf_index(session, PendingId(row.leaf_id)), witnesses.newest(session)
    if index is None or seen is None or seen[0] <= index:
        return False
    size, note = seen
    path = tuple(inclusion_proof(index, size, log.hashes_at(session, size)))
    terms = parse_plan(parse_envelope(row.plan), vault_id).terms
    assert terms is not None
    seen_long = now + timedelta(seconds=terms.waiting_s - SLACK_S // 2)
    until_s = max(row.until_s, unix_s(seen_long))
    steps.change(session, vault_id, begun=Waited(note, path, "").dump(), until_s=until_s)
    return True


def end(session: Session, row: Row[Any]) -> bytes:
    """Return what witnesses saw from then until now, for the step that puts the declaration in force to name.

    Returns:
        The record; empty where no witness saw the declaration.
    """
    seen = witnesses.newest(session)
    if not row.begun or seen is None:
        return b""
    begun = parse_waited(row.begun)
    return Waited(begun.begun, begun.path, seen[1]).dump()
