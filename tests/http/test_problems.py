"""Every refusal is one problem document that never repeats what was sent."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.http.conftest import CANARY
from tests.http.test_middleware import assert_problem


@pytest.mark.parametrize(
    "body",
    [
        {"count": CANARY, "name": "x"},
        {"count": 0, "name": CANARY},
        {"count": 1, "name": CANARY},
        {"count": 1, "name": [CANARY]},
        {"count": 1},
        [CANARY],
        CANARY,
        None,
    ],
)
def test_what_does_not_fit_is_named_by_place_only(body: object, client: TestClient) -> None:
    response = client.put("/orders/1", json=body)
    assert_problem(response, 422, "invalid-request")
    assert "Kanarienvogel" not in response.text
    assert "body" in response.json()["detail"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"count": 1, "name": "Kanarienvogel', b"[" * 900, b"NaN"])
def test_what_is_not_json_is_refused(content: bytes, client: TestClient) -> None:
    response = client.put("/orders/1", content=content, headers={"content-type": "application/json"})
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"
    assert "Kanarienvogel" not in response.text


def test_a_parameter_of_the_path_is_not_repeated(client: TestClient) -> None:
    response = client.put("/orders/Kanarienvogel", json={"count": 1, "name": "x"})
    assert_problem(response, 422, "invalid-request")
    assert "Kanarienvogel" not in response.text


def test_an_unknown_page_and_a_wrong_method_are_problems(client: TestClient) -> None:
    missing = client.get("/Kanarienvogel")
    assert_problem(missing, 404, "no-such-page")
    assert "Kanarienvogel" not in missing.text
    wrong = client.get("/raw")
    assert_problem(wrong, 405, "method-not-allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_refusal_says_what_and_when(client: TestClient) -> None:
    response = client.get("/busy")
    assert_problem(response, 503, "busy-in-a-test")
    assert response.json()["detail"] == "Wait for the others."
    assert response.headers["retry-after"] == "7"
    assert response.headers["cache-control"] == "no-store"
