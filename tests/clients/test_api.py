from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from twinvault.api import Api, ApiError, ClientError, Unreachable

Answer = Callable[[httpx.Request], httpx.Response]


def api_of(answer: Answer) -> tuple[Api, list[float]]:
    slept: list[float] = []
    return Api("https://vault.example", transport=httpx.MockTransport(answer), sleep=slept.append), slept


@pytest.mark.parametrize(
    "url", ["http://vault.example", "http://10.0.0.1:8400", "ftp://localhost", "vault.example", ""]
)
def test_nothing_is_sent_in_the_clear_to_another_machine(url: str) -> None:
    with pytest.raises(ClientError, match="https"):
        Api(url)


@pytest.mark.parametrize("url", ["https://vault.example", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_https_and_this_machine_are_fine(url: str) -> None:
    Api(url).close()


@pytest.mark.parametrize(
    ("method", "repeatable", "tries"), [("GET", False, 3), ("PUT", False, 3), ("POST", True, 3), ("POST", False, 1)]
)
def test_only_what_may_be_repeated_is(method: str, repeatable: bool, tries: int) -> None:
    seen: list[str] = []

    def lost(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        raise httpx.ConnectError("refused")

    api, slept = api_of(lost)
    with pytest.raises(Unreachable):
        api.request(method, "/x", repeatable=repeatable)
    assert (len(seen), len(slept)) == (tries, tries - 1)


def test_busy_is_waited_for_and_a_long_wait_is_not() -> None:
    answers = [httpx.Response(503, headers={"Retry-After": "1"}), httpx.Response(200, json={})]
    api, slept = api_of(lambda _: answers.pop(0))
    assert api.get("/x") == {}
    assert slept == [1]
    api, slept = api_of(lambda _: httpx.Response(503, headers={"Retry-After": "3600"}))
    with pytest.raises(ApiError) as refusal:
        api.get("/x")
    assert (refusal.value.retry_after_s, slept) == (3600, [])


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b'{"type":"/problems/not-stored","detail":"Nothing."}', "not-stored"),
        (b'{"error":"invalid_client","error_description":"No."}', "invalid_client"),
        (b"<html>", "no-problem-document"),
        (b"[]", "no-problem-document"),
        (b"\xff", "no-problem-document"),
        (b"", "no-problem-document"),
    ],
)
def test_every_refusal_is_an_api_error(body: bytes, slug: str) -> None:
    api, _ = api_of(lambda _: httpx.Response(404, content=body))
    with pytest.raises(ApiError) as refusal:
        api.get("/x")
    assert (refusal.value.slug, refusal.value.status) == (slug, 404)
    assert refusal.value.detail


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b"{"])
def test_an_answer_that_is_no_object_is_an_api_error(body: bytes) -> None:
    api, _ = api_of(lambda _: httpx.Response(200, content=body))
    with pytest.raises(ApiError):
        api.get("/x")


def test_redirects_are_not_followed() -> None:
    api, _ = api_of(lambda _: httpx.Response(302, headers={"Location": "https://evil.example"}))
    with pytest.raises(ApiError):
        api.get("/x")
