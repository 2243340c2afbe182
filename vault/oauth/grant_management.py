"""Routes where a company reads and gives back the consents it was given.

Source: Grant Management for OAuth 2.0 (FAPI working group), sections 6.2 to 6.4; `grant_id` is the consent id.
"""

from __future__ import annotations

from typing import Any, assert_never

from fastapi import APIRouter, Request
from sqlmodel import Session

from vault.clock import unix_s
from vault.consent import changes
from vault.consent.consents import Consent
from vault.consent.errors import UnknownConsent
from vault.consent.routes import CustodyDep
from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep
from vault.oauth import authorizations
from vault.oauth.authorizations import Authorization, State
from vault.oauth.held import find_grant, granted
from vault.oauth.metadata import GRANTS_PATH
from vault.oauth.resource import CompanyDep
from vault.parties import companies
from vault.parties.caller import CompanyCaller
from vault.schema.consent import ConsentEvent
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId
from vault.store import shortkeys

grants_router = APIRouter(prefix=GRANTS_PATH, tags=["oauth"])


@grants_router.get("/{grant_id}")
def query(grant_id: str, caller: CompanyDep, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return what a grant of the company's own allows now; any other, or one that is over, is the same 404.

    `request_sha256` names the request that it answers. `renewal` is how far the newest request to renew it has come:
    a company that sent no browser learns here what the owner decided.
    """
    with database.snapshot() as session:
        found = _own(session, grant_id, caller, clock)
        asked = authorizations.newest_for(session, found.consent_id, found.vault_id)
    answered = {**granted(found), "request_sha256": b64u(found.current.request_sha256)}
    return answered if asked is None else {**answered, "renewal": _renewal(asked, clock)}


@grants_router.delete("/{grant_id}", status_code=204)
def revoke(
    *, grant_id: str, caller: CompanyDep, custody: CustodyDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> None:
    """Give a grant back: the consent has ended, is logged and its keys deleted before this answers.

    The version says `returned`, by this company: not the person's withdrawal, the operator's revocation or an expiry.
    The service signs it, as it signs every ending that the person did not cause.
    """
    state = request.app.state
    with database.transaction() as session:
        found = _own(session, grant_id, caller, clock)
        change = changes.end(session, found.consent_id, ConsentEvent.RETURNED, service=state.service, now=clock.now())
    custody.forget(found.consent_id)
    shortkeys.delete_scheduled(database, custody.short_keys)
    state.sequencer.wait(change.pending.id, state.settings.checkpoint_wait_s)


def _renewal(asked: Authorization, clock: ClockDep) -> str:
    match asked.state:
        case State.DENIED:
            return "denied"
        case State.PUSHED | State.SHOWN:
            return "waiting" if asked.expires_at_s > unix_s(clock.now()) else "expired"
        case State.APPROVED | State.ISSUED | State.REDEEMED:
            return "approved"
        case _:
            assert_never(asked.state)


def _own(session: Session, unverified_grant_id: str, caller: CompanyCaller, clock: ClockDep) -> Consent:
    grant_id = ConsentId(parse_id(unverified_grant_id))
    found = find_grant(session, grant_id, companies.get(session, caller.company_id), now=clock.now())
    if found is None or caller.grant_id not in {None, grant_id}:
        raise UnknownConsent("This company holds no live grant of this id.")
    return found
