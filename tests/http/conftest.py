"""A small app with the house's edge around routes that misbehave on purpose."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field

from vault.db import Database
from vault.errors import VaultError
from vault.http.edge import RawBody
from vault.http.middleware import Edge
from vault.http.problems import install_problems

CANARY = "canary Kanarienvogel 7f3a"
MAX_BODY_BYTES = 1000


class Busy(VaultError):
    """A refusal that says when to come back."""

    slug = "busy-in-a-test"
    title = "Busy"
    status = 503


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = Field(ge=1)
    name: str = Field(max_length=8)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.add_api_route("/raw", _raw, methods=["POST"])
    app.add_api_route("/orders/{order}", _order, methods=["PUT"])
    app.add_api_route("/crash/{secret}", _crash, methods=["GET"])
    app.add_api_route("/full/{what}", _full, methods=["GET"])
    app.add_api_route("/half", _half, methods=["GET"])
    app.add_api_route("/busy", _busy, methods=["GET"])
    install_problems(app)
    app.add_middleware(Edge, max_body_bytes=MAX_BODY_BYTES, refusal=lambda: None)
    with TestClient(app) as running:  # an exception that reaches the server fails the test
        yield running


def _raw(body: RawBody) -> dict[str, int]:
    return {"size": len(body)}


def _order(order: int, body: Order) -> dict[str, int]:
    return {"order": order, "count": body.count}


def _crash(secret: str) -> None:
    raise RuntimeError(f"could not handle {secret}")


def _full(what: str) -> None:
    if what == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "postgresql":
        raise psycopg.errors.DiskFull
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Database(f"sqlite:///{folder}/small.sqlite")) as database,
        database.transaction() as session,
    ):
        for statement in ("PRAGMA max_page_count = 2", "CREATE TABLE one (x)", "CREATE TABLE two (x)"):
            session.connection().exec_driver_sql(statement)


def _half() -> StreamingResponse:
    def chunks() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError(CANARY)

    return StreamingResponse(chunks())


def _busy() -> None:
    raise Busy("Wait for the others.", retry_after_s=7)
