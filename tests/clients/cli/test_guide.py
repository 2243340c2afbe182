"""The owner's guide names only commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from twinvault.cli import app

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "owner-consents.md"
LINES = re.findall(r"^twinvault owner ([a-z-]+)([^#\n]*)", GUIDE.read_text("utf-8"), re.MULTILINE)


def options_of(name: str) -> set[str]:
    group = typer.main.get_command(app).commands["owner"]  # type: ignore[attr-defined]  # a group of groups
    return {option for part in group.commands[name].params for option in (*part.opts, *part.secondary_opts)}


def test_the_guide_shows_commands() -> None:
    assert len(LINES) > 10


@pytest.mark.parametrize(("name", "rest"), LINES)
def test_a_command_of_the_guide_exists_with_its_options(name: str, rest: str) -> None:
    assert set(re.findall(r"--[a-z-]+", rest)) <= options_of(name)


def test_every_option_of_the_tables_is_one_of_give() -> None:
    table = GUIDE.read_text("utf-8").partition("| To allow")[2].partition("## Look")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", table)) <= options_of("give")
