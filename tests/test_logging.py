"""The allow-list bites: what is not named never leaves the process, whoever logs it."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from vault.logging import ALLOWED_FIELDS, configure_logging, drop_unlisted

TOKEN = "secret-token-of-a-session-9d2f"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_unlisted_fields_are_counted_and_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    structlog.get_logger().info("upload.done", status=200, token=TOKEN, vault=TOKEN, batches=3)
    (line,) = lines(capsys)
    assert TOKEN not in json.dumps(line)
    assert (line["event"], line["status"], line["batches"], line["dropped_fields"]) == ("upload.done", 200, 3, 2)


def test_bound_and_contextual_fields_are_dropped_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    with structlog.contextvars.bound_contextvars(authorization=TOKEN, request_id="ab"):
        structlog.get_logger().bind(passphrase=TOKEN).warning("slow")
    (line,) = lines(capsys)
    assert TOKEN not in json.dumps(line)
    assert line["request_id"] == "ab"


def test_an_exception_leaves_no_message_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        int(TOKEN)
    except ValueError:
        structlog.get_logger().exception("failed")
        structlog.get_logger().error("failed", exc_info=True, stack_info=True)
    assert TOKEN not in json.dumps(lines(capsys))


@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.engine", "asyncio"])
def test_what_a_library_logs_is_noted_without_its_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger(name).error("refused %s", TOKEN, extra={"token": TOKEN})
    try:
        int(TOKEN)
    except ValueError:
        logging.getLogger(name).exception("crashed")
    written = capsys.readouterr()
    assert TOKEN not in written.out + written.err
    found = [json.loads(line) for line in written.err.splitlines()]
    assert [line["logger"] for line in found] == [name, name]
    assert all(line["reason"].startswith("test_logging.py:") for line in found)


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()
    logging.getLogger("somewhere").error("x")
    assert len(lines(capsys)) == 1


def test_levels_below_the_chosen_one_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("WARNING")
    structlog.get_logger().info("quiet")
    assert lines(capsys) == []


def test_no_listed_field_is_named_for_something_secret() -> None:
    forbidden = (
        "token",
        "secret",
        "seed",
        "passphrase",
        "vault_id",
        "text",
        "body",
        "path",
        "subject",
        "consent",
        "ip",
    )
    assert not [field for field in ALLOWED_FIELDS if any(field == word or f"{word}_" in field for word in forbidden)]
    assert drop_unlisted(None, "", {"token": TOKEN}) == {"dropped_fields": 1}
