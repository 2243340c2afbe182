"""Notices as they happen: nothing missed, nothing of another vault, and waiting takes nothing that answers need."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from tests.audit_kit import Audited
from tests.http_kit import PURCHASE, PURPOSE, Town, serving, session_of, settle
from vault.app import follow_statements
from vault.encoding import b64u
from vault.notices import stream
from vault.notices.feed import notices
from vault.notices.stream import Streams, TooManyStreams
from vault.ops import operator
from vault.parties.sessions import end_sessions
from vault.schema.question import NextChoice
from vault.seal.ids import VaultId

WAIT_S = 60


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with serving(tmp_path_factory.mktemp("streams")) as house:
        yield settle(house)


@pytest.fixture(autouse=True)
def _bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for minutes for a stream to end."""
    monkeypatch.setattr(stream, "STREAM_S", 40.0)


@contextmanager
def opened(town: Town, *, headers: dict[str, str] | None = None, **params: Any) -> Iterator[httpx.Response]:
    path = f"/v1/vaults/{b64u(town.ann.vault)}/history/stream"
    sent = session_of(town.ann) | (headers or {})
    with town.house.http.stream("GET", path, params=params, headers=sent, timeout=WAIT_S) as response:
        yield response


def events_in(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name] = value
        if not line and "data" in fields:
            event: dict[str, Any] = json.loads(fields["data"])
            assert fields["id"] == str(event["index"])
            fields.clear()
            yield event


def ask(town: Town) -> int:
    return town.acme.ask(town.ann_to_acme, NextChoice(PURCHASE, PURPOSE, 2)).status_code


def test_a_stream_tells_what_is_there_and_then_what_happens(town: Town) -> None:
    known = town.ann.history()
    with opened(town) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in response.headers["cache-control"] or "no-cache" in response.headers["cache-control"]
        events = events_in(response.iter_lines())
        assert [next(events) for _ in known] == known
        assert ask(town) == 200
        told = next(events)
        assert told["kind"] == "answer"
        assert told["sentence"].startswith("Acme asked")
    assert town.ann.history(known[-1]["index"]) == [told]


def test_a_stream_goes_on_after_the_last_event_id(town: Town) -> None:
    known = town.ann.history()
    middle = known[len(known) // 2]["index"]
    with opened(town, headers={"Last-Event-ID": str(middle)}, after=-1, language="fr") as response:
        events = events_in(response.iter_lines())
        following = [next(events) for _ in known[len(known) // 2 + 1 :]]
    assert [event["index"] for event in following] == [event["index"] for event in known if event["index"] > middle]
    assert not any(" of your consent " in event["sentence"] for event in following)
    with opened(town, headers={"Last-Event-ID": "x"}) as response:
        assert response.status_code == 422


def test_another_vaults_events_are_neither_sent_nor_open(town: Town) -> None:
    path = f"/v1/vaults/{b64u(town.bob.vault)}/history/stream"
    assert town.house.http.get(path, headers=session_of(town.ann)).status_code == 404
    assert town.house.http.get(path).status_code == 401
    last = town.ann.history()[-1]["index"]
    with opened(town, after=last) as response:
        events = events_in(response.iter_lines())
        assert town.rival.ask(town.bob_to_rival, NextChoice(PURCHASE, PURPOSE, 2)).status_code == 200
        assert ask(town) == 200
        assert next(events)["index"] == town.ann.history(last)[0]["index"]


def test_a_session_that_ends_is_told_nothing_more(town: Town) -> None:
    last = town.ann.history()[-1]["index"]
    with opened(town, after=last) as response:
        lines = response.iter_lines()
        assert next(lines) == ": open"
        with town.house.database.transaction() as session:
            end_sessions(session, town.ann.vault)
        assert ask(town) == 200
        rest = "\n".join(lines)  # it ends
    assert "data:" not in rest
    assert "sign in again" in rest


def test_a_stream_is_woken_after_a_rollover_of_keys_too(town: Town) -> None:
    """What wakes the streams began with the app; it must know those that begin under the next keys."""
    site = town.house.service.site.folder
    CliRunner().invoke(operator, ["keys", "rotate", "service", "--site", str(site)], catch_exceptions=False)
    follow_statements(town.house.service.app.state)
    last = town.ann.history()[-1]["index"]
    with opened(town, after=last) as response:
        events = events_in(response.iter_lines())
        assert ask(town) == 200
        assert next(events)["kind"] == "answer"  # a stream that nothing wakes ends without it


def test_the_client_follows_through_breaks_and_ended_sessions(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAM_S", 0.3)  # every stream soon ends
    last = town.ann.history()[-1]["index"]
    followed = town.ann.follow(last)
    seen: list[int] = []

    def listen() -> None:
        for event in followed:
            seen.append(event["index"])
            if len(seen) == 3:
                return

    listener = threading.Thread(target=listen)
    listener.start()
    for turn in range(3):
        assert ask(town) == 200
        if turn == 1:
            with town.house.database.transaction() as session:
                end_sessions(session, town.ann.vault)
    listener.join(WAIT_S)
    assert not listener.is_alive()
    assert seen == [event["index"] for event in town.ann.history(last)]


def test_open_streams_take_no_thread_that_an_answer_needs(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS_OF_VAULT", 200)
    last = town.ann.history()[-1]["index"]
    path = f"{town.house.url}/v1/vaults/{b64u(town.ann.vault)}/history/stream"
    headers = session_of(town.ann)

    async def many() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=WAIT_S) as client, anyio.create_task_group() as tasks:
            ready: list[str] = []
            told: list[str] = []

            async def until(found: list[str]) -> None:
                with anyio.fail_after(WAIT_S):
                    while len(found) < 180:  # noqa: ASYNC110  (other requests fill it)
                        await anyio.sleep(0.02)

            async def one() -> None:
                async with client.stream("GET", path, params={"after": last}, headers=headers) as response:
                    lines = response.aiter_lines()
                    ready.append(await anext(lines))
                    async for line in lines:
                        if line.startswith("id: "):
                            told.append(line)
                            return

            for _ in range(180):  # more than the threads of the pool
                tasks.start_soon(one)
            await until(ready)
            assert await anyio.to_thread.run_sync(ask, town) == 200
            await until(told)
            assert len(set(told)) == 1

    anyio.run(many)


def test_streams_beyond_the_bounds_are_refused_and_places_come_back(town: Town) -> None:
    with ExitStack() as held:
        kept = []
        for _ in range(stream.MAX_STREAMS_OF_VAULT):
            kept.append(held.enter_context(opened(town)).iter_lines())  # who drops the iterator closes the stream
            assert next(kept[-1]) == ": open"
        with opened(town) as response:
            response.read()
            assert response.status_code == 503
            assert response.json()["type"] == "/problems/too-many-streams"
            assert int(response.headers["retry-after"]) > 0
    streams: Streams = town.house.service.app.state.streams
    deadline = threading.Event()
    for _ in range(WAIT_S * 20):
        if not streams._open:
            break
        deadline.wait(0.05)
    assert not streams._open
    assert not streams._waiting


def test_who_hangs_up_over_a_page_waits_for_nothing_more(town: Town) -> None:
    with town.house.database.snapshot() as session:
        page = notices(session, town.ann.vault, after=-1, limit=2)

    async def hang_up() -> None:
        streams = Streams(town.house.database)
        following = streams.follow(town.ann.vault, -1, lambda _: page)
        assert await anext(following) == page[0]
        assert not streams._waiting
        await following.aclose()  # type: ignore[attr-defined]  # it is a generator

    anyio.run(hang_up)


def test_who_hangs_up_while_events_wait_crashes_nothing(quick: Audited) -> None:
    """What lies between the stream and its reader has an event in hand then, and nobody to give it to."""
    service = quick.service
    for _ in range(4):
        service.consent()
    quick.settle()
    app = service.client.app
    assert isinstance(app, FastAPI)
    path = f"/v1/vaults/{b64u(service.owner.vault)}/history/stream"
    headers = [(b"authorization", f"Bearer {service.session_token()}".encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "https", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def read_little() -> None:
        app.state.streams = streams = Streams(service.database)
        full = anyio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await full.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if b"data: " in message.get("body", b""):
                await anyio.wait_all_tasks_blocked()
                full.set()
                await anyio.sleep_forever()

        with anyio.fail_after(WAIT_S):
            await app(scope, receive, send)
        assert not streams._open

    anyio.run(read_little)
    assert (sent[0]["status"], len(sent)) == (200, 3)


def test_all_streams_of_a_process_are_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 2)

    async def fill() -> None:
        streams = Streams(town.house.database)
        async with streams.place(VaultId(b"a" * 16)), streams.place(VaultId(b"b" * 16)):
            with pytest.raises(TooManyStreams):
                async with streams.place(VaultId(b"c" * 16)):
                    pass
        async with streams.place(VaultId(b"c" * 16)):
            pass

    anyio.run(fill)
