"""Every route under generated and mutated requests: never a defect, always a problem that says what to do."""

from __future__ import annotations

import http.client
import json
import random
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http_kit import Caller, House, device_session_of, session_of
from vault.encoding import b64u
from vault.seal.ids import new_id

_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW")
_MARK: Final = "zq7CANARY"
_LATER: Final = {"no-compartment", "log-busy"}
"""What a server may answer with 503: it says when to come back."""
_OWN_FORM: Final = ("/v1/token", "/v1/par", "/v1/introspect", "/v1/revoke", "/v1/register")
"""Where RFC 6749 section 5.2, or RFC 7591 after it, prescribes another document."""


@dataclass(frozen=True)
class Sent:
    """One request, byte for byte."""

    method: str
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    chunked: bool = False


@dataclass
class Target:
    """The service, the routes that it offers and requests that it accepts."""

    house: House
    routes: list[str]
    honest: list[Sent]
    sessions: list[bytes]
    secrets: list[bytes]

    def send(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        connection = _Raw("127.0.0.1", int(self.house.url.rpartition(":")[2]), timeout=30)
        try:
            connection.putrequest(sent.method, sent.path.decode("latin-1"), skip_accept_encoding=True)
            for name, value in sent.headers:
                connection.putheader(name, value)
            if sent.chunked:
                connection.putheader("Transfer-Encoding", "chunked")
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.endheaders(iter([sent.body] if sent.body else []), encode_chunked=True)
            else:
                connection.putheader("Content-Length", str(len(sent.body)))
                with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was read
                    connection.endheaders(sent.body)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()


class _Raw(http.client.HTTPConnection):
    """Sends paths as they are, control characters included."""

    def _validate_path(self, url: str) -> None:
        pass

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


@pytest.fixture(scope="module")
def target(house: House) -> Target:
    owner, company = house.owner_with_twin((1,)), house.company()
    owner.history()
    consent = house.consent(owner, company)
    caller = Caller(house, company)
    sessions = [found["Authorization"].encode() for found in (session_of(owner), device_session_of(owner))]
    assert caller.ask(consent).status_code == 200
    honest = [_sent_of(request) for request in house.sent.sent]
    question_id = new_id()
    body = b'{"category":"pd:Purchase"}'
    headers = caller.headers(consent, question_id, body)
    path = f"/v1/consents/{b64u(consent)}/answers/{b64u(question_id)}"
    honest.append(Sent("PUT", path.encode(), tuple((k.encode(), v.encode()) for k, v in headers.items()), body))
    honest += [Sent("GET", f"/v1/{name}".encode(), (), b"") for name in ("log/checkpoint", "keys", "jwks")]
    routes = list(house.http.get("/openapi.json").json()["paths"])
    assert len(routes) > 25
    secrets = [s.partition(b" ")[2] for s in sessions] + [b64u(owner.vault).encode(), caller.plain_token.encode()]
    return Target(house, routes, _one_each(honest), sessions, secrets)


def _sent_of(request: Any) -> Sent:
    kept = {b"content-type", b"authorization", b"dpop", b"question-signature"}
    headers = tuple((name, value) for name, value in request.headers.raw if name.lower() in kept)
    return Sent(request.method, request.url.raw_path, headers, request.content)


def _one_each(honest: list[Sent]) -> list[Sent]:
    """Keep the newest of those that differ only in what they are about."""
    ids = re.compile(rb"[A-Za-z0-9_-]{22,}|\d+")
    return list({(sent.method, ids.sub(b"", sent.path)): sent for sent in honest}.values())


# --- generating ----------------------------------------------------------------------------------------------------

_WORDS: Final = (
    "", _MARK, "\x00", "\x00" * 22, f"{_MARK}\u00e9\u4e2d", "\ud800", "A" * 22, "A" * 43, "../../etc/passwd", "%00", "%2e%2e%2f",
    "a" * 9000, "'; DROP TABLE person; --", "-1", "99999999999999999999", "9007199254740993", "NaN", "null", "2026-13", "0000-00",
    "\u0660", "\u00b2", "1e400", " ", "\r\n x: y", "pd:Purchase", "pd:Unheard", "{", "[", "\ufeff", "=", "====", _MARK * 4000,
)  # fmt: skip
_HEADER_NAMES: Final = (
    b"Authorization", b"DPoP", b"Question-Signature", b"Content-Type", b"Accept", b"X-Forwarded-For", b"Forwarded", b"Range",
    b"X-HTTP-Method-Override", b"Content-Encoding", b"If-Match", b"Accept-Encoding", b"Origin", b"Cookie", b"Host", b"Expect",
)  # fmt: skip
_HEADER_VALUES: Final = (
    b"", b"Bearer", b"Bearer ", b"DPoP x", b"Basic " + _MARK.encode(), b"Bearer \xff\xfe", b"\xe9", b"a.b.c", b"Bearer " + b"A" * 43,
    b"DPoP e30.e30.AA", b"x" * 20_000, b"application/json; charset=utf-16", b"multipart/form-data; boundary=x", b"text/plain",
    b"application/x-www-form-urlencoded", b"application/json", b"*/*", b"gzip", b"100-continue", b"bytes=0-1",
)  # fmt: skip
_QUERY: Final = ("after", "limit", "from", "to", "period", "compartment", _MARK)
_KEPT: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"


def generated(target: Target, rng: random.Random) -> Sent:
    """A request to a route of the OpenAPI document with every part drawn."""
    path = re.sub(rb"\{[^}]+\}", lambda _: _quote(rng.choice(_WORDS)), rng.choice(target.routes).encode())
    query = b"&".join(_quote(rng.choice(_QUERY)) + b"=" + _quote(rng.choice(_WORDS)) for _ in range(rng.randint(0, 3)))
    headers = [(rng.choice(_HEADER_NAMES), rng.choice(_HEADER_VALUES)) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.5:
        headers.insert(0, (b"Authorization", rng.choice(target.sessions)))
    if rng.random() < 0.6:
        headers.append((b"Content-Type", b"application/json"))
    body = rng.choice([rng.randbytes(60), _dump(_value(rng)), _dump({_MARK: _value(rng)}), b"[" * 30_000, b"9" * 5_000])
    return Sent(rng.choice(_METHODS), path + b"?" + query, tuple(headers), body, rng.random() < 0.3)


def mutated(target: Target, rng: random.Random) -> Sent:
    """A request that was accepted once, with one part of it changed."""
    sent = rng.choice(target.honest)
    match rng.randint(0, 5):
        case 0:
            parts = sent.path.split(b"/")
            parts[rng.randrange(1, len(parts))] = _quote(rng.choice(_WORDS))
            return replace(sent, path=b"/".join(parts))
        case 1:
            return replace(sent, method=rng.choice(_METHODS))
        case 2 if sent.headers:
            at = rng.randrange(len(sent.headers))
            put = rng.choice([(), ((sent.headers[at][0], rng.choice(_HEADER_VALUES)),), (sent.headers[at],) * 2])
            return replace(sent, headers=sent.headers[:at] + put + sent.headers[at + 1 :])
        case 3 if sent.body:
            at = rng.randrange(len(sent.body))
            put_bytes = rng.randbytes(rng.randint(0, 4))
            return replace(sent, body=sent.body[:at] + put_bytes + sent.body[at + 1 :], chunked=True)
        case 4 if sent.body:
            return replace(sent, body=sent.body[: rng.randrange(len(sent.body))])
        case _ if sent.body[:1] == b"{":
            return replace(sent, body=_dump(_change(rng, json.loads(sent.body))))
        case _:
            return replace(sent, body=rng.randbytes(rng.randint(0, 200)))


def _quote(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"".join(bytes([c]) if c in _KEPT else b"%%%02X" % c for c in raw)


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randint(0, 7 if depth < 3 else 4):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice([0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**40])
        case 3:
            return rng.choice([0.5, -0.0, 1e308, float("inf"), float("nan")])
        case 4 | 5:
            return rng.choice(_WORDS)
        case 6:
            return [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
        case _:
            return {rng.choice(_WORDS): _value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def _change(rng: random.Random, value: Any) -> Any:
    """Replace, drop or add one member somewhere inside."""
    if not isinstance(value, dict) or not value:
        return _value(rng)
    name = rng.choice(sorted(value))
    inner = value[name]
    match rng.randint(0, 4):
        case 0:
            return {other: kept for other, kept in value.items() if other != name}
        case 1:
            return {**value, rng.choice(_WORDS): _value(rng)}
        case 2 if isinstance(inner, str) and inner:
            at = rng.randrange(len(inner))
            return {**value, name: inner[:at] + rng.choice(_WORDS) + inner[at + 1 :]}
        case 3 if isinstance(inner, dict):
            return {**value, name: _change(rng, inner)}
        case 3 if isinstance(inner, list) and inner:
            return {**value, name: [_change(rng, inner[0]), *inner[1:]]}
        case _:
            return {**value, name: _value(rng)}


# --- judging -------------------------------------------------------------------------------------------------------


def judge(target: Target, sent: Sent) -> None:
    status, headers, body = target.send(sent)
    place = f"{sent.method} {sent.path!r:.200} {sent.headers!r:.300} {sent.body[:200]!r} -> {status} {body[:300]!r}"
    assert _MARK.encode() not in body or status < 400, f"repeats what it was given: {place}"
    if status < 400 or sent.method == "HEAD":
        assert status != 500, place
        return
    if headers["content-type"] == "text/plain; charset=utf-8" and body == b"Invalid HTTP request received.":
        return  # not HTTP, so it never was a request
    document = json.loads(body)
    if sent.path.startswith(tuple(map(str.encode, _OWN_FORM))) and "error" in document:
        assert status in {400, 401}, place
        return
    assert headers["content-type"] == "application/problem+json", place
    name = document["type"].removeprefix("/problems/")
    assert status < 500 or name in _LATER, place
    assert document["status"] == status, place
    assert len(document["detail"]) > 20, place
    assert not any(secret in body for secret in target.secrets), place
    assert target.house.http.get(document["type"]).status_code == 200, f"a type that nothing explains: {place}"


_BOUNDED: Final = settings(
    max_examples=350, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@_BOUNDED
@given(rng=st.randoms(use_true_random=True))
def test_no_generated_request_breaks_a_route(target: Target, rng: random.Random) -> None:
    judge(target, generated(target, rng))


@_BOUNDED
@given(rng=st.randoms(use_true_random=True))
def test_no_mutated_request_breaks_a_route(target: Target, rng: random.Random) -> None:
    judge(target, mutated(target, rng))
