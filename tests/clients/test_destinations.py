"""Messages to the owner's own destinations: a real mail server and a real webhook on loopback."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.clients.destination_kit import COMPANY, Mailbox, Webhook, add, end, event, listening, tell
from tests.waiting import together, until
from twinvault import destinations
from twinvault.destinations import FILE, Destinations, Undelivered
from vault.schema.language import Language


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
