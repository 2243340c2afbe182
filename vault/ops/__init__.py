"""Operator commands and the supervisor; the CLI finds them through entry points.

Each is loaded when it is named: the supervisor would otherwise load all that every operator's command needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

    from vault.ops.commands import operator
    from vault.ops.supervisor import serve, worker

__all__ = ["operator", "serve", "worker"]

_MODULES: Final = {"operator": "vault.ops.commands", "serve": "vault.ops.supervisor", "worker": "vault.ops.supervisor"}


def __getattr__(name: str) -> typer.Typer:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    command: typer.Typer = getattr(import_module(_MODULES[name]), name)
    return command
