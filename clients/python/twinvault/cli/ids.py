"""Ids on the command line: one in 64 begins with `-`, and is no option for that."""

from __future__ import annotations

import re
from typing import Any, Final

import typer
from typer.core import TyperCommand

_ID: Final = re.compile(r"-[A-Za-z0-9_-]{21}(?:[A-Za-z0-9_-]{21})?")
"""16 or 32 bytes in base64url."""


class _Command(TyperCommand):
    """A command that takes an id for what it is, and still refuses an option that it does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(map(_ID.fullmatch, args)):
            ctx.ignore_unknown_options = True  # what no option is called is then an argument
        return super().parse_args(ctx, args)


def take_ids(app: typer.Typer) -> None:
    """Let every command of an app, and of the apps in it, take ids that begin with `-`."""
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            take_ids(group.typer_instance)
