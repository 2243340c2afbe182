from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from sqlmodel import Session

from tests.company_kit import CompanyKit
from vault.db import Database
from vault.http.problems import install_problems
from vault.oauth.dpop import NonceClock, ProofReader
from vault.oauth.resource import CompanyDep, CompanyGate
from vault.oauth.routes import oauth_router
from vault.oauth.server import ASSERTION_TYPE, TokenDesk
from vault.oauth.tokens import TokenMint
from vault.parties import companies
from vault.parties.companies import CompanyId
from vault.seal.ids import ConsentId
from vault.seal.signing import SigningKey, new_seed

ISSUER = "https://vault.example"
SERVICE = SigningKey(new_seed())
SECRET = b"s" * 32
LIVE_CONSENT = ConsentId(b"c" * 16)


class HandClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Server:
    """One server process and the company that talks to it."""

    database: Database
    clock: HandClock
    client: TestClient
    gate: CompanyGate
    acme: CompanyKit = field(default_factory=CompanyKit)

    @property
    def now(self) -> datetime:
        return self.clock.at

    @property
    def nonce(self) -> str:
        return self.gate.proofs.nonces.now(self.now)

    def proof(self, method: str, path: str, *, token: str | None = None, **changes: Any) -> str:
        changes = {"nonce": self.nonce, **changes}
        return self.acme.proof(method, ISSUER + path, self.now, token=token, **changes)

    def form(self, **changes: Any) -> dict[str, str]:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.acme.assertion(ISSUER, self.now),
            "scope": "twin:ask",
        } | changes
        return {name: value for name, value in form.items() if value is not None}

    def post(self, form: dict[str, str] | str, *, proof: str | None = None, **headers: str) -> httpx.Response:
        content = form if isinstance(form, str) else urlencode(form)
        sent = {"content-type": "application/x-www-form-urlencoded", "dpop": proof or self.proof("POST", "/v1/token")}
        return self.client.post("/v1/token", content=content, headers=sent | headers)

    def token(self, **changes: Any) -> str:
        response = self.post(self.form(**changes))
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def ask(self, token: str, *, proof: str | None = None, scheme: str = "DPoP", **headers: str) -> httpx.Response:
        sent = {"authorization": f"{scheme} {token}", "dpop": proof or self.proof("GET", "/who", token=token)}
        return self.client.get("/who?x=1", headers=sent | headers)


def make_server(database: Database, clock: HandClock) -> Server:
    """Return a server process on this database; several share one."""

    def live_grant(session: Session, consent_id: ConsentId, company_id: CompanyId) -> bool:
        return consent_id == LIVE_CONSENT

    proofs = ProofReader(ISSUER, NonceClock(SECRET))
    tokens = TokenMint(ISSUER, SERVICE)
    app = FastAPI()
    install_problems(app)
    app.state.database, app.state.clock = database, clock
    app.state.token_desk = TokenDesk(ISSUER, proofs, tokens, live_grant)
    app.state.company_gate = gate = CompanyGate(proofs, tokens)
    app.include_router(oauth_router)

    @app.get("/who")
    def who(request: Request, caller: CompanyDep) -> dict[str, Any]:
        return {
            "company": caller.company_id,
            "status": caller.status,
            "grant": caller.grant_id is not None,
            "bound": caller.sender_constrained,
        }

    return Server(database, clock, TestClient(app, base_url="https://internal.host:9"), gate)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server(database: Database, clock: HandClock) -> Server:
    """A server on each database, with one registered company."""
    return _with_company(make_server(database, clock))


@pytest.fixture
def quick(sqlite_database: Database, clock: HandClock) -> Server:
    """The same on SQLite only, for what no database decides."""
    return _with_company(make_server(sqlite_database, clock))


@pytest.fixture
def other_process(server: Server) -> Server:
    """A second process of the same server."""
    twin = make_server(server.database, server.clock)
    twin.acme = server.acme
    return twin


def _with_company(server: Server) -> Server:
    with server.database.transaction() as session:
        companies.register(session, server.acme.record(server.now), now=server.now)
    return server
