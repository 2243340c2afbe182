"""Bytes that are no HTTP request get a problem document too, and the next connection is served."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.http_kit import running_service
from vault.http.malformed import MOST_HEAD_BYTES


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
                assert client.post("/v1/audit/bundle", content=b"a" * (2 * MOST_HEAD_BYTES)).status_code == 400
