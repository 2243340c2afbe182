"""The guides name only commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from twinvault.cli import app

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "owner-consents.md"
LINES = re.findall(r"^twinvault owner ([a-z-]+)([^#\n]*)", GUIDE.read_text("utf-8"), re.MULTILINE)


FIRST_ANSWER = (GUIDE.parent / "first-answer.md").read_text("utf-8").replace("\\\n", " ")
COMPANY_LINES = re.findall(r"\btwinvault (company|auditor) ((?:proof )?[a-z-]+)([^\n|>&]*)", FIRST_ANSWER)


def options_of(*names: str) -> set[str]:
    found: Any = typer.main.get_command(app)
    for name in names:
        found = found.commands[name]
    return {option for part in found.params for option in (*part.opts, *part.secondary_opts)}


def test_the_guide_shows_commands() -> None:
    assert len(LINES) > 10


@pytest.mark.parametrize(("name", "rest"), LINES)
def test_a_command_of_the_guide_exists_with_its_options(name: str, rest: str) -> None:
    assert set(re.findall(r"--[a-z-]+", rest)) <= options_of("owner", name)


def test_every_option_of_the_tables_is_one_of_give() -> None:
    table = GUIDE.read_text("utf-8").partition("| To allow")[2].partition("## Look")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", table)) <= options_of("owner", "give")


def test_the_first_answers_guide_shows_the_companys_commands() -> None:
    assert {"register", "request", "wait", "ask", "proof token", "proof ask"} <= {name for _, name, _ in COMPANY_LINES}


@pytest.mark.parametrize(("group", "name", "rest"), COMPANY_LINES)
def test_a_companys_command_of_the_guide_exists_with_its_options(group: str, name: str, rest: str) -> None:
    assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= options_of(group, *name.split())


LEGACY = (GUIDE.parent / "legacy.md").read_text("utf-8")
LEGACY_LINES = re.findall(r"^twinvault (owner legacy|executor) ([a-z-]+)([^#\n]*)", LEGACY, re.MULTILINE)


def test_the_legacy_guide_shows_every_command() -> None:
    shown = {f"{group} {name}" for group, name, _ in LEGACY_LINES}
    found: Any = typer.main.get_command(app)
    for group in ("owner legacy", "executor"):
        commands = found
        for name in group.split():
            commands = commands.commands[name]
        assert {f"{group} {name}" for name in commands.commands} <= shown


@pytest.mark.parametrize(("group", "name", "rest"), LEGACY_LINES)
def test_a_command_of_the_legacy_guide_exists_with_its_options(group: str, name: str, rest: str) -> None:
    assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= options_of(*group.split(), name)
