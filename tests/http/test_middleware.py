"""Every request gets an id, a bounded body and one log line without a word of its content."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.http.conftest import CANARY, MAX_BODY_BYTES
from vault.logging import configure_logging


def log_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def chunks(size: int) -> Iterator[bytes]:
    """A body without a declared length."""
    for start in range(0, size, 100):
        yield b"x" * min(100, size - start)


def assert_problem(response: object, status: int, slug: str) -> None:
    body = response.json()  # type: ignore[attr-defined]
    assert response.status_code == status  # type: ignore[attr-defined]
    assert response.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    assert (body["type"], body["status"]) == (f"/problems/{slug}", status)
    assert body["instance"] == f"/requests/{response.headers['x-request-id']}"  # type: ignore[attr-defined]


def test_a_body_up_to_the_limit_passes(client: TestClient) -> None:
    assert client.post("/raw", content=b"x" * MAX_BODY_BYTES).json() == {"size": MAX_BODY_BYTES}
    assert client.post("/raw", content=chunks(MAX_BODY_BYTES)).json() == {"size": MAX_BODY_BYTES}
    assert client.post("/raw", content=b"").json() == {"size": 0}


def test_a_declared_body_beyond_the_limit_is_refused(client: TestClient) -> None:
    assert_problem(client.post("/raw", content=b"x" * (MAX_BODY_BYTES + 1)), 413, "body-too-large")


def test_a_body_that_grows_beyond_the_limit_is_refused(client: TestClient) -> None:
    """Chunked transfer declares no length, and neither does one that lies."""
    assert_problem(client.post("/raw", content=chunks(MAX_BODY_BYTES + 1)), 413, "body-too-large")
    lying = client.post("/raw", content=chunks(MAX_BODY_BYTES + 1), headers={"content-length": "10"})
    assert_problem(lying, 413, "body-too-large")


def test_a_growing_json_body_is_refused_alike(client: TestClient) -> None:
    assert_problem(
        client.put("/orders/1", content=chunks(5000), headers={"content-type": "application/json"}),
        413, "body-too-large",
    )  # fmt: skip


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "", " ", "0x10", "1_0", "9" * 5000])
def test_a_length_that_is_no_number_is_refused(length: str, client: TestClient) -> None:
    assert_problem(client.post("/raw", content=b"x", headers={"content-length": length}), 413, "body-too-large")


def test_each_request_has_an_id_of_its_own_in_answer_and_log(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("DEBUG")
    ids = [client.post("/raw", content=b"x", headers={"x-request-id": "chosen"}).headers["x-request-id"] for _ in "ab"]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{16}", found) for found in ids)
    assert [line["request_id"] for line in log_lines(capsys)] == ids


def test_the_log_holds_the_route_and_neither_path_nor_query_nor_body(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("DEBUG")
    client.put("/orders/4711?who=Kanarienvogel", json={"count": 1, "name": "Vogel"})
    client.put("/orders/Kanarienvogel", json={"count": 1, "name": "Vogel"})
    client.get("/Kanarienvogel")
    client.get("/orders/4711")
    lines = log_lines(capsys)
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/orders/{order}", 200), ("/orders/{order}", 422), ("unmatched", 404), ("/orders/{order}", 405),
    ]  # fmt: skip
    assert not re.search("Kanarienvogel|4711|Vogel", json.dumps(lines))


def test_a_defect_answers_and_logs_without_its_message(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG")
    response = client.get(f"/crash/{CANARY}")
    assert_problem(response, 500, "internal")
    written = capsys.readouterr()
    assert "Kanarienvogel" not in response.text + written.out + written.err
    crash, done = (json.loads(line) for line in written.err.splitlines())
    assert (crash["event"], crash["error_type"]) == ("request.crashed", "RuntimeError")
    assert re.fullmatch(r"conftest\.py:\d+", crash["reason"])
    assert (done["route"], done["status"]) == ("/crash/{secret}", 500)


def test_a_defect_half_way_through_an_answer_cuts_it_short(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("DEBUG")
    with contextlib.suppress(AssertionError):  # this client may notice that the body never ended
        assert client.get("/half").content == b"first"
    written = capsys.readouterr()
    assert "Kanarienvogel" not in written.out + written.err
    assert "request.crashed" in written.err


@pytest.mark.parametrize("what", ["disk", "sqlite", "postgresql"])
def test_a_full_disk_is_no_defect(what: str, client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    response = client.get(f"/full/{what}")
    assert_problem(response, 503, "no-room")
    assert "nothing was changed" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0
    failed, _ = log_lines(capsys)
    assert (failed["event"], failed["slug"]) == ("request.failed", "no-room"), "the operator reads why"
