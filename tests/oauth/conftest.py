from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from tests.company_kit import REDIRECT, CompanyKit, b64
from tests.consent_kit import World, terms
from vault.db import Database
from vault.http.problems import install_problems
from vault.oauth.approval import approval_router
from vault.oauth.client import ASSERTION_TYPE
from vault.oauth.dpop import NonceClock, ProofReader
from vault.oauth.grant_management import grants_router
from vault.oauth.resource import CompanyDep, CompanyGate
from vault.oauth.routes import oauth_router
from vault.oauth.server import Endpoint, OAuthDesk
from vault.oauth.tokens import TokenMint
from vault.parties.models import SessionRow
from vault.schema.consent import ConsentVersion
from vault.schema.details import dump_details
from vault.schema.terms import ConsentKind
from vault.seal.ids import VaultId
from vault.seal.signing import SigningKey, new_seed

ISSUER = "https://vault.example"
SERVICE = SigningKey(new_seed())
SECRET = b"s" * 32
VERIFIER = "v" * 43
CHALLENGE = b64(hashlib.sha256(VERIFIER.encode()).digest())


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
    world: World
    acme: CompanyKit = field(init=False)

    def __post_init__(self) -> None:
        self.acme = self.world.company

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

    def post(
        self, form: dict[str, str] | str, *, proof: str | None = None, path: str = "/v1/token", **headers: str
    ) -> httpx.Response:
        content = form if isinstance(form, str) else urlencode(form)
        sent = {"content-type": "application/x-www-form-urlencoded", "dpop": proof or self.proof("POST", path)}
        return self.client.post(path, content=content, headers={k: v for k, v in (sent | headers).items() if v})

    # --- the flow with a browser ----------------------------------------------------------------------------------

    def asked(self, **changed: Any) -> tuple[str, dict[str, Any]]:
        """Return a signed consent request and the authorization details that spell it."""
        wanted = terms(ConsentKind.COMPANY, self.acme.company_id, **changed)
        jws = self.world.request(wanted)
        return jws, {**dump_details(wanted), "request": jws}

    def push_form(self, details: Any = None, **changes: Any) -> dict[str, str]:
        details = self.asked()[1] if details is None else details
        form = self.form(grant_type=None) | {
            "response_type": "code",
            "client_id": self.acme.company_id,
            "redirect_uri": REDIRECT,
            "state": "af0ifjsldkj",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "authorization_details": details if isinstance(details, str) else json.dumps([details]),
        }
        return {name: value for name, value in (form | changes).items() if value is not None}

    def push(
        self, details: Any = None, *, proof: str | None = None, dpop: str | None = None, **changes: Any
    ) -> httpx.Response:
        headers = {} if dpop is None else {"dpop": dpop}
        return self.post(self.push_form(details, **changes), proof=proof, path="/v1/par", **headers)

    def browser(self) -> TestClient:
        return TestClient(self.client.app, base_url="https://internal.host:9", follow_redirects=False)

    def open(self, browser: TestClient, uri: str, **changes: str) -> httpx.Response:
        return browser.get("/authorize", params={"client_id": self.acme.company_id, "request_uri": uri} | changes)

    def session(self, vault: VaultId | None = None) -> dict[str, str]:
        """Return the header of an owner's session."""
        token, until = secrets.token_bytes(32), self.now + timedelta(hours=1)
        owner = vault or self.world.owner.vault
        with self.database.transaction() as session:
            session.add(SessionRow(token_hash=hashlib.sha256(token).digest(), vault_id=owner, expires_at=until))
        return {"authorization": f"Bearer {b64(token)}"}

    def give(self, jws: str, **changed: Any) -> ConsentVersion:
        """Give what a request asks for, as the owner's client does by the consent routes."""
        version, _ = self.world.first(**changed)
        version = replace(version, request_sha256=hashlib.sha256(jws.encode()).digest())
        self.world.give_this(self.world.submission(version, jws))
        return version

    def code_on(self, response: httpx.Response) -> str:
        assert response.status_code == 200, response.text
        return response.text.partition("<code>")[2].partition("</code>")[0]

    def authorize(self, details: Any = None, **changes: Any) -> tuple[dict[str, str], ConsentVersion]:
        """Play the whole flow up to the redirect; return its parameters and the consent."""
        _, made = self.asked()
        pushed = self.push(details or made, **changes)
        assert pushed.status_code == 201, pushed.text
        browser, uri = self.browser(), pushed.json()["request_uri"]
        code, owner = self.code_on(self.open(browser, uri)), self.session()
        asked = self.client.get(f"/v1/authorizations/{code}", headers=owner)
        assert asked.json()["request"] == (details or made)["request"], asked.text
        given = self.give(asked.json()["request"])
        approved = self.client.post(
            f"/v1/authorizations/{code}/approve", json={"consent": b64(given.consent_id)}, headers=owner
        )
        assert approved.status_code == 204, approved.text
        return self.landed(self.open(browser, uri)), given

    def landed(self, response: httpx.Response) -> dict[str, str]:
        """Return the parameters with which the browser is sent back."""
        assert response.status_code == 303, response.text
        url = urlsplit(response.headers["location"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == REDIRECT
        found = parse_qs(url.query, strict_parsing=True)
        assert all(len(values) == 1 for values in found.values())
        return {name: values[0] for name, values in found.items()}

    def code_form(self, code: str, /, **changes: Any) -> dict[str, str]:
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
        return self.form(**({**given, "scope": None} | changes))

    def refresh_form(self, token: str, /, **changes: Any) -> dict[str, str]:
        return self.form(**({"grant_type": "refresh_token", "refresh_token": token, "scope": None} | changes))

    def tokens(self) -> tuple[dict[str, Any], ConsentVersion]:
        """Return the token response of a whole flow, and its consent."""
        landed, given = self.authorize()
        response = self.post(self.code_form(landed["code"]))
        assert response.status_code == 200, response.text
        return response.json(), given

    def introspect(self, token: str, **changes: Any) -> dict[str, Any]:
        response = self.post(self.form(grant_type=None, scope=None, token=token, **changes), path=Endpoint.INTROSPECT)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def token(self, **changes: Any) -> str:
        response = self.post(self.form(**changes))
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def ask(self, token: str, *, proof: str | None = None, scheme: str = "DPoP", **headers: str) -> httpx.Response:
        sent = {"authorization": f"{scheme} {token}", "dpop": proof or self.proof("GET", "/who", token=token)}
        return self.client.get("/who?x=1", headers=sent | headers)


def make_server(world: World, clock: HandClock) -> Server:
    """Return a server process on this world's database; several share one."""
    proofs = ProofReader(ISSUER, NonceClock(SECRET))
    tokens = TokenMint(ISSUER, SERVICE)
    app = FastAPI()
    install_problems(app)
    app.state.database, app.state.clock = world.database, clock
    app.state.oauth_desk = OAuthDesk(ISSUER, proofs, tokens)
    app.state.custody, app.state.settings = world.custody, SimpleNamespace(sandbox=True)
    app.state.company_gate = gate = CompanyGate(proofs, tokens)
    for router in (oauth_router, approval_router, grants_router):
        app.include_router(router)

    @app.get("/who")
    def who(request: Request, caller: CompanyDep) -> dict[str, Any]:
        return {
            "company": caller.company_id,
            "status": caller.status,
            "grant": caller.grant_id is not None,
            "bound": caller.sender_constrained,
        }

    return Server(world.database, clock, TestClient(app, base_url="https://internal.host:9"), gate, world)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server(database: Database, shortkeys: Database, clock: HandClock) -> Server:
    """A server on each database, with one registered company and one owner."""
    return make_server(World(database, shortkeys), clock)


@pytest.fixture
def quick(sqlite_database: Database, shortkeys: Database, clock: HandClock) -> Server:
    """The same on SQLite only, for what no database decides."""
    return make_server(World(sqlite_database, shortkeys), clock)


@pytest.fixture
def other_process(server: Server) -> Server:
    """A second process of the same server."""
    return make_server(server.world, server.clock)
