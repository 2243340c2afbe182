"""A request that names the consent it wants renewed: in its owner's list at once, in nobody else's ever."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import b64
from tests.consent_kit import terms
from tests.vault_kit import begin, meet_after
from tests.waiting import together
from vault.consent import consents
from vault.oauth import authorizations
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.ids import ConsentId

LIST = "/v1/authorizations"


def push(server: Any, given: ConsentVersion, **changed: Any) -> tuple[str, str]:
    """Ask for a consent to be renewed; return the signed request and its request_uri."""
    jws, details = server.asked(**{"quota_per_month": 7, **changed})
    response = server.push(details, grant_management_action="replace", grant_id=b64(given.consent_id))
    assert response.status_code == 201, response.text
    return jws, str(response.json()["request_uri"])


def listed(server: Any, vault: Any = None) -> list[dict[str, Any]]:
    response = server.client.get(LIST, headers=server.session(vault))
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return list(response.json()["waiting"])


def renew(server: Any, before: ConsentVersion, jws: str) -> ConsentVersion:
    """Renew as the owner's client does."""
    wanted = terms(ConsentKind.COMPANY, server.acme.company_id, quota_per_month=7)
    digest = hashlib.sha256(jws.encode()).digest()
    renewed: ConsentVersion = server.world.next(before, ConsentEvent.RENEWED, terms=wanted, request_sha256=digest)
    server.world.amend(renewed, jws)
    return renewed


def decide(server: Any, name: str, verb: str, vault: Any = None, **body: str) -> int:
    response = server.client.post(f"{LIST}/{name}/{verb}", json=body, headers=server.session(vault))
    return int(response.status_code)


def query(server: Any, given: ConsentVersion) -> dict[str, Any]:
    """Read the grant as the company does."""
    path, token = f"/v1/grants/{b64(given.consent_id)}", server.token()
    sent = {"authorization": f"DPoP {token}", "dpop": server.proof("GET", path, token=token)}
    response = server.client.get(path, headers=sent)
    assert response.status_code == 200, response.text
    return dict(response.json())


def stranger(server: Any) -> Any:
    return begin(server.database, server.world.shortkeys)[0].vault


def leaves(server: Any) -> int:
    with server.database.snapshot() as session:
        found = session.execute(sqlalchemy.text("SELECT count(*) FROM log_entry WHERE kind = 'consent-request'"))
        return int(found.scalar_one())


def test_a_renewal_is_in_its_owners_list_without_a_code_and_in_no_others(server: Any) -> None:
    given = server.world.give()
    jws, _ = push(server, given)
    (found,) = listed(server)
    assert found["request"] == jws
    assert (found["company"], found["renew"]) == (server.acme.company_id, b64(given.consent_id))
    read = server.client.get(f"{LIST}/{found['name']}", headers=server.session())
    assert read.json() == found
    other = stranger(server)
    assert listed(server, other) == []
    assert server.client.get(f"{LIST}/{found['name']}", headers=server.session(other)).status_code == 404
    assert decide(server, found["name"], "approve", other, consent=b64(given.consent_id)) == 404
    assert decide(server, found["name"], "deny", other) == 404
    assert query(server, given)["renewal"] == "waiting"


def test_a_first_request_is_in_nobodys_list_until_its_code_is_read(server: Any) -> None:
    server.world.give()  # the company knows this owner by an earlier consent, and still cannot address it
    response = server.push()
    assert listed(server) == []
    code = server.code_on(server.open(server.browser(), response.json()["request_uri"]))
    assert listed(server) == []
    owner = server.session()
    read = server.client.get(f"{LIST}/{code}", headers=owner).json()
    assert listed(server) == [read]
    assert listed(server, stranger(server)) == []
    assert decide(server, read["name"], "deny") == 204, "once it was read by its code, its name will do"
    assert listed(server) == []


def test_without_a_browser_the_company_reads_in_its_grant_what_was_decided(server: Any) -> None:
    given = server.world.give()
    jws, uri = push(server, given)
    (found,) = listed(server)
    before = query(server, given)
    assert decide(server, found["name"], "approve", consent=b64(given.consent_id)) == 422, "not renewed yet"
    renew(server, given, jws)
    assert decide(server, found["name"], "approve", consent=b64(given.consent_id)) == 204
    after = query(server, given)
    assert (before["renewal"], after["renewal"]) == ("waiting", "approved")
    assert after["request_sha256"] == b64(hashlib.sha256(jws.encode()).digest()) != before["request_sha256"]
    assert after["authorization_details"][0]["quota"]["n"] == 7
    assert decide(server, found["name"], "deny") == 404, "answered already"
    assert listed(server) == []
    assert server.open(server.browser(), uri).status_code == 400, "no browser was there to be sent back"


def test_a_refusal_without_a_browser_changes_nothing_but_what_the_company_reads(server: Any) -> None:
    given = server.world.give()
    push(server, given)
    (found,) = listed(server)
    assert decide(server, found["name"], "deny") == 204
    told = query(server, given)
    assert told["renewal"] == "denied"
    assert told["authorization_details"][0]["quota"]["n"] == given.terms.quota_per_month
    assert decide(server, found["name"], "approve", consent=b64(given.consent_id)) == 404
    push(server, given)
    assert query(server, given)["renewal"] == "waiting"


def test_the_request_waits_for_days_and_its_address_for_a_browser_90_seconds(quick: Any) -> None:
    given = quick.world.give()
    _, uri = push(quick, given)
    quick.clock.at += timedelta(seconds=authorizations.PUSHED_S)
    assert quick.open(quick.browser(), uri).status_code == 400
    quick.clock.at += timedelta(seconds=authorizations.NAMED_S - authorizations.PUSHED_S - 1)
    (found,) = listed(quick)
    quick.clock.at += timedelta(seconds=1)
    assert listed(quick) == []
    assert decide(quick, found["name"], "deny") == 404
    assert query(quick, given)["renewal"] == "expired"


def test_a_browser_that_opens_it_shows_a_code_and_the_list_answers_it_too(server: Any) -> None:
    given = server.world.give()
    jws, uri = push(server, given)
    browser = server.browser()
    server.code_on(server.open(browser, uri))
    (found,) = listed(server)
    renew(server, given, jws)
    assert decide(server, found["name"], "approve", consent=b64(given.consent_id)) == 204
    body = server.post(server.code_form(server.landed(server.open(browser, uri))["code"])).json()
    assert body["grant_id"] == b64(given.consent_id)
    assert body["authorization_details"][0]["quota"]["n"] == 7


def test_a_browser_that_opens_it_and_leaves_takes_it_from_no_list(quick: Any) -> None:
    given = quick.world.give()
    jws, uri = push(quick, given)
    (before,) = listed(quick)
    browser = quick.browser()
    quick.code_on(quick.open(browser, uri))
    quick.clock.at += timedelta(seconds=authorizations.NAMED_S - 1)
    assert listed(quick) == [before]
    renew(quick, given, jws)
    assert decide(quick, before["name"], "approve", consent=b64(given.consent_id)) == 204
    assert query(quick, given)["renewal"] == "approved"


def test_asking_again_replaces_what_waits_and_adds_one_leaf_a_day(server: Any) -> None:
    given = server.world.give()
    other = server.world.give()
    requests = [push(server, given)[0] for _ in range(3)]
    assert [item["request"] for item in listed(server)] == requests[-1:]
    assert leaves(server) == 1
    push(server, other)
    assert len(listed(server)) == 2, "another consent has its own request"
    assert leaves(server) == 2
    server.clock.at += timedelta(days=1)
    push(server, given)
    assert leaves(server) == 3


def test_of_two_requests_at_once_one_replaces_the_other(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = server.world.give()
    meet_after(monkeypatch, authorizations, "push", server.database)
    together(*[lambda: push(server, given)] * 2)
    assert len(listed(server)) == 1
    assert leaves(server) == 1


@pytest.mark.parametrize("event", [ConsentEvent.WITHDRAWN, ConsentEvent.REVOKED])
def test_what_cannot_be_renewed_any_more_is_not_asked(server: Any, event: ConsentEvent) -> None:
    from vault.consent import changes

    given = server.world.give()
    push(server, given)
    if event is ConsentEvent.WITHDRAWN:
        server.world.withdraw(given)
    else:
        with server.database.transaction() as session:
            changes.end(session, ConsentId(given.consent_id), event, service=server.world.service, now=server.now)
    assert listed(server) == []
    refused = server.push(grant_management_action="replace", grant_id=b64(given.consent_id))
    assert refused.json()["error"] == "invalid_grant"


def test_the_list_is_an_owners_own(quick: Any) -> None:
    assert quick.client.get(LIST).status_code == 401


def test_a_forgotten_vault_was_never_asked(server: Any) -> None:
    given = server.world.give()
    push(server, given)
    with server.database.transaction() as session:
        authorizations.forget(session, server.world.owner.vault)
    assert listed(server) == []
    with server.database.snapshot() as session:
        assert consents.find(session, ConsentId(given.consent_id)) is not None
        kept = session.execute(sqlalchemy.text("SELECT count(*) FROM oauth_authorization")).scalar_one()
    assert kept == 0
