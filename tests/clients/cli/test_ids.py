"""An id that begins with `-`, as one of 64 does, is taken for an id by every command that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.site_kit import make_site, operate
from twinvault.cli import main

DASHED = ["-" + "A" * 21, "-b_C-" + "A" * 17, "--" + "A" * 20]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nobody has a profile yet."""
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", DASHED)
@pytest.mark.parametrize("command", ["withdraw", "revoke-device", "narrow", "approve"])
def test_an_owners_command_takes_an_id_that_begins_with_a_dash(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    for words in ([command, name], [command, "--json", name], [command, name, "--profile", "mine"]):
        code, sentence = said(capsys, "owner", *words)
        assert (code, "profile" in sentence) == (1, True), (words, sentence)


def test_an_operators_command_takes_one(home: Path) -> None:
    site = make_site(home / "site")
    for command in (["companies", "approve"], ["companies", "suspend"], ["sandbox"], ["models", "card"]):
        for name in [*DASHED, "-" + "A" * 42]:
            result = operate([*command, name, "--site", str(site.folder)])
            assert "No such option" not in result.stderr, (command, name)
            assert "unexpected" not in result.stderr, (command, name)
    assert (
        "No registration of this id" in operate(["companies", "approve", DASHED[0], "--site", str(site.folder)]).stderr
    )


def test_an_option_that_no_command_knows_is_still_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, sentence = said(capsys, "owner", "revoke-device", "--atonce", "A" * 22)
    assert (code, "No such option: --atonce" in sentence) == (2, True)
