"""Bytes that are no HTTP request get a problem document too, and the next connection is served."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.http_kit import running_service
from vault.http import listening, malformed, shares
from vault.http.malformed import MOST_HEAD_BYTES, Protocol


def test_what_is_no_request_is_refused_like_everything_else(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        place = urlsplit(service.url)
        for sent in (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # how TLS begins
            b"GET /livez HTTP/9.9\r\n\r\n",
        ):
            with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
                connection.sendall(sent)
                received = b"".join(iter(lambda: connection.recv(4096), b""))
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"content-type: application/problem+json" in head
            assert f"content-length: {len(body)}".encode() in head
            assert json.loads(body)["type"] == "/problems/malformed-http"
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert httpx.get(f"{service.url}/problems/malformed-http").status_code == 200


def test_who_does_not_come_to_the_point_is_hung_up_on_and_who_waits_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_TICKS", 10**9)  # no turn ends
    monkeypatch.setattr(malformed, "_BODY_TURNS", 4)
    others_gone = threading.Event()

    def wait(_: Request) -> PlainTextResponse:
        assert others_gone.wait(60)
        return PlainTextResponse("patience")

    async def read(request: Request) -> PlainTextResponse:
        with suppress(ClientDisconnect):
            await request.body()
        return PlainTextResponse("read")

    app = Starlette(routes=[Route("/wait", wait), Route("/read", read, methods=["POST"])])
    config = uvicorn.Config(app, http=Protocol, log_config=None, access_log=False)
    with ExitStack() as opened:
        listener = opened.enter_context(shares.listen("127.0.0.1", 0))
        connections = opened.enter_context(ExitStack())
        server = listening.Server(config, shares.Shares(None, 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:

            def begun(sent: bytes) -> socket.socket:
                connection = connections.enter_context(socket.create_connection(listener.getsockname(), timeout=30))
                connection.sendall(sent)
                return connection

            patient = begun(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            half = begun(b"GET /wait HTTP/1.1\r\nHost: x\r\n")
            body = begun(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
            after = begun(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
            assert after.recv(4096).startswith(b"HTTP/1.1 200 ")
            after.sendall(b"GET /")
            silent = begun(b"")
            monkeypatch.setattr(listening, "_TICKS", 1)  # each tick one ends
            for connection in (half, body, after):
                received = b"".join(iter(lambda: connection.recv(4096), b""))  # noqa: B023
                assert received.startswith(b"HTTP/1.1 408 ")
                assert b"/problems/request-too-slow" in received
            assert silent.recv(4096) == b""
            others_gone.set()
            assert patient.recv(4096).startswith(b"HTTP/1.1 200 ")
        finally:
            others_gone.set()
            connections.close()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def test_a_head_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    post = b"POST /v1/par HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with running_service(tmp_path) as service:
        place = urlsplit(service.url)
        for begun in (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nA: ",  # one header
            b"GET /",
            b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000,
        ):
            with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
                connection.sendall(begun + b"a" * (MOST_HEAD_BYTES + 1 - len(begun)))  # to the byte: all of it is read
                received = b"".join(iter(lambda: connection.recv(4096), b""))
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431 ")
            assert json.loads(body)["type"] == "/problems/head-too-large"
        with (
            socket.create_connection((place.hostname, place.port), timeout=30) as connection,
            pytest.raises(ConnectionError),  # it hangs up while we go on sending, so its answer may be lost
        ):
            connection.sendall(post + b"0\r\n" + b"a" * 2**26)  # trailers
        long = {"A": "a" * (MOST_HEAD_BYTES // 2)}
        with httpx.Client(base_url=service.url) as client:  # bodies and the heads of other requests do not count
            for _ in range(4):
                assert client.get("/livez", headers=long).status_code == 200
                assert client.post("/v1/vaults", content=b"a" * (2 * MOST_HEAD_BYTES)).status_code == 422
