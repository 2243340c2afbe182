"""`owner deliver` and its destinations, against the shipped service: off until named, each event once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client_kit import PURCHASE, Service
from tests.clients.destination_kit import SECRET, Webhook, listening
from tests.http_kit import await_sequencer
from twinvault.api import Unreachable
from twinvault.cli import common, main
from twinvault.cli import destinations as commands
from twinvault.destinations import FILE
from vault.schema.terms import ConsentKind


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


@pytest.fixture
def owner(service: Service, new_owner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    found = new_owner()[0]
    await_sequencer(service.app.state.database)  # nobody waits for the vault's beginning: it would be news later on
    profile = found.profile
    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: found)
    monkeypatch.setattr(common, "load_profile", lambda _: profile)
    monkeypatch.setattr(common, "folder_of", lambda _: profile.folder)
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    def run(*argv: str) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["owner", *argv, "--json"])
        said = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in said.out.splitlines()], said.err

    return run


def address(tmp_path: Path, url: str) -> str:
    file = tmp_path / "address"
    file.write_text(url + "\n")
    return str(file)


def test_nothing_is_sent_until_a_destination_is_named(
    owner: Any, run: Callable[..., Any], webhook: Webhook, tmp_path: Path
) -> None:
    status, _, said = run("deliver")
    assert status == 1
    assert "add-destination" in said
    assert not (owner.profile.folder / FILE).exists()
    assert webhook.received == []


def test_an_owner_is_told_once_of_what_happened_since(
    owner: Any, run: Callable[..., Any], webhook: Webhook, tmp_path: Path
) -> None:
    status, added, _ = run("add-destination", "--url-file", address(tmp_path, webhook.url))
    assert status == 0
    assert re.fullmatch(r"json \([0-9a-f]{8}\)", added[0]["added"])
    assert run("deliver")[1] == [{"told": []}]
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    assert run("deliver")[1] == [{"told": [added[0]["added"]]}]
    assert run("deliver")[1] == [{"told": []}]
    told = webhook.texts[1:]
    assert len(told) == 1
    assert told[0] == (
        "New in your vault: 1. Consents that end within a week: 0.\nRead it with: twinvault owner notices"
    )
    listed = run("destinations")
    assert SECRET not in json.dumps(listed[1])
    assert listed[1][0]["destinations"][0]["after"] == owner.history()[-1]["index"]
    assert run("remove-destination", "1")[1] == [{"removed": added[0]["added"]}]
    assert run("deliver")[0] == 1


def test_following_outlives_a_destination_and_a_service_that_are_away(
    owner: Any, run: Callable[..., Any], webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add-destination", "--url-file", address(tmp_path, webhook.url))
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    webhook.status = 503
    history, turns = owner.history, iter(["the destination is away", "the service is away", "both are back", "over"])

    def away(after: int) -> Any:
        raise Unreachable("The service did not answer.")

    def next_turn(seconds: float) -> None:
        assert seconds == 10
        turn = next(turns)
        if turn == "over":
            raise KeyboardInterrupt
        webhook.status = 503 if turn == "the destination is away" else 200
        monkeypatch.setattr(owner, "history", away if turn == "the service is away" else history)

    monkeypatch.setattr(commands, "sleep", next_turn)
    _, told, said = run("deliver", "--follow", "--every-s", "10")
    assert [len(turn["told"]) for turn in told] == [1]
    assert "sent again next time" in said
    assert "The service did not answer." in said
    assert SECRET not in said
    assert len(webhook.texts) == 2


def test_details_are_sent_after_the_owner_read_what_that_means(
    owner: Any, run: Callable[..., Any], webhook: Webhook, tmp_path: Path
) -> None:
    file = address(tmp_path, webhook.url)
    status, _, said = run("add-destination", "--url-file", file, "--details")
    assert status == 1
    assert "Whoever carries" in said.replace("\n", " ")
    assert webhook.received == []
    assert run("add-destination", "--url-file", file, "--details", "--yes")[0] == 0
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    run("deliver")
    assert next(event["sentence"] for event in owner.history() if event["kind"] == "consent") in webhook.texts[-1]


def test_an_address_is_never_taken_from_a_pipe(owner: Any, run: Callable[..., Any]) -> None:
    status, _, said = run("add-destination")
    assert status == 1
    assert "--url-file" in said
