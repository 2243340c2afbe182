"""A logged event as it is shown to whom it concerns: the proof that the log has it, and what opens both halves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session

from vault.encoding import b64u
from vault.proof.leaf import LeafKind, Opening
from vault.tlog import log
from vault.tlog.errors import NotInLog
from vault.tlog.log import PendingId
from vault.tlog.models import log_entry


def receipt_json(session: Session, pending_id: PendingId) -> dict[str, Any]:
    """Return an event with its receipt under the newest checkpoint.

    Args:
        session: A snapshot taken after the event was sequenced.
        pending_id: From `log.append`.

    Raises:
        NotInLog: No signed checkpoint covers it yet, or its personal half was forgotten.
    """
    leaf = next(iter(log.read(session, [pending_id])), None)
    if leaf is None or leaf.personal is None:
        raise NotInLog("The log does not show this event, or whom it concerned was forgotten.")
    return {
        "index": leaf.index,
        "proof": log.receipt_for(session, leaf.index),
        "entry": b64u(leaf.entry),
        "public": _opening_json(leaf.public),
        "personal": _opening_json(leaf.personal),
    }


def newest_waiting(session: Session, about: bytes, kinds: Iterable[LeafKind]) -> PendingId | None:
    """Return the newest event of some kinds about this that the log has not numbered yet, if one waits."""
    wanted = select(func.max(log_entry.c.id)).where(
        log_entry.c.about == about,
        log_entry.c.leaf_index.is_(None),
        log_entry.c.kind.in_([kind.value for kind in kinds]),
    )
    newest = session.connection().execute(wanted).scalar_one()
    return None if newest is None else PendingId(newest)


def _opening_json(opening: Opening) -> dict[str, str]:
    return {"salt": b64u(opening.salt), "body": b64u(opening.body)}
