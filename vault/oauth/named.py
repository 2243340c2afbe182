"""Requests that name the consent they want renewed, in the owner's log: noticed without a code and without a browser."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.clock import DAY_S, month_of, unix_s
from vault.consent import events
from vault.consent.consents import Consent
from vault.encoding import b64u
from vault.oauth import authorizations
from vault.oauth.authorizations import Pushed
from vault.parties.once import spend
from vault.proof.leaf import LeafKind
from vault.seal.ids import sha256

REQUESTED_STATE: Final = "dpv:ConsentRequested"


def push(session: Session, asked: Pushed, renewed: Consent, *, now: datetime) -> str:
    """Keep a request to renew a consent for the owner's list, and log it, once a day and consent.

    Args:
        session: An open writing transaction.
        asked: What was pushed; names `renewed`.
        renewed: A live consent of the company that asks, locked.
        now: The current time.

    Returns:
        The request_uri, which a browser may still open.

    Guarantees: a company that pushes again and again replaces its own request and adds one leaf a day.
    """
    uri = authorizations.push(session, asked, vault_id=renewed.vault_id, now=now)
    today = unix_s(now) // DAY_S
    once = renewed.consent_id + today.to_bytes(8, "big")
    if spend(session, b"renewal-asked", once, expires_at_s=(today + 1) * DAY_S, now=now):
        events.record_event(
            session,
            renewed.consent_id,
            LeafKind.CONSENT_REQUEST,
            {"event_state": REQUESTED_STATE, "period": month_of(now)},
            {"grantee": asked.company_id, "at": unix_s(now), "record": b64u(sha256(asked.request.encode()))},
        )
    return uri
