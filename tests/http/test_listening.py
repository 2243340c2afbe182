"""Processes that accept from one socket take even shares, and lose nobody who waits."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.waiting import until
from vault.http import listening
from vault.http.listening import Server
from vault.http.shares import Shares, listen, shared_counts


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as opened:
        yield opened


@pytest.fixture
def counts() -> Iterator[int]:
    """The memory of two processes."""
    file = shared_counts(2)
    yield file
    os.close(file)


@contextmanager
def serving(listener: socket.socket, shares: Shares) -> Iterator[Server]:
    app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("here"))])
    server = Server(uvicorn.Config(app, log_config=None, access_log=False), shares)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started, "it serves")
        yield server
    finally:
        server.should_exit = True
        thread.join(240)
        assert not thread.is_alive()


def connected(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=30)


def asked(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return connection.recv(4096)


def test_it_answers_and_ends(listener: socket.socket) -> None:
    with serving(listener, Shares(None, 0)):
        assert httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/").text == "here"


def test_who_has_more_connections_than_another_lets_that_one_accept(
    listener: socket.socket, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_YIELD_S", 60.0)
    other, open_now = listener.dup(), ExitStack()
    with open_now, other, serving(listener, Shares(counts, 0)) as server:
        first = open_now.enter_context(connected(listener))
        assert b"200 OK" in asked(first)
        second = open_now.enter_context(connected(listener))
        second.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in asked(first)  # it had its turn since, and left the second alone
        other.settimeout(30)
        accepted, _ = other.accept()
        with accepted:
            assert accepted.recv(4096).startswith(b"GET / ")
        assert len(server.server_state.connections) == 1


def test_who_gave_way_accepts_as_soon_as_another_has_as_many(
    listener: socket.socket, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_YIELD_S", 60.0)
    other = Shares(counts, 1)
    with ExitStack() as open_now, serving(listener, Shares(counts, 0)):
        first = open_now.enter_context(connected(listener))
        assert b"200 OK" in asked(first)
        second = open_now.enter_context(connected(listener))
        second.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in asked(first)  # it had its turn since, and left the second alone
        other.say(1)
        assert b"200 OK" in second.recv(4096)


def test_who_has_no_more_than_another_accepts_at_once(
    listener: socket.socket, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_YIELD_S", 60.0)
    Shares(counts, 1).say(2)
    with ExitStack() as open_now, serving(listener, Shares(counts, 0)):
        for _ in range(3):
            assert b"200 OK" in asked(open_now.enter_context(connected(listener)))


def test_who_has_more_accepts_all_the_same_if_nobody_else_does(listener: socket.socket, counts: int) -> None:
    with ExitStack() as open_now, serving(listener, Shares(counts, 0)):
        for _ in range(5):  # the other process is dead, and its count stays as it was
            assert b"200 OK" in asked(open_now.enter_context(connected(listener)))


def test_no_more_connections_are_accepted_than_leave_files_to_open(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_MOST_CONNECTIONS", 2)
    monkeypatch.setattr(listening, "_RETRY_S", 0.01)
    with serving(listener, Shares(None, 0)) as server, ExitStack() as open_now:
        first, second = (open_now.enter_context(connected(listener)) for _ in range(2))
        assert b"200 OK" in asked(first)
        assert b"200 OK" in asked(second)
        third = open_now.enter_context(connected(listener))
        third.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        for _ in range(20):  # it would have had its turn
            assert b"200 OK" in asked(first)
        assert len(server.server_state.connections) == 2
        second.close()
        assert b"200 OK" in third.recv(4096)


def test_files_are_left_for_databases_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked_for.append(limits))
    for limits, most in (((1_024, 2_000), 1_000), ((1_024, -1), 4_096), ((-1, -1), 4_096), ((100_000, 100_000), 4_096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, found=limits: found)
        assert listening._most_connections() == most
    assert asked_for == [(2_000, 2_000), (8_192, -1)]


class Exhausted(socket.socket):
    """A listener in a process that has no file descriptor left, once."""

    failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_a_lack_of_file_descriptors_ends_and_loses_nobody(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_RETRY_S", 0.01)
    exhausted = Exhausted(fileno=listener.dup().detach())
    with serving(exhausted, Shares(None, 0)), connected(listener) as connection:
        assert b"200 OK" in asked(connection)
    assert exhausted.failed


def test_the_counts_of_a_process_are_seen_by_the_others(counts: int) -> None:
    mine, other = Shares(counts, 0), Shares(counts, 1)
    assert not mine.has_more
    mine.say(3)
    assert (mine.has_more, other.has_more) == (True, False)
    other.say(3)
    assert (mine.has_more, other.has_more) == (False, False)
