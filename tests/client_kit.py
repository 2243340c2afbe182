"""A running service as the clients' tests see it, and a server in between that lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from twinvault.company import Company
from twinvault.owner import Owner
from vault.encoding import b64u, parse_b64u
from vault.ops.site import Site
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category, Purpose
from vault.schema.details import dump_details
from vault.schema.terms import ConsentKind, Terms
from vault.schema.trace import Action, Trace

PURCHASE = Category("pd:Purchase")
PASSPHRASE = "correct horse battery staple"
REDIRECT = "https://acme.example/back"


def purchases(count: int = 3, month: int = 1, year: int = 2026) -> list[Trace]:
    start = datetime(year, month, 5, 8, tzinfo=UTC)
    return [
        Trace(
            f"line-{year}-{month}-{i}",
            "till",
            start + timedelta(hours=i),
            PURCHASE,
            Action.BUY,
            "completejourney:bacon",
        )
        for i in range(count)
    ]


def company_terms(company: Company, owner: Owner, **changed: Any) -> Terms:
    own = owner.terms_for(ConsentKind.SELF, [PURCHASE])
    values: dict[str, Any] = {
        "kind": ConsentKind.COMPANY,
        "grantee": company.company_id,
        "purposes": frozenset({Purpose("dpv:ProvideProductRecommendations")}),
        "quota_per_month": 3,
        **changed,
    }
    return replace(own, **values)


@dataclass
class Service:
    """One running installation."""

    site: Site
    app: FastAPI
    trust: TrustedRoot
    url: str

    @property
    def trust_file(self) -> Path:
        return self.site.trust_file


@dataclass
class Tamper(httpx.BaseTransport):
    """A server in between that changes answers, drops them, or repeats old ones."""

    rules: list[tuple[str, str, Callable[[httpx.Response], httpx.Response]]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    sent: list[httpx.Request] = field(default_factory=list)
    inner: httpx.BaseTransport = field(default_factory=httpx.HTTPTransport)

    def on(self, method: str, path: str, change: Callable[[httpx.Response], httpx.Response]) -> None:
        """Let `change` have every answer to requests whose path ends so."""
        self.rules.append((method, path, change))

    def lose(self, method: str, path: str) -> None:
        """Let no request whose path ends so reach the service."""
        self.lost.append((method, path))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if any(request.method == method and request.url.path.endswith(path) for method, path in self.lost):
            raise httpx.ConnectError("lost on the way")
        response = self.inner.handle_request(request)
        response.read()
        for method, path, change in self.rules:
            if request.method == method and request.url.path.endswith(path):
                response = change(response)
        return response

    def close(self) -> None:
        self.inner.close()


def json_answer(document: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def push(service: Service, shop: Company, terms: Terms, **changes: str) -> str:
    """Push an authorization request as a company does (RFC 9126); return its request_uri."""
    details = dict(dump_details(terms)) | {"request": shop.sign_request(terms)}
    form = {
        "response_type": "code",
        "client_id": shop.company_id,
        "redirect_uri": REDIRECT,
        "state": "s" * 16,
        "code_challenge": b64u(hashlib.sha256(b"v" * 43).digest()),
        "code_challenge_method": "S256",
        "authorization_details": json.dumps([details]),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": shop._auth._assertion(),
        "dpop_jkt": b64u(bytes(32)),
        **changes,
    }
    pushed = httpx.post(f"{service.url}/v1/par", data=form)
    assert pushed.status_code == 201, pushed.text
    return str(pushed.json()["request_uri"])


def open_page(browser: httpx.Client, shop: Company, uri: str) -> httpx.Response:
    return browser.get("/authorize", params={"client_id": shop.company_id, "request_uri": uri})


def code_on(page: httpx.Response) -> str:
    assert page.status_code == 200, page.text
    return page.text.partition("<code>")[2].partition("</code>")[0]


def posted_handovers(tamper: Tamper) -> list[bytes]:
    """Return the handovers of the last consent that was sent."""
    bodies = [
        request.content for request in tamper.sent if "/consents" in request.url.path and request.method == "POST"
    ]
    return [parse_b64u(item) for item in json.loads(bodies[-1]).get("handovers", [])]
