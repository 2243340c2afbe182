"""How many questions of a company were denied within a minute: beyond a few they share one leaf of the log.

What counts is the company alone, whatever it asked under: otherwise the growth of the log, which anybody can see,
would tell a consent that does not exist from one whose person may not be asked about.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import bindparam, case
from sqlmodel import Session

from vault.answers.models import denial_count
from vault.clock import unix_s
from vault.db import Prepared
from vault.proof.member import MINUTE_S

ALONE: Final = 10
"""So many denials of a company in a minute have a leaf each."""

_COUNT: Final = {}
for _dialect, _module in (("sqlite", sqlalchemy.dialects.sqlite), ("postgresql", sqlalchemy.dialects.postgresql)):
    _added = _module.insert(denial_count).values(requester=bindparam("by"), minute_s=bindparam("at"), denials=1)
    _same = denial_count.c.minute_s == _added.excluded.minute_s
    _COUNT[_dialect] = Prepared(
        _added.on_conflict_do_update(
            index_elements=[denial_count.c.requester],
            set_={"minute_s": _added.excluded.minute_s, "denials": case((_same, denial_count.c.denials + 1), else_=1)},
        ).returning(denial_count.c.denials)
    )


def is_flood(session: Session, company: str, now: datetime) -> bool:
    """Count one more denial of a company; say whether it shares a leaf.

    Args:
        session: The writing transaction of the denial.
        company: Who asked.
        now: The current time.
    """
    at_s = unix_s(now)
    count = _COUNT[session.connection().dialect.name].one(session, by=company, at=at_s - at_s % MINUTE_S)
    return int(count.denials) > ALONE
