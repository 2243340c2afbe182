"""A company replaces its own record by both keys in force, so often and no more."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from tests.company_kit import REDIRECT, CompanyKit, new_key, public
from tests.consent_kit import World
from tests.leaves import leaves
from tests.oauth.conftest import ISSUER, make_server
from tests.oauth.test_authorize import shown
from tests.oauth.test_registration import register
from tests.vault_kit import wait_until_blocked
from vault.db import Database
from vault.oauth import registration
from vault.oauth.client import ASSERTION_TYPE
from vault.parties import companies
from vault.parties.companies import CompanyId


def change(server: Any, kit: CompanyKit, record: str, auth: Any, **changes: Any) -> Any:
    """Send a company's next record; `auth` is the authentication key that it names."""
    signed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": server.form()["client_assertion"]}
    given = {"redirect_uris": [REDIRECT], "jwks": {"keys": [public(auth)]}, "company_record": record, **signed}
    return server.client.put(f"/v1/register/{kit.company_id}", json=given | changes)


def next_record(server: Any, auth: Any, **changes: Any) -> str:
    later = {"version": 2, "issued_at": int(server.now.timestamp()), "client_auth_key": public(auth)}
    return str(server.acme.record(server.now, **later | changes))


def test_a_company_changes_its_keys_and_what_was_issued_before_is_over(server: Any) -> None:
    body, _ = server.tokens()
    plain = server.post(server.form()).json()["access_token"]
    assert [server.ask(token).status_code for token in (body["access_token"], plain)] == [200, 200]
    _, _, code = shown(server)
    server.clock.at += timedelta(seconds=61)
    auth, question, former = new_key(), new_key(), server.acme.auth
    done = change(server, server.acme, next_record(server, auth, question_key=public(question)), auth)
    assert (done.status_code, done.json()["company_status"]) == (200, "approved"), done.text
    for token in (body["access_token"], plain):
        assert server.ask(token).status_code == 401
    assert server.post(server.form()).json()["error"] == "invalid_client", "the former key authenticates nobody"
    server.acme.auth = auth
    refreshed = server.post(server.refresh_form(body["refresh_token"]))
    assert refreshed.json()["error"] == "invalid_grant"
    assert server.client.get(f"/v1/authorizations/{code}", headers=server.session()).status_code == 404
    assert server.ask(server.post(server.form()).json()["access_token"]).status_code == 200
    with server.database.snapshot() as session:
        company = companies.get(session, CompanyId(server.acme.company_id))
        assert (company.version, company.question_key.kid) == (2, question.thumbprint())
        assert len([kind for kind, _, _ in leaves(session) if kind == "company"]) == 2
    server.acme.auth = former
    assert change(server, server.acme, next_record(server, former, version=3), former).status_code == 401


def test_keys_change_only_by_both_keys_in_force(quick: Any) -> None:
    quick.clock.at += timedelta(seconds=61)
    auth, thief = new_key(), new_key()
    record = next_record(quick, auth)
    mine, quick.acme.auth = quick.acme.auth, thief
    stolen = change(quick, quick.acme, record, auth)
    assert (stolen.status_code, stolen.json()["error"]) == (401, "invalid_client"), "the question key alone"
    quick.acme.auth = mine
    forged = quick.acme.record(quick.now, signer=thief, version=2, client_auth_key=public(auth))
    refused = change(quick, quick.acme, forged, auth)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata"), "the other alone"
    other = CompanyKit(name="Other")
    with quick.database.transaction() as session:
        companies.register(session, other.record(quick.now), now=quick.now)
    assert change(quick, other, record, auth).status_code == 401, "another company's assertion"
    theirs = other.record(quick.now, version=2, client_auth_key=public(auth))
    assert change(quick, quick.acme, theirs, auth).status_code == 400, "another company's record"
    with quick.database.snapshot() as session:
        assert {companies.get(session, CompanyId(kit.company_id)).version for kit in (quick.acme, other)} == {1}


def test_a_company_with_the_same_key_puts_no_record_of_another_in_force(quick: Any) -> None:
    """A test company has whatever name it gave itself: so an approved one would get it, as often as it likes."""
    bank = CompanyKit(name="Your Bank")
    assert register(quick, bank, sandbox=True).status_code == 201
    shared = next_record(quick, quick.acme.auth, question_key=public(bank.question))
    assert change(quick, quick.acme, shared, quick.acme.auth).status_code == 200
    renamed = next_record(
        quick, quick.acme.auth, version=3, name=bank.name, signer=bank.question, question_key=public(bank.question)
    )
    asserted = bank.assertion(ISSUER, quick.now)
    refused = change(quick, bank, renamed, quick.acme.auth, client_assertion=asserted)
    assert (refused.status_code, "another company" in refused.json().get("error_description", "")) == (400, True)
    with quick.database.snapshot() as session:
        company = companies.get(session, CompanyId(quick.acme.company_id))
    assert (company.version, company.name) == (2, quick.acme.name)


@pytest.mark.parametrize(
    ("record", "metadata"),
    [
        ({"version": 1}, {}),
        ({"version": 3}, {}),
        ({"name": "A Bank"}, {}),
        ({"agent": 1}, {}),
        ({}, {"company_record": None}),
        ({}, {"jwks": None}),
        ({}, {"redirect_uris": ["https://evil.example/cb"]}),
        ({"redirect_uris": ["https://acme.example/new"]}, {}),
    ],
)
def test_a_change_that_is_not_the_next_record_is_refused(
    quick: Any, record: dict[str, Any], metadata: dict[str, Any]
) -> None:
    quick.clock.at += timedelta(seconds=61)
    auth = new_key()
    refused = change(quick, quick.acme, next_record(quick, auth, **record), auth, **metadata)
    assert (refused.status_code, refused.json()["error"][:8]) == (400, "invalid_")
    assert quick.post(quick.form()).status_code == 200, "the keys stay as they were"


def test_a_new_question_key_alone_leaves_tokens_and_ends_what_waits(quick: Any) -> None:
    plain = quick.post(quick.form()).json()["access_token"]
    _, _, code = shown(quick)
    quick.clock.at += timedelta(seconds=61)
    question = new_key()
    record = next_record(quick, quick.acme.auth, question_key=public(question), contact="new@acme.example")
    assert change(quick, quick.acme, record, quick.acme.auth).status_code == 200
    assert quick.ask(plain).status_code == 200
    assert quick.client.get(f"/v1/authorizations/{code}", headers=quick.session()).status_code == 404


def test_what_a_changed_company_signs_next_follows_its_new_key(quick: Any) -> None:
    question = new_key()
    for version, signer in ((2, quick.acme.question), (3, question)):
        quick.clock.at += timedelta(seconds=61)
        record = next_record(quick, quick.acme.auth, version=version, question_key=public(question), signer=signer)
        assert change(quick, quick.acme, record, quick.acme.auth).status_code == 200


def version(server: Any) -> int:
    with server.database.snapshot() as session:
        return companies.get(session, CompanyId(server.acme.company_id)).version


def replaced(server: Any) -> Any:
    """Let the company put its next record in force, with a new question key."""
    question = new_key()
    record = next_record(server, server.acme.auth, version=version(server) + 1, question_key=public(question))
    done = change(server, server.acme, record, server.acme.auth)
    if done.status_code == 200:
        server.acme.question = question
    return done


def test_a_company_changes_its_record_so_often_and_no_more(server: Any) -> None:
    begins, day = server.now, timedelta(days=1)
    for _ in range(registration.MAX_CHANGES):
        assert replaced(server).status_code == 200
        server.clock.at += day
    refused = replaced(server)
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/company-changed-too-often")
    assert f"may again from {begins + 30 * day:%Y-%m-%d %H:%M} UTC" in refused.json()["detail"]
    assert "send the record to the operator" in refused.json()["detail"]
    wait = timedelta(seconds=int(refused.headers["retry-after"]))
    assert server.now + wait == begins + 30 * day
    assert server.post(server.form()).status_code == 200, "the keys stay as they were"
    urgent = next_record(server, server.acme.auth, version=version(server) + 1)
    with server.database.transaction() as session:
        registration.put_next(session, urgent, now=server.now)
    server.clock.at = begins + 30 * day
    assert replaced(server).status_code == 429, "what the operator put in force counts too"
    server.clock.at += day
    assert replaced(server).status_code == 200
    assert version(server) == registration.MAX_CHANGES + 3


def test_when_a_record_says_that_it_was_issued_lets_nobody_change_it_more_often(quick: Any) -> None:
    for past in range(registration.MAX_CHANGES):
        record = next_record(quick, quick.acme.auth, version=past + 2, issued_at=100_000_000 * past)
        assert change(quick, quick.acme, record, quick.acme.auth).status_code == 200
    later = next_record(quick, quick.acme.auth, version=version(quick) + 1, issued_at=1)
    assert change(quick, quick.acme, later, quick.acme.auth).status_code == 429


def test_changes_at_once_are_counted_together(
    postgresql_database: Database, shortkeys: Database, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for the first, which it follows, and counts it."""
    monkeypatch.setattr(registration, "MAX_CHANGES", 1)
    server = make_server(World(postgresql_database, shortkeys), clock)
    second, third = (next_record(server, server.acme.auth, version=number) for number in (2, 3))
    found: list[int] = []

    def change_on() -> None:
        found.append(change(server, server.acme, third, server.acme.auth).status_code)

    changing = threading.Thread(target=change_on)
    with server.database.transaction() as session:
        registration.put_next(session, second, now=server.now)
        changing.start()
        wait_until_blocked(server.database, lambda: not changing.is_alive())
        assert changing.is_alive(), "the second must wait for the first"
    changing.join()
    assert (found, version(server)) == ([429], 2)
