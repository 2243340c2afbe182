"""Holding a consent still while the worker stores what it made under it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent.events import Spendable, decided
from vault.consent.models import consent
from vault.parties import people

_HOLD: Final = (
    select(consent.c.consent_id)
    .where(
        consent.c.consent_id == bindparam("consent_id"),
        consent.c.live,
        consent.c.version == bindparam("version"),
        consent.c.not_before <= bindparam("now"),
        consent.c.not_after > bindparam("now"),
        people.not_frozen(consent.c.vault_id, *people.AS_DECIDED),
    )
    .with_for_update()
)


def hold(session: Session, permit: Spendable, now: datetime) -> bool:
    """Lock a consent if it still allows what was decided; it stays so until the transaction ends.

    Args:
        session: An open writing transaction.
        permit: What was decided.
        now: The current time.

    Returns:
        Whether it is live, in the version that was decided on and inside its window, and the vault not frozen nor
        its profile another.

    Guarantees: what commits with a true answer commits before any withdrawal, freeze or profile is logged.
    """
    values = {"consent_id": permit.consent_id, "version": permit.version, "now": unix_s(now), **decided(permit)}
    return session.connection().execute(_HOLD, values).one_or_none() is not None
