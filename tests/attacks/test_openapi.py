"""The OpenAPI document is true: whatever fits it or does not, nobody gets a 500 or an answer that it does not describe.

Schemathesis makes requests from the document, right ones and wrong ones. They are sent by nobody, an owner, a
device, a company and an auditor; most of the right ones name what is there, and some are what a client would send.
`TWINVAULT_CASES` sets how many the slow run makes; which ones is the same in every run.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http_kit import CODES, PURCHASE, PURPOSE, Town, device_session_of, serving, session_of, settle
from vault.clock import unix_s
from vault.encoding import b64u, dump_json
from vault.evidence.auditors import AuditScope, register_auditor
from vault.notices import stream
from vault.schema.question import Candidate, NextChoice, Question, Recommend, dump_question
from vault.seal.audit import NONCE_BYTES, AuditRequest, ListingRequest, sign_audit_request, sign_listing_request
from vault.seal.ids import ID_BYTES
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.models import log_entry

_CASES: Final = int(os.environ.get("TWINVAULT_CASES", "10000"))
_CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_KEPT_S: Final = 240
_ANSWER: Final = "PUT /v1/consents/{consent}/answers/{question_id}"
_SIGNED: Final = {
    "DELETE /v1/grants/{grant_id}",
    "DELETE /v1/vaults/{vault}/slots/{locator_hash}",
    "GET /v1/authorizations/{code}",
    "GET /v1/erasures/{erasure}",
    "GET /v1/grants/{grant_id}",
    "GET /v1/legacies/{legacy}",
    "GET /v1/legacies/{legacy}/bundle",
    "GET /v1/vaults/{vault}/legacy",
    "GET /v1/slots/{locator_hash}",
    "GET /v1/log/witnessed",
    "GET /v1/vaults/{vault}/batches",
    "POST /v1/authorizations/{code}/approve",
    "POST /v1/authorizations/{code}/deny",
    "POST /v1/legacies/{legacy}/declarations",
    "POST /v1/legacies/{legacy}/erasures",
    "POST /v1/legacies/{legacy}/freezes",
    "POST /v1/legacies/{legacy}/openings",
    "POST /v1/par",
    "POST /v1/register",
    "POST /v1/sessions",
    "POST /v1/vaults/{vault}/successions",
    "POST /v1/vaults",
    "POST /v1/vaults/{vault}/batches",
    "POST /v1/vaults/{vault}/consents",
    "POST /v1/vaults/{vault}/consents/{consent}/versions",
    "POST /v1/vaults/{vault}/erasures",
    "POST /v1/vaults/{vault}/freezes",
    "POST /v1/vaults/{vault}/profiles",
    "PUT /v1/register/{client_id}",
    "PUT /v1/vaults/{vault}/account",
    "PUT /v1/vaults/{vault}/legacy",
    "PUT /v1/vaults/{vault}/ring",
    "PUT /v1/vaults/{vault}/slots/{locator_hash}",
}
"""Nobody gets there without a signature, a secret or a name that only a client has; other tests do."""

_CALLERS: Final = ("nobody", "owner", "device", "company")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with serving(tmp_path_factory.mktemp("openapi")) as house:
        yield settle(house)


@dataclass
class Callers:
    """Everybody who may call, and the names of what is there."""

    town: Town
    auditor: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    chooser: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    _kept: dict[str, Any] = field(default_factory=dict)
    _until: float = 0.0

    def __post_init__(self) -> None:
        town, house = self.town, self.town.house
        given_back = house.consent(town.ann, town.acme.company)
        self.mine = house.consent(town.ann, town.acme.company, quota_per_month=1_000_000)
        rules: bytes = house.service.app.state.answer_desk.policy_set.sha256
        self.known: dict[str, list[str]] = {
            "vault": [b64u(town.ann.vault)] * 4 + [b64u(town.bob.vault)],
            "consent": [b64u(self.mine)] * 4 + [b64u(town.bob_to_rival)],
            "grant_id": [b64u(given_back), b64u(self.mine), b64u(town.bob_to_rival)],
            "version": ["1"],
            "company_id": [town.acme.company.company_id],
            "path": ["0/000", "entries/000.p/1", "0/000.p/1"],
            "slug": ["not-permitted", "quota-spent"],
            "sha256": [b64u(rules)],
        }
        now = house.clock.now()
        with house.database.transaction() as session:
            until, over = now + timedelta(days=1), AuditScope(1, 2)
            register_auditor(session, "Audit", self.auditor.public_key, until)
            register_auditor(session, "Choosing", self.chooser.public_key, until, over, opens=0)
            session.connection().execute(log_entry.update().where(log_entry.c.leaf_index == 0).values(recorded_s=1))

    def kept(self, who: str) -> Any:
        """Return the session or token of one caller, from a while ago."""
        if time.monotonic() > self._until:
            self._kept, self._until = {}, time.monotonic() + _KEPT_S
        makers: dict[str, Callable[[], Any]] = {
            "owner": lambda: session_of(self.town.ann),
            "device": lambda: device_session_of(self.town.ann),
            "company": self.town.acme.token,
        }
        if who not in self._kept:
            self._kept[who] = makers[who]()
        return self._kept[who]

    def headers(self, who: str, method: str, path: str) -> dict[str, str]:
        match who:
            case "owner" | "device":
                return {**self.kept(who)}
            case "company":
                token, acme = self.kept("company"), self.town.acme
                return {"Authorization": f"DPoP {token}", "DPoP": acme.proof(method, path, token=token)}
        return {}

    def name_what_is_there(self, case: Case, rng: random.Random) -> None:
        """Put real names into the path."""
        named = {name: rng.choice(self.known[name]) for name in case.path_parameters or {} if name in self.known}
        if "question_id" in (case.path_parameters or {}):
            named["question_id"] = b64u(secrets.token_bytes(ID_BYTES))
        case.path_parameters = {**(case.path_parameters or {}), **named}

    def send_as_a_client(self, case: Case, rng: random.Random) -> dict[str, str] | None:
        """Give a case the body of an honest client; return its headers, or None where any body will do."""
        acme, now_s = self.town.acme, unix_s(self.town.house.clock.now())
        match case.operation.label:
            case label if label == _ANSWER:
                body, question_id = dump_json(dump_question(_question(rng))), secrets.token_bytes(ID_BYTES)
                case.path_parameters = {"consent": b64u(self.mine), "question_id": b64u(question_id)}
                case.body = body
                return acme.headers(self.mine, question_id, body, token=self.kept("company"))
            case "POST /v1/token":
                case.body = self._form(grant_type="client_credentials")
                return {"DPoP": acme.proof("POST", "/v1/token")}
            case "POST /v1/introspect" | "POST /v1/revoke":
                case.body = self._form(token=self.kept("company"))
                return {}
            case "POST /v1/challenges":
                case.body = {"vault": b64u(self.town.ann.vault), "role": rng.choice(["owner", "device"])}
                return {}
            case "POST /v1/audit/bundle":
                request = AuditRequest(
                    self.town.house.url, secrets.token_bytes(NONCE_BYTES), now_s, 0, rng.randint(0, 9)
                )
                case.body = sign_audit_request(request, self.auditor).encoded
                return {}
            case "POST /v1/audit/listing":
                listing = ListingRequest(self.town.house.url, secrets.token_bytes(NONCE_BYTES), now_s, ())
                case.body = sign_listing_request(listing, self.chooser).encoded
                return {}
        return None

    def _form(self, **fields: str) -> dict[str, str]:
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.town.acme.assertion(),
            **fields,
        }


def _question(rng: random.Random) -> Question:
    if rng.random() < 0.5:
        return NextChoice(PURCHASE, PURPOSE, rng.randint(1, 5))
    codes = rng.sample([*CODES, "acme:1", "acme:2"], rng.randint(1, 4))
    return Recommend(PURCHASE, PURPOSE, tuple(Candidate(code, "") for code in codes), 1)


@pytest.mark.parametrize("cases", [100, pytest.param(_CASES, marks=pytest.mark.slow)])
def test_every_answer_is_what_the_openapi_document_says(
    town: Town, cases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAM_S", 0.05)
    house, callers = town.house, Callers(town)
    session = requests.Session()
    schema = schemathesis.openapi.from_dict(house.http.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    seen: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    failures: dict[str, str] = {}

    def send(case: Case, rng: random.Random, mode: GenerationMode) -> None:
        checks, headers = _CHECKS, None
        if mode is GenerationMode.NEGATIVE:
            checks = [*_CHECKS, negative_data_rejection]
        elif rng.random() < 0.8:
            callers.name_what_is_there(case, rng)
            headers = callers.send_as_a_client(case, rng) if rng.random() < 0.5 else None
        if headers is None:
            path = urlsplit(case.as_transport_kwargs(house.url)["url"]).path
            headers = callers.headers(rng.choice(_CALLERS), case.method, path)
        response = case.call(house.url, session=session, headers=headers)
        try:
            case.validate_response(response, checks=checks, headers=headers)
        except FailureGroup as found:
            failures.setdefault(f"{case.operation.label}: {[e.title for e in found.exceptions]}", str(found))
        seen[f"{response.status_code // 100}xx {case.operation.label}"] += 1
        sent[case.operation.label] += 1

    for operation in operations:
        each = -(-cases // (2 * len(operations)))
        _many(operation, GenerationMode.POSITIVE, each, send)
        try:
            # Where any text fits, a second goes by before nothing wrong is found: only the slow run looks for it.
            wrong = cases >= _CASES or not _takes_any_text(operation)
            _many(operation, GenerationMode.NEGATIVE if wrong else GenerationMode.POSITIVE, each, send)
        except hypothesis.errors.Unsatisfiable:  # nothing in it can be wrong
            _many(operation, GenerationMode.POSITIVE, each, send)
    assert not failures, "\n\n".join(failures.values())
    assert set(sent) == {operation.label for operation in operations}
    assert sent.total() >= cases
    if cases < _CASES:
        return
    silent = {operation.label for operation in operations if not seen[f"2xx {operation.label}"]}
    assert not silent - _SIGNED, "nobody gets an answer from " + ", ".join(sorted(silent - _SIGNED))


def _takes_any_text(operation: Any) -> bool:
    raw = operation.definition.raw
    parameters = [one["schema"] for one in raw.get("parameters", [])]
    bodies = [kind["schema"] for kind in raw.get("requestBody", {}).get("content", {}).values()]
    return all(
        set(schema) <= {"type", "title", "format"} and schema["type"] == "string" for schema in parameters + bodies
    )


def _many(operation: Any, mode: GenerationMode, count: int, send: Any) -> None:
    strategy = operation.as_strategy(generation_mode=mode)

    @hypothesis.seed(20261126)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy, st.randoms(use_true_random=False))
    def run(case: Case, rng: random.Random) -> None:
        send(case, rng, mode)

    run()
