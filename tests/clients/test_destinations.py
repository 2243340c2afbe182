"""Messages to the owner's own destinations: a real mail server and a real webhook on loopback."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from tests.waiting import together, until
from twinvault import destinations
from twinvault.destinations import FILE, MAX_DESTINATIONS, BadDestination, Destinations, Undelivered
from twinvault.profile import BadProfile
from vault.schema.language import Language

SECRET = "t0psecret"
COMPANY = "Acme Biscuits"


def event(index: int, kind: str = "answer") -> dict[str, Any]:
    return {"index": index, "kind": kind, "sentence": f"{COMPANY} asked question {index}."}


def end(version: int = 1) -> dict[str, Any]:
    sentence = f"{COMPANY}: your consent ends on 2026-12-01 unless you renew it."
    return {"consent": "A" * 22, "version": version, "ends_at": 1, "sentence": sentence}


@dataclass
class Webhook:
    """An HTTP endpoint that keeps what it was sent; what it answers is up to the test."""

    received: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    crash: Any = None
    answer: Any = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"json://owner:{SECRET}@127.0.0.1:{self.port}/{SECRET}"

    @property
    def texts(self) -> list[str]:
        return [item["message"] for item in self.received]


@contextmanager
def listening() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hook.paths.append(self.path)
            if hook.crash is not None:
                hook.crash(body)
                return
            if hook.status < 300:
                hook.received.append(body)
            if hook.answer is not None:
                hook.answer(self)
                return
            self.send_response(hook.status)
            self.send_header("location", f"http://127.0.0.1:{hook.port}/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


class Mailbox:
    """A mail server's handler that keeps each message."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  (aiosmtpd's name)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 kept"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    box, loop = Mailbox(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(box, hostname="mail.test"), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    yield box, f"mailto://127.0.0.1:{port}/?from=vault@example.org&to=owner@example.org"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def kept(tmp_path: Path) -> Destinations:
    return Destinations(tmp_path)


def add(kept: Destinations, url: str, *, details: bool = False, after: int = -1) -> None:
    kept.add(url, details=details, after=after, ending=[], said=Language.EN)


def tell(kept: Destinations, *events: dict[str, Any], ending: Any = (), said: Language = Language.EN) -> list[str]:
    return kept.tell(events, ending, said)


def test_a_mail_says_how_much_happened_and_nothing_else(kept: Destinations, mailbox: tuple[Mailbox, str]) -> None:
    box, url = mailbox
    add(kept, url)
    tell(kept, event(4), event(5, "denial"), ending=[end()])
    hello, news = box.mails
    assert "told from now on" in hello.as_string()
    assert (news["subject"], news["to"]) == ("TwinVault", "owner@example.org")
    said = [part.get_content() for part in news.walk() if part.get_content_maintype() == "text"]
    assert said[0].splitlines() == [
        "New in your vault: 2. Consents that end within a week: 1.",
        "Read it with: twinvault owner notices",
    ]
    assert not [text for text in said if COMPANY in text or "asked" in text or "2026" in text]
    assert "github" not in news.as_string()


def test_a_webhook_is_told_what_happened_only_if_its_owner_said_so(kept: Destinations, webhook: Webhook) -> None:
    add(kept, webhook.url)
    add(kept, webhook.url + "/details", details=True)
    tell(kept, event(1), ending=[end()])
    plain, detailed = webhook.texts[2:]
    assert COMPANY not in plain
    assert detailed.split("\n")[1:3] == [end()["sentence"], event(1)["sentence"]]
    tell(kept, *(event(index) for index in range(2, 100)))
    assert "and 58 more" in webhook.texts[-1]


def test_a_message_is_in_the_owners_language(kept: Destinations, webhook: Webhook) -> None:
    add(kept, webhook.url)
    tell(kept, event(1), said=Language.FR)
    assert webhook.texts[-1].startswith("Nouveau dans votre coffre : 1.")


def test_each_event_and_each_end_is_told_once(kept: Destinations, webhook: Webhook) -> None:
    add(kept, webhook.url, after=3)
    assert tell(kept, event(2), event(3)) == []
    assert len(tell(kept, event(3), event(4), ending=[end()])) == 1
    assert tell(kept, event(4), ending=[end()]) == []
    assert tell(kept, ending=[]) == []
    assert len(tell(kept, ending=[end(2)])) == 1
    assert [text.split("\n")[0] for text in webhook.texts[1:]] == [
        "New in your vault: 1. Consents that end within a week: 1.",
        "New in your vault: 0. Consents that end within a week: 1.",
    ]


def test_what_the_owners_own_devices_do_all_day_is_not_told(kept: Destinations, webhook: Webhook) -> None:
    add(kept, webhook.url)
    assert tell(kept, event(7, "upload"), event(8, "ring-head")) == []
    assert kept.read()[0].after == 8
    assert len(tell(kept, event(9, "a-kind-of-tomorrow"))) == 1


def test_what_a_destination_does_not_take_is_sent_again_and_the_others_are_told(
    kept: Destinations, webhook: Webhook
) -> None:
    with listening() as broken:
        add(kept, broken.url)
        add(kept, webhook.url)
        broken.status = 503
        with pytest.raises(Undelivered, match=r"json \([0-9a-f]{8}\)"):
            tell(kept, event(1))
        assert "New in your vault: 1." in webhook.texts[-1]
        with pytest.raises(Undelivered):
            tell(kept, event(1), event(2))
        assert len(webhook.texts) == 3
        broken.status = 200
        tell(kept, event(1), event(2))
        assert "New in your vault: 2." in broken.texts[-1]
        assert len(webhook.texts) == 3
    with pytest.raises(Undelivered):  # gone altogether
        tell(kept, event(3))
    assert [item.after for item in kept.read()] == [2, 3]


def test_a_destination_that_cannot_be_used_any_more_keeps_no_other_from_being_told(
    kept: Destinations, webhook: Webhook, tmp_path: Path
) -> None:
    add(kept, webhook.url)
    file = tmp_path / FILE
    one = file.read_text().removeprefix('{"destinations":[').removesuffix("]}")
    unknown = one.replace("json:", "of-another-release:")
    file.write_text(f'{{"destinations":[{unknown},{one}]}}')
    with pytest.raises(Undelivered, match="of-another-release"):
        tell(kept, event(1))
    assert "New in your vault: 1." in webhook.texts[-1]


def test_an_answer_that_does_not_come_to_its_end_is_not_waited_for(
    kept: Destinations, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "40")
        handler.end_headers()
        for _ in range(40):  # taken in the end, if somebody waits for that
            over.wait(0.5)
            handler.wfile.write(b".")

    with listening() as hook:
        add(kept, hook.url)
        hook.answer = drip
        monkeypatch.setattr(destinations, "_ANSWERED_S", 0.5)
        with pytest.raises(Undelivered):
            tell(kept, event(1))
        over.set()


def test_a_message_goes_nowhere_but_where_its_owner_said(kept: Destinations, webhook: Webhook) -> None:
    add(kept, webhook.url)
    webhook.status = 307
    with pytest.raises(Undelivered):
        tell(kept, event(1))
    assert "/elsewhere" not in webhook.paths


def _tell_in_child(folder: Path) -> None:
    tell(Destinations(folder), event(1))


@pytest.mark.parametrize("killed_when", ["before it is taken", "after it is taken"])
def test_a_killed_client_loses_nothing(kept: Destinations, webhook: Webhook, tmp_path: Path, killed_when: str) -> None:
    add(kept, webhook.url)
    child = multiprocessing.get_context("spawn").Process(target=_tell_in_child, args=(tmp_path,))

    def kill(body: dict[str, Any]) -> None:
        webhook.crash = None
        if killed_when == "after it is taken":
            webhook.received.append(body)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    webhook.crash = kill
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    tell(kept, event(1))
    assert tell(kept, event(1)) == []
    assert len(webhook.texts) == 1 + (2 if killed_when == "after it is taken" else 1)


def test_of_two_clients_at_once_one_tells(
    kept: Destinations, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(kept, webhook.url)
    asked, sent, flock, took = list[object](), list[object](), fcntl.flock, destinations._took

    def ask(*how: Any) -> None:
        asked.append(how)
        flock(*how)

    def send(*message: Any) -> bool:
        sent.append(message)
        until(lambda: max(len(asked), len(sent)) >= 4, "each client asks for its turn, or sends without")
        return took(*message)

    monkeypatch.setattr(fcntl, "flock", ask)
    monkeypatch.setattr(destinations, "_took", send)
    together(*[lambda: tell(Destinations(tmp_path), event(1))] * 4)
    assert len(webhook.texts) == 2


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "no address that apprise knows"),
        ("mailtos://", "no address that apprise knows"),
        ("two words", "one word"),
        ("", "one word"),
        ("json://" + "a" * 2048, "one word"),
        (f"mailto://owner:{SECRET}@example.org", "in the clear"),
        (
            f"mailto://127.0.0.1/?smtp=mail.example.org&user={SECRET}&to=a@example.org&from=b@example.org",
            "in the clear",
        ),
        (f"json://example.org/{SECRET}", "in the clear"),
        (f"ntfy://example.org/{SECRET}", "in the clear"),
        (f"kodi://owner:{SECRET}@example.org", "in the clear"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(
    kept: Destinations, tmp_path: Path, url: str, why: str
) -> None:
    with pytest.raises(BadDestination, match=why) as refused:
        add(kept, url)
    assert SECRET not in refused.value.detail
    assert not (tmp_path / FILE).exists()


def test_a_destination_that_does_not_take_the_first_message_is_not_kept(kept: Destinations, webhook: Webhook) -> None:
    webhook.status = 403
    with pytest.raises(Undelivered, match="not kept"):
        add(kept, webhook.url)
    assert kept.read() == []


def test_destinations_are_listed_once_counted_and_forgotten(
    kept: Destinations, webhook: Webhook, tmp_path: Path
) -> None:
    add(kept, webhook.url)
    with pytest.raises(BadDestination, match="kept already"):
        add(kept, webhook.url)
    for number in range(1, MAX_DESTINATIONS):
        add(kept, f"{webhook.url}{number}")
    with pytest.raises(BadDestination, match="remove one first"):
        add(kept, f"{webhook.url}-one-more")
    for number in (0, 9, -1):
        with pytest.raises(BadDestination, match="none has the number"):
            kept.remove(number)
    for _ in range(MAX_DESTINATIONS):
        kept.remove(1)
    assert SECRET.encode() not in (tmp_path / FILE).read_bytes()
    assert tell(kept, event(1)) == []


def test_an_address_is_read_by_its_owner_only_and_logged_nowhere(
    kept: Destinations, webhook: Webhook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add(kept, webhook.url, details=True)
    webhook.status = 500
    with pytest.raises(Undelivered) as refused:
        tell(kept, event(1))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [*caplog.records] == []
    assert SECRET not in refused.value.detail
    assert COMPANY not in refused.value.detail
    assert all(SECRET not in item.name for item in kept.read())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"destinations":1}',
        b'{"destinations":[1]}',
        b'{"destinations":[{"after":"1","details":0,"ending":[],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":2,"ending":[],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[1],"url":"json://x"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[],"url":"a b"}]}',
        b'{"destinations":[{"after":1,"details":0,"ending":[],"more":1,"url":"json://x"}]}',
    ],
)
def test_a_damaged_file_is_one_clear_error(kept: Destinations, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BadProfile):
        kept.read()
    with pytest.raises(BadProfile):
        tell(kept, event(1))
    assert (tmp_path / FILE).read_bytes() == content


def test_without_the_library_the_pip_line_is_said(
    kept: Destinations, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(destinations, "import_module", missing)
    with pytest.raises(BadDestination, match=r"twinvault\[notify\]"):
        add(kept, webhook.url)
