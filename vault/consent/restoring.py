"""Ending again what a restored database forgot that somebody had ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.consent import changes, consents
from vault.encoding import JsonObject, parse_b64u
from vault.schema.consent import ConsentEvent
from vault.seal.ids import ID_BYTES, ConsentId
from vault.seal.signing import Signer

_LIVE: Final = frozenset(event.state for event in ConsentEvent if event.live)
# What the person signed is lost with the newer database: every other end is signed by the service, as by somebody else.
_AGAIN: Final = {event.state: event for event in (ConsentEvent.INVALIDATED, ConsentEvent.EXPIRED)}


def end_again(
    session: Session, events: Iterable[tuple[JsonObject, JsonObject]], *, service: Signer, now: datetime
) -> list[ConsentId]:
    """End every consent whose last journaled event ended it: keys, short keys, tokens and state.

    Args:
        session: An open writing transaction; `shortkeys.delete_scheduled` must follow its commit.
        events: Both opened parts of the leaves of consents that the database lacks, oldest first.
        service: The service's signing key.
        now: The current time.

    Returns:
        What was still live and is over now. Repeating it is harmless; consents that the database never
        had are left out.

    Guarantees: nothing is answered, refreshed or trained under a consent that had been ended before the restore.
    """
    last: dict[ConsentId, str] = {}
    for public, personal in events:
        last[ConsentId(parse_b64u(personal.get("consent"), size=ID_BYTES))] = str(public.get("event_state"))
    ended = []
    for consent_id, state in last.items():
        found = consents.find(session, consent_id)
        if state not in _LIVE and found is not None and found.live:
            event = _AGAIN.get(state, ConsentEvent.REVOKED)
            changes.end(session, consent_id, event, service=service, now=now)
            ended.append(consent_id)
    return ended
