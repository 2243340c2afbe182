"""A logged event as it is shown to whom it concerns: the proof that the log has it, and what opens both halves."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from vault.encoding import b64u
from vault.proof.leaf import Opening
from vault.tlog import log
from vault.tlog.errors import NotInLog
from vault.tlog.log import PendingId


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


def _opening_json(opening: Opening) -> dict[str, str]:
    return {"salt": b64u(opening.salt), "body": b64u(opening.body)}
