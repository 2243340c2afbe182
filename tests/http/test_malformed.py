"""Bytes that are no HTTP request get a problem document too, and the next connection is served."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.http_kit import running_service


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
