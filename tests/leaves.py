"""What tests read back from the log's tables."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy
from sqlmodel import Session


def leaves(session: Session) -> list[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Return (kind, public part, personal part or None once erased) of every recorded event, oldest first."""
    rows = session.connection().execute(
        sqlalchemy.text(
            "SELECT kind, public_body, personal_body FROM log_entry JOIN log_opening ON entry_id = id ORDER BY id"
        )
    )
    return [(kind, _parse(public), _parse(personal)) for kind, public, personal in rows]


def _parse(body: bytes | None) -> Any:
    return None if body is None else json.loads(body)
