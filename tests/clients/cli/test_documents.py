"""README, guides and pages name only commands and options that exist, and the README says what a newcomer needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from twinvault.cli import app
from twinvault.demo import main as demo
from vault.ops import operator, serve, worker

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/guides/*.md"))]
LOADED = {"operator": operator, "serve": serve, "worker": worker, "demo": demo}
_NAMED = re.compile(r"(?<!from )\btwinvault((?: [a-z][a-z-]*)+)([^`\n|>&#;]*)")


def named(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each command that a page names, up to where its words end, and what follows in its line."""
    for words, rest in _NAMED.findall(page.read_text("utf-8").replace("\\\n", " ")):
        yield words.strip(), rest


def command_of(words: str) -> Any:
    """Return the command that the first words name; what follows them may be arguments."""
    first, *others = words.split()
    found: Any = typer.main.get_command(LOADED.get(first, app))
    for word in others if first in LOADED else [first, *others]:
        commands = getattr(found, "commands", None)
        if commands is None:
            break
        assert word in commands, f"twinvault {words}: there is no {word}"
        found = commands[word]
    return found


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_names_only_what_exists(page: Path) -> None:
    for words, rest in named(page):
        command = command_of(words)
        options = {option for part in command.params for option in (*part.opts, *part.secondary_opts)}
        assert set(re.findall(r"(?<=[ \[])--[a-z][a-z-]*", rest)) <= options | {"--help"}, f"twinvault {words}{rest}"


def test_the_pages_name_most_of_what_an_operator_has() -> None:
    shown = {words for page in PAGES for words, _ in named(page)}
    assert len({words for words in shown if words.startswith("operator ")}) > 10


def test_the_readme_has_a_quick_start_who_sees_what_the_keys_and_the_limits() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"The people", "How it works", "Who can see what", "Limits, said plainly", "Keys"} <= set(headings)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", text, re.MULTILINE)):
        (name,) = filter(None, target)
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"make {name}"
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / link).exists(), link
