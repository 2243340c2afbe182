"""The shipped app behind real HTTP with people in it: two owners whose twins answer, two companies, an auditor."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy

from tests.client_kit import PURCHASE, Service, Tamper, company_terms, purchases
from tests.site_kit import app_settings, working
from tests.waiting import until
from twinvault.api import Api
from twinvault.company import Company
from twinvault.jws import key_of, sign_jws
from twinvault.owner import Owner
from twinvault.profile import read_trust
from vault.app import create_app, server_of
from vault.clock import Clock, SystemClock, unix_s
from vault.db import Database
from vault.encoding import JsonObject, b64u, dump_json
from vault.errors import VaultError
from vault.http.next_steps import NEXT_STEPS
from vault.http.shares import Shares
from vault.ops.site import Site, set_up
from vault.parties import companies
from vault.proof.jose import QUESTION_TYPE
from vault.schema.category import Purpose
from vault.schema.question import Candidate, Question, Recommend, dump_question
from vault.schema.terms import ConsentKind
from vault.seal.ids import ID_BYTES, ConsentId, sha256
from vault.tlog.models import PENDING, log_entry

PURPOSE = Purpose("dpv:ProvideProductRecommendations")
CODES = ("completejourney:bacon", "completejourney:apples", "completejourney:bag-snacks")
QUESTION = Recommend(PURCHASE, PURPOSE, tuple(Candidate(code, "") for code in CODES), 2)
REFUSED_CHANGES = frozenset({"spent", "party_session", "alembic_version"})
"""Tables in which a refused request may leave a row: used-up proofs and sessions."""


@dataclass
class Wire(Tamper):
    """Also keeps one request from being sent, for an attacker to send it later, twice or elsewhere."""

    hold: tuple[str, str] | None = None
    held: list[httpx.Request] = field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.hold is not None and request.method == self.hold[0] and request.url.path.endswith(self.hold[1]):
            request.read()
            self.held.append(request)
            raise httpx.ConnectError("held back")
        return super().handle_request(request)

    def hold_back(self, method: str, ending: str, act: Callable[[], object]) -> httpx.Request:
        """Return the first request of `act` to a path that ends so; it was never sent."""
        self.hold, self.held = (method, ending), []
        try:
            with suppress(VaultError, httpx.HTTPError):
                act()
        finally:
            self.hold = None
        return self.held[0]


@dataclass
class House:
    """One running service and the folder where the parties of a test keep their profiles."""

    service: Service
    folder: Path
    work: Callable[[], None]
    clock: Clock = field(default_factory=SystemClock)
    sent: Wire = field(default_factory=Wire)
    """Passes on and remembers what the parties' own clients send."""

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def database(self) -> Database:
        found: Database = self.service.app.state.database
        return found

    @cached_property
    def http(self) -> httpx.Client:
        """A client that adds nothing of its own."""
        return httpx.Client(base_url=self.url, timeout=60, limits=httpx.Limits(max_connections=200))

    def close(self) -> None:
        """Close every connection that the parties' clients and `http` hold."""
        self.http.close()
        self.sent.close()

    def api(self) -> Api:
        return Api(self.url, transport=self.sent, sleep=lambda _: None)

    def send(self, request: httpx.Request, **changed: Any) -> httpx.Response:
        """Send a copy of a request; `changed` replaces its `url`, `method` or `content`, or adds `headers`."""
        headers = httpx.Headers({k: v for k, v in request.headers.items() if k not in {"host", "content-length"}})
        headers.update(changed.pop("headers", {}))
        url = str(changed.pop("url", request.url)).removeprefix(self.url)
        return self.http.request(
            changed.pop("method", request.method), url, content=changed.pop("content", request.content), headers=headers
        )

    def owner(self) -> Owner:
        """Begin a vault with a self consent."""
        made, _ = Owner.init(
            self.folder / f"vault-{secrets.token_hex(4)}",
            self.service.trust,
            passphrase=None,
            categories=[PURCHASE],
            api=self.api(),
        )
        made.give(made.terms_for(ConsentKind.SELF, [PURCHASE]))
        return made

    def owner_with_twin(self, months: tuple[int, ...] = (1, 2)) -> Owner:
        made = self.owner()
        for month in months:
            made.import_traces(purchases(5, month=month))
        made.refresh()
        self.work()
        assert made.twin()["releases"], made.twin()
        return made

    def company(self, name: str = "Acme", **changed: Any) -> Company:
        folder = self.folder / f"company-{secrets.token_hex(4)}"
        made, record = Company.register(
            folder, self.service.trust, name=name, contact=f"{name}@example.org", api=self.api(), **changed
        )
        with self.database.transaction() as session:
            companies.register(session, record, now=self.clock.now())
        return made

    def consent(self, owner: Owner, company: Company, **changed: Any) -> ConsentId:
        """Let an owner give what a company asks for."""
        values = {"purposes": frozenset({PURPOSE}), "quota_per_month": 50, **changed}
        terms = replace(company_terms(company, owner), **values)
        asked = owner.read_request(company.sign_request(terms))
        return owner.give_company(asked).version.consent_id


@contextmanager
def running_service(
    folder: Path, database_url: str | None = None, shortkeys_url: str | None = None, cadence: str = "daily"
) -> Iterator[Service]:
    """Set a site up and serve it with the shipped app under uvicorn on a free port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        site = Site(folder / "site")
        set_up(
            site, issuer=url, log_origin="test.example/log", database_url=database_url, shortkeys_url=shortkeys_url,
            now=SystemClock().now(), cadence=cadence,
        )  # fmt: skip
        app = create_app(app_settings(site))
        server = server_of(app, Shares(None, 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), "the app starts")
            assert server.started
            yield Service(site, app, read_trust(site.trust_file), url)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def serving(folder: Path, database_url: str | None = None, shortkeys_url: str | None = None) -> Iterator[House]:
    """Run a service with a worker at hand."""
    with (
        running_service(folder, database_url, shortkeys_url) as service,
        working(service.site) as work,
        closing(House(service, folder, work)) as house,
    ):
        yield house


def new_databases(server: sqlalchemy.URL) -> tuple[str, str]:
    """Make a migrated and an empty database on a PostgreSQL server and return their URLs."""
    names = [f"{part}_{secrets.token_hex(6)}" for part in ("main", "short")]
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name, template in zip(names, ("template_vault", "template1"), strict=True):
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    engine.dispose()
    main, short = (server.set(database=name).render_as_string(hide_password=False) for name in names)
    return main, short


@dataclass
class Town:
    """Two owners whose twins answer, two companies, one consent from each owner to another company."""

    house: House
    ann: Owner
    bob: Owner
    acme: Caller
    rival: Caller
    ann_to_acme: ConsentId
    bob_to_rival: ConsentId


def settle(house: House) -> Town:
    """Let them move in."""
    ann, bob = house.owner_with_twin((1,)), house.owner_with_twin((1,))
    acme, rival = house.company("Acme"), house.company("Rival")
    return Town(
        house, ann, bob, Caller(house, acme), Caller(house, rival), house.consent(ann, acme), house.consent(bob, rival)
    )


@dataclass
class Caller:
    """A company that signs everything itself, so that each part can be forged."""

    house: House
    company: Company

    @property
    def nonce(self) -> str:
        nonces = self.house.service.app.state.company_gate.proofs.nonces
        return str(nonces.now(self.house.clock.now()))

    def key(self, name: str) -> Any:
        auth = self.company._auth
        return {"question": self.company._question_key, "auth": auth._auth_key, "dpop": auth._dpop_key}[name]

    def proof(self, method: str, path: str, *, token: str | None = None, key: Any = None, **changed: Any) -> str:
        from twinvault.jws import jwk_of

        key = key or self.key("dpop")
        claims: JsonObject = {
            "htm": method,
            "htu": self.house.url + path,
            "iat": unix_s(self.house.clock.now()),
            "jti": secrets.token_urlsafe(16),
        }
        if "nonce" not in changed:
            claims["nonce"] = self.nonce
        if token is not None:
            claims["ath"] = b64u(sha256(token.encode()))
        return sign_jws(key, {"typ": "dpop+jwt", "jwk": jwk_of(key)}, {**claims, **changed})

    def assertion(self, **changed: Any) -> str:
        now_s = unix_s(self.house.clock.now())
        claims: JsonObject = {
            "iss": self.company.company_id,
            "sub": self.company.company_id,
            "aud": self.house.url,
            "jti": secrets.token_urlsafe(16),
            "iat": now_s,
            "exp": now_s + 60,
        }
        key = changed.pop("key", None) or self.key("auth")
        return sign_jws(key, {"typ": "client-authentication+jwt"}, {**claims, **changed})

    def token_response(self, grant_id: ConsentId | None = None, **changed: Any) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.assertion(),
        }
        if grant_id is not None:
            form["grant_id"] = b64u(grant_id)
        proof = changed.pop("proof", None) or self.proof("POST", "/v1/token")
        return self.house.http.post("/v1/token", data={**form, **changed}, headers={"DPoP": proof})

    def token(self, grant_id: ConsentId | None = None) -> str:
        response = self.token_response(grant_id)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    @cached_property
    def plain_token(self) -> str:
        return self.token()

    def signature(self, consent: bytes, question_id: bytes, body: bytes, *, key: Any = None, **changed: Any) -> str:
        key = key or self.key("question")
        claims: JsonObject = {
            "iss": self.company.company_id,
            "aud": self.house.url,
            "consent": b64u(consent),
            "question": b64u(question_id),
            "body": b64u(sha256(body)),
            "iat": unix_s(self.house.clock.now()),
        }
        return sign_jws(key, {"typ": QUESTION_TYPE, "kid": key_of(key).kid}, {**claims, **changed})

    def headers(
        self, consent: bytes, question_id: bytes, body: bytes, *, token: str | None = None, method: str = "PUT"
    ) -> dict[str, str]:
        token = token or self.plain_token
        path = answer_path(consent, question_id)
        return {
            "Authorization": f"DPoP {token}",
            "DPoP": self.proof(method, path, token=token),
            "Question-Signature": self.signature(consent, question_id, body),
        }

    def ask(
        self, consent: bytes, question: Question | bytes = QUESTION, question_id: bytes | None = None,
        *, token: str | None = None, path: str | None = None, **forged: str,
    ) -> httpx.Response:  # fmt: skip
        """Ask; `forged` replaces headers."""
        question_id = question_id or secrets.token_bytes(ID_BYTES)
        body = question if isinstance(question, bytes) else dump_json(dump_question(question))
        headers = httpx.Headers(self.headers(consent, question_id, body, token=token))
        headers.update({name.replace("_", "-"): value for name, value in forged.items()})
        return self.house.http.put(path or answer_path(consent, question_id), content=body, headers=headers)


def answer_path(consent: bytes, question_id: bytes) -> str:
    return f"/v1/consents/{b64u(consent)}/answers/{b64u(question_id)}"


def session_of(owner: Owner) -> dict[str, str]:
    """Return the header of an owner's own session."""
    owner.consents()
    return {"Authorization": f"Bearer {owner._auth._token}"}


def device_session_of(owner: Owner) -> dict[str, str]:
    """Return the header of a session of the owner's first device."""
    device = owner.device
    device._api.get(f"/v1/vaults/{b64u(owner.vault)}/ring", auth=device._auth)
    return {"Authorization": f"Bearer {device._auth._token}"}


def dump(database: Database, but: frozenset[str] = REFUSED_CHANGES) -> Mapping[str, list[tuple[Any, ...]]]:
    """Return every row of every table, once the log has numbered what was committed before."""
    await_sequencer(database)
    found: dict[str, list[tuple[Any, ...]]] = {}
    with database.snapshot() as session:
        connection = session.connection()
        for table in sorted(set(sqlalchemy.inspect(connection).get_table_names()) - but):
            rows = connection.exec_driver_sql(f'SELECT * FROM "{table}"').all()
            found[table] = sorted((tuple(row) for row in rows), key=repr)
    return found


def await_sequencer(database: Database) -> None:
    """Wait until the log has numbered everything that was committed before; denials of a flood get no number."""
    pending = sqlalchemy.select(sqlalchemy.func.count()).select_from(log_entry).where(PENDING)

    def numbered() -> bool:
        with database.snapshot() as session:
            return bool(session.connection().execute(pending).scalar_one() == 0)

    until(numbered, "the sequencer catches up")


def changed(before: Mapping[str, list[tuple[Any, ...]]], after: Mapping[str, list[tuple[Any, ...]]]) -> set[str]:
    """Return the names of the tables that differ."""
    return {name for name in after if after[name] != before.get(name)}


def slug(response: httpx.Response) -> str:
    """Return which refusal a response is, after checking that it is a problem document a person can act on."""
    assert response.headers["content-type"] == "application/problem+json", (response.status_code, response.text[:300])
    document = response.json()
    assert document.keys() == {"type", "title", "status", "detail", "instance"}
    assert document["status"] == response.status_code
    assert response.headers["cache-control"] == "no-store"
    assert len(document["detail"]) > 20
    kind = str(document["type"]).removeprefix("/problems/")
    assert document["detail"].endswith(NEXT_STEPS.get(kind, "."))
    return kind
