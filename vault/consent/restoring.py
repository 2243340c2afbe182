"""Ending again what a restored database forgot that somebody had ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.consent import changes, consents, handovers
from vault.consent.consents import Consent
from vault.encoding import JsonObject, parse_b64u
from vault.schema.consent import ConsentEvent, parse_consent
from vault.schema.terms import BadConsent
from vault.seal.dsse import parse_envelope, unverified_record
from vault.seal.errors import SealError
from vault.seal.ids import ID_BYTES, ConsentId
from vault.seal.signing import Signer

_LIVE: Final = frozenset(event.state for event in ConsentEvent if event.live)
_AGAIN: Final = {event.state: event for event in (ConsentEvent.INVALIDATED, ConsentEvent.EXPIRED)}


def is_withdrawal(public: JsonObject) -> bool:
    """Say whether a consent's leaf, by its public part, is the person's own end of it."""
    return public.get("event_state") == ConsentEvent.WITHDRAWN.state


def end_again(
    session: Session, events: Iterable[tuple[JsonObject, JsonObject, bytes]], *, service: Signer, now: datetime
) -> list[ConsentId]:
    """End every consent whose last journaled event ended it: keys, short keys, tokens and state.

    What the person signed ends it, if it follows the version that is here; anything else the service signs. Where a
    later version was in force last, whose terms are lost, the consent stays as it is here and loses its keys.

    Args:
        session: An open writing transaction; `shortkeys.delete_scheduled` must follow its commit.
        events: Both opened parts of the leaves of consents that the database lacks, oldest first, each with the
            envelope that the journal kept of it, or none.
        service: The service's signing key.
        now: The current time.

    Returns:
        What was still live and is over now. Repeating it is harmless; consents that the database never
        had are left out.

    Guarantees: nothing is answered, refreshed or trained under a consent that had been ended before the restore, nor
        under terms that had been replaced, until the person renews them.
    """
    last: dict[ConsentId, tuple[str, int, bytes]] = {}
    for public, personal, signed in events:
        consent_id = ConsentId(parse_b64u(personal.get("consent"), size=ID_BYTES))
        last[consent_id] = str(public.get("event_state")), int(str(personal.get("version"))), signed
    ended = []
    for consent_id, (state, version, signed) in last.items():
        found = consents.find(session, consent_id)
        if found is None or not found.live:
            continue
        if state in _LIVE:
            if version > found.current.version:
                handovers.close(session, consent_id)  # not every answer opens a key, but each asks for the handover
            continue
        if not (signed and _withdrawn(session, found, signed, now)):
            event = _AGAIN.get(state, ConsentEvent.REVOKED)
            changes.end(session, consent_id, event, service=service, now=now)
        ended.append(consent_id)
    return ended


def _withdrawn(session: Session, found: Consent, signed: bytes, now: datetime) -> bool:
    try:
        envelope = parse_envelope(signed)
        if parse_consent(unverified_record(envelope)).consent_id != found.consent_id:
            return False
        changes.withdraw(session, envelope, vault_id=found.vault_id, now=now)
    except (BadConsent, SealError):
        return False  # a version between the backup and the withdrawal is lost
    return True
