"""How long a body each route takes, and from whom it reads a long one at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from tests.site_kit import make_site, running_app
from vault.http.middleware import SHORT_BYTES

LATE = {
    ("post", "/v1/vaults/{vault}/batches"): 401,
    ("put", "/v1/vaults/{vault}/ring"): 401,
    ("post", "/v1/vaults/{vault}/consents"): 401,
    ("post", "/v1/vaults/{vault}/consents/{consent}/versions"): 401,
    ("post", "/v1/vaults/{vault}/erasures"): 401,
    ("post", "/v1/vaults/{vault}/erasures/preview"): 401,
    ("put", "/v1/consents/{consent}/answers/{question_id}"): 401,
    ("post", "/v1/legacies/{legacy}/openings"): 404,
}
"""What may be long enough to hurt is read only of a caller who is known, or knows a legacy key; what others are told."""
MIB = {
    ("post", "/v1/vaults/{vault}/consents"): 8,
    ("post", "/v1/vaults/{vault}/consents/{consent}/versions"): 8,
    ("post", "/v1/vaults/{vault}/erasures"): 2,
    ("post", "/v1/vaults/{vault}/erasures/preview"): 2,
    ("put", "/v1/consents/{consent}/answers/{question_id}"): 2,
    ("post", "/v1/legacies/{legacy}/openings"): 8,
}
"""Of the two others, as much as the settings allow."""
GENESIS = ("post", "/v1/vaults")
SUCCESSION = ("post", "/v1/vaults/{vault}/successions")
GENESIS_BYTES = 1 << 18


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with running_app(make_site(Path(tmp_path_factory.mktemp("limits")) / "site")) as found:
        yield found


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Return every method and path that takes a body."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method, path) for path, known in paths.items() for method in known if "requestBody" in known[method]]


def named(path: str) -> str:
    return re.sub(r"{[a-z_]+}", "A" * 22, path)


def test_no_route_takes_a_longer_body_of_anyone_than_it_needs(client: TestClient) -> None:
    found = routes(client)
    assert set(found) >= {*LATE, GENESIS, SUCCESSION}
    assert len(found) > 20
    for method, path in set(found) - LATE.keys():
        most = GENESIS_BYTES if (method, path) in {GENESIS, SUCCESSION} else SHORT_BYTES
        headers = {"content-type": "application/json"}
        for size, refused in ((most, False), (most + 1, True)):
            response = client.request(method, named(path), content=b"x" * size, headers=headers)
            assert (response.status_code == 413) == refused, (method, path, size, response.text)


def test_a_challenge_of_a_mebibyte_is_refused_before_it_is_parsed(client: TestClient) -> None:
    body = b'{"vault":"A","role":"owner","a":[' + b"{}," * (1 << 18) + b"{}]}"
    assert client.post("/v1/challenges", content=body).status_code == 413
    growing = client.post("/v1/challenges", content=iter([body[:40_000]] * 4))
    assert growing.status_code == 413


@pytest.mark.parametrize(("method", "path"), sorted(LATE))
@pytest.mark.parametrize("declared", [True, False])
def test_a_long_body_of_an_unknown_caller_is_not_read_at_all(
    client: TestClient, method: str, path: str, *, declared: bool
) -> None:
    length = MIB.get((method, path), 30) << 20
    assert sent_without_reading(client, method, path, length if declared else None) == LATE[method, path]


@pytest.mark.parametrize(("method", "path"), sorted(MIB))
def test_nobody_sends_a_longer_one(client: TestClient, method: str, path: str) -> None:
    assert sent_without_reading(client, method, path, (MIB[method, path] << 20) + 1) == 413


def sent_without_reading(client: TestClient, method: str, path: str, length: int | None) -> int:
    """Return the status of what is answered to a head alone, of a body of that length or of one that says none."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read before the caller was known")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": named(path),
        "raw_path": named(path).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    anyio.run(client.app, scope, receive, send)
    status: int = sent[0]["status"]
    return status
