"""A company registers itself and is nobody until the operator approves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import REDIRECT, CompanyKit, new_key, public
from tests.leaves import leaves
from vault.oauth import registration
from vault.parties import companies, marks
from vault.parties.companies import CompanyId, CompanyRefused, UnknownCompany
from vault.parties.people import UnknownVault
from vault.schema.consent import ConsentEvent
from vault.schema.terms import BadConsent
from vault.seal.ids import VaultId
from vault.settings import AppSettings


def metadata(server: Any, kit: CompanyKit, **changes: Any) -> dict[str, Any]:
    given = {
        "client_name": kit.name,
        "redirect_uris": [REDIRECT],
        "jwks": {"keys": [public(kit.auth)]},
        "token_endpoint_auth_method": "private_key_jwt",
        "company_record": kit.record(server.now),
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def register(server: Any, kit: CompanyKit, **changes: Any) -> Any:
    return server.client.post("/v1/register", json=metadata(server, kit, **changes))


def approve(server: Any, company_id: str) -> None:
    with server.database.transaction() as session:
        registration.approve(session, CompanyId(company_id), now=server.now)


def test_a_company_is_nobody_until_the_operator_approves(server: Any) -> None:
    kit = CompanyKit(name="New Shop")
    response = register(server, kit)
    assert response.status_code == 201, response.text
    body = response.json()
    assert body["client_id"] == kit.company_id
    assert body["company_status"] == "pending"
    assert "client_secret" not in body
    server.acme = kit
    assert server.post(server.form()).json()["error"] == "invalid_client"
    with server.database.snapshot() as session:
        waiting = registration.list_waiting(session)
        assert [(item.company_id, item.name) for item in waiting] == [(kit.company_id, "New Shop")]
        assert companies.find(session, kit.company_id) is None
        assert len([kind for kind, _, _ in leaves(session) if kind == "company"]) == 1, "only the one approved before"
    approve(server, kit.company_id)
    assert server.post(server.form()).status_code == 200
    with server.database.snapshot() as session:
        assert registration.list_waiting(session) == []
        assert len([kind for kind, _, _ in leaves(session) if kind == "company"]) == 2


def test_nothing_is_approved_twice_or_unseen(quick: Any) -> None:
    kit = CompanyKit()
    register(quick, kit)
    approve(quick, kit.company_id)
    for company_id in (kit.company_id, "A" * 22):
        with pytest.raises(UnknownCompany):
            approve(quick, company_id)
    again = register(quick, kit)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_client_metadata")


def test_a_rejected_company_stays_nobody(quick: Any) -> None:
    kit = CompanyKit()
    register(quick, kit)
    with quick.database.transaction() as session:
        registration.reject(session, CompanyId(kit.company_id))
    with pytest.raises(UnknownCompany):
        approve(quick, kit.company_id)
    with pytest.raises(UnknownCompany), quick.database.transaction() as session:
        registration.reject(session, CompanyId(kit.company_id))


def test_filing_again_replaces_what_waits(server: Any) -> None:
    kit = CompanyKit()
    register(server, kit)
    kit.name = "Better Name"
    early = register(server, kit)
    assert (early.status_code, "once in 60 seconds" in early.json()["error_description"]) == (400, True)
    server.clock.at += timedelta(seconds=registration.REFILED_S)
    assert register(server, kit).status_code == 201
    with server.database.snapshot() as session:
        assert [item.name for item in registration.list_waiting(session)] == ["Better Name"]


def test_what_waits_and_is_sent_again_writes_nothing_and_waits_no_longer(server: Any) -> None:
    sent = metadata(server, CompanyKit())
    assert server.client.post("/v1/register", json=sent).status_code == 201
    filed_at = server.now
    writes: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        writes.append(statement)

    server.clock.at += timedelta(hours=1)
    sqlalchemy.event.listen(server.database.engine, "before_cursor_execute", note)
    assert server.client.post("/v1/register", json=sent).status_code == 201
    sqlalchemy.event.remove(server.database.engine, "before_cursor_execute", note)
    assert writes
    assert not any(one.startswith(("INSERT", "UPDATE")) for one in writes)
    with server.database.snapshot() as session:
        assert [item.received_at for item in registration.list_waiting(session)] == [filed_at]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"company_record": None}, "invalid_client_metadata"),
        ({"company_record": 5}, "invalid_client_metadata"),
        ({"company_record": "a.b.c"}, "invalid_client_metadata"),
        ({"client_name": "Another"}, "invalid_client_metadata"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [REDIRECT, 5]}, "invalid_redirect_uri"),
        ({"redirect_uris": REDIRECT}, "invalid_redirect_uri"),
        ({"jwks": None}, "invalid_client_metadata"),
        ({"jwks": {"keys": []}}, "invalid_client_metadata"),
        ({"jwks": {"keys": ["x"]}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [public(new_key())]}}, "invalid_client_metadata"),
        ({"jwks_uri": "https://acme.example/jwks"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "none"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"grant_types": [["code"]]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"software_statement": "a.b.c"}, "invalid_software_statement"),
    ],
)
def test_metadata_that_contradict_the_record_refuse(quick: Any, changes: dict[str, Any], error: str) -> None:
    response = register(quick, CompanyKit(), **changes)
    assert (response.status_code, response.json()["error"]) == (400, error), response.text
    with quick.database.snapshot() as session:
        assert registration.list_waiting(session) == []


def test_nobody_registers_in_anothers_name(quick: Any) -> None:
    mine, theirs = CompanyKit(), CompanyKit()
    forged = mine.record(quick.now, company_id=theirs.company_id)
    refused = register(quick, mine, company_record=forged)
    assert refused.json()["error"] == "invalid_client_metadata"


def test_a_record_that_was_registered_otherwise_meanwhile_is_not_approved(quick: Any) -> None:
    kit = CompanyKit()
    register(quick, kit)
    with quick.database.transaction() as session:
        companies.register(session, kit.record(quick.now), now=quick.now)
    with pytest.raises(CompanyRefused):
        approve(quick, kit.company_id)


# --- sandbox -------------------------------------------------------------------------------------------------------


def play_company(server: Any, kit: CompanyKit) -> None:
    server.acme = server.world.company = kit


def test_a_test_company_asks_a_sandbox_vault_and_no_other(server: Any) -> None:
    kit = CompanyKit(name="Test Shop")
    assert register(server, kit, sandbox=True).json()["company_status"] == "sandbox"
    play_company(server, kit)
    assert server.post(server.form()).status_code == 200
    with pytest.raises(BadConsent):
        server.world.give()
    with server.database.transaction() as session:
        marks.make_sandbox(session, server.world.owner.vault)
    body, given = server.tokens()
    assert body["grant_id"]
    assert server.world.amend(server.world.next(given, ConsentEvent.NARROWED)).version.version == 2


def test_a_sandbox_takes_so_many_test_companies_and_no_more(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MAX_SANDBOX", 2)
    for n in range(2):
        assert register(quick, CompanyKit(name=f"Test Shop {n}"), sandbox=True).status_code == 201
    full = register(quick, CompanyKit(name="One more"), sandbox=True)
    assert (full.status_code, full.json()["type"]) == (503, "/problems/registrations-full")
    assert register(quick, CompanyKit(name="In earnest")).status_code == 201  # who waits for the operator still may


def test_a_test_company_stays_one_through_new_keys(quick: Any) -> None:
    kit = CompanyKit(name="Test Shop")
    register(quick, kit, sandbox=True)
    new = new_key()
    with quick.database.transaction() as session:
        assert companies.rotate(
            session, kit.record(quick.now, version=2, client_auth_key=public(new)), now=quick.now
        ).sandbox
    play_company(quick, kit)
    with pytest.raises(BadConsent):
        quick.world.give()


def test_a_sandbox_vault_changes_nothing_for_approved_companies(quick: Any) -> None:
    with quick.database.transaction() as session:
        marks.make_sandbox(session, quick.world.owner.vault)
        assert companies.get(session, CompanyId(quick.acme.company_id)).sandbox is False
    assert quick.world.give()


def test_without_the_setting_there_is_no_sandbox(quick: Any) -> None:
    quick.client.app.state.settings.sandbox = False
    refused = register(quick, CompanyKit(), sandbox=True)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client_metadata")
    assert AppSettings.model_fields["sandbox"].default is False


def test_only_a_vault_that_lives_here_becomes_a_sandbox(quick: Any) -> None:
    with pytest.raises(UnknownVault), quick.database.transaction() as session:
        marks.make_sandbox(session, VaultId(b"x" * 16))
