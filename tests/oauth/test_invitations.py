"""Who registers unasked waits in bounded room; whom the operator invited finds room however many wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from tests.company_kit import CompanyKit
from tests.oauth.test_registration import metadata, register
from vault.oauth import registration


def test_waiting_registrations_are_bounded_and_end(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MAX_WAITING", 2)
    first = CompanyKit()
    assert [register(server, kit).status_code for kit in (first, CompanyKit())] == [201, 201]
    full = register(server, CompanyKit())
    assert (full.status_code, full.headers["retry-after"]) == (503, "86400")
    server.clock.at += timedelta(seconds=registration.REFILED_S)
    assert register(server, first).status_code == 201, "what waits may be replaced"
    server.clock.at += timedelta(seconds=registration.UNINVITED_S)
    assert register(server, CompanyKit()).status_code == 201
    with server.database.snapshot() as session:
        assert session.execute(sqlalchemy.text("SELECT count(*) FROM oauth_registration")).scalar_one() == 1


def invited(server: Any) -> dict[str, str]:
    with server.database.transaction() as session:
        return {"authorization": f"Bearer {registration.invite(session, now=server.now)}"}


def test_whom_the_operator_invited_registers_however_many_wait(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MAX_WAITING", 1)
    monkeypatch.setattr(registration, "MAX_SANDBOX", 0)
    flood, guest, test_shop = CompanyKit(name="Flood"), CompanyKit(name="Guest"), CompanyKit(name="Test Shop")
    assert register(server, flood).status_code == 201
    full = register(server, guest)
    assert (full.status_code, "invite" in full.json()["detail"]) == (503, True)
    invitation = invited(server)
    bad = metadata(server, guest, jwks={"keys": []})
    assert server.client.post("/v1/register", json=bad, headers=invitation).status_code == 400
    sent = metadata(server, guest)
    for name in ("Bearer", "bearer"):  # twice: also where the first answer was lost
        headers = {"authorization": invitation["authorization"].replace("Bearer", name)}
        taken = server.client.post("/v1/register", json=sent, headers=headers)
        assert (taken.status_code, taken.json()["company_status"]) == (201, "pending"), taken.text
    server.clock.at += timedelta(seconds=registration.REFILED_S)
    assert register(server, guest).status_code == 201, "filed again without it, it stays invited"
    sandbox = server.client.post(
        "/v1/register", json=metadata(server, test_shop, sandbox=True), headers=invited(server)
    )
    assert sandbox.json()["company_status"] == "sandbox"
    with server.database.snapshot() as session:
        assert {item.name: item.invited for item in registration.list_waiting(session)} == {
            "Flood": False,
            "Guest": True,
        }
    server.clock.at += timedelta(seconds=registration.UNINVITED_S)
    assert register(server, CompanyKit(name="Later")).status_code == 201
    with server.database.transaction() as session:
        assert {item.name for item in registration.list_waiting(session)} == {"Guest", "Later"}
        assert registration.reject_uninvited(session) == 1
        assert [item.name for item in registration.list_waiting(session)] == ["Guest"]


def test_an_invitation_is_for_one_company_and_lapses(server: Any) -> None:
    invitation = invited(server)
    first, second = CompanyKit(), CompanyKit()
    assert server.client.post("/v1/register", json=metadata(server, first), headers=invitation).status_code == 201
    lapsed = invited(server)
    forged = {"authorization": f"Bearer {'A' * 43}"}
    for headers in (invitation, forged, {"authorization": "Bearer "}, {"authorization": "Basic eDp5"}, lapsed):
        if headers is lapsed:
            server.clock.at += timedelta(seconds=registration.INVITED_S)
        refused = server.client.post("/v1/register", json=metadata(server, second), headers=headers)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token"), headers
        assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    with server.database.snapshot() as session:
        assert [item.company_id for item in registration.list_waiting(session)] == [first.company_id]


def test_no_invitation_lies_in_the_database(server: Any) -> None:
    secret = invited(server)["authorization"].removeprefix("Bearer ")
    with server.database.snapshot() as session:
        rows = session.execute(sqlalchemy.text("SELECT * FROM oauth_invitation")).all()
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret.encode() not in rows[0][0]
