"""`owner notices`: one line for each event, with the rule that refused below it, in the owner's language."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from tests.client_kit import PURCHASE
from twinvault.cli import common, main
from vault.schema.language import Language
from vault.schema.terms import ConsentKind


def test_an_owner_reads_and_follows_what_happened(
    new_owner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, _ = new_owner()
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: owner)
    known = owner.history()

    def told(*options: str, command: str = "notices") -> list[str]:
        with pytest.raises(SystemExit):
            main(["owner", command, *options])
        return capsys.readouterr().out.splitlines()

    plain = told()
    assert plain[0].endswith("Your vault began.")
    assert len(plain) == len(known)
    assert told(command="history") == plain, "for a person; what each event proves is for programs"
    assert [event["entry"] for event in json.loads(told("--json", command="history")[0])["history"]]
    assert [json.loads(line) for line in told("--json", "--after", str(known[0]["index"]))] == known[1:]
    endless = owner.follow
    monkeypatch.setattr(owner, "follow", lambda after: islice(endless(after), len(known)))
    assert told("--follow") == plain
    owner.language = Language.FR
    assert told()[0].endswith("Votre coffre a été créé.")
