"""Commands of other parts: the server's, found through entry points, and the demo. Loaded only when called."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import typer

from twinvault.cli.ids import take_ids

GROUP: Final = "twinvault.commands"
_ANY_ARGUMENTS: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
_NOT_INSTALLED: Final = 2


def add_server_commands(app: typer.Typer) -> None:
    """Add the commands that other parts of the wheel bring."""

    @app.command(context_settings=_ANY_ARGUMENTS)
    def serve(context: typer.Context) -> None:
        """Run the service: app, sequencer and worker (needs the server extra)."""
        _run("serve", context.args)

    @app.command(context_settings=_ANY_ARGUMENTS)
    def worker(context: typer.Context) -> None:
        """Run a worker alone (needs the server extra)."""
        _run("worker", context.args)

    @app.command(context_settings=_ANY_ARGUMENTS)
    def operator(context: typer.Context) -> None:
        """Set a site up, register companies, rotate keys (needs the server extra)."""
        _run("operator", context.args)

    @app.command(context_settings=_ANY_ARGUMENTS)
    def demo(context: typer.Context) -> None:
        """Play the whole story on real shopping histories (needs the demo extra)."""
        _call("demo", "demo", lambda: import_module("twinvault.demo").main, context.args)


def _run(name: str, arguments: list[str]) -> None:
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        _missing(name, "server")
    else:
        _call(name, "server", found.load, arguments)


def _call(name: str, extra: str, load: Any, arguments: list[str]) -> None:
    """Load a command and run it with what follows its name on the command line."""
    try:
        command = load()
        if isinstance(command, typer.Typer):
            take_ids(command)
            typer.main.get_command(command)(arguments, prog_name=f"twinvault {name}")
        else:
            raise typer.Exit(command(arguments) or 0)
    except ModuleNotFoundError as error:
        _missing(name, extra, error.name or "")


def _missing(name: str, extra: str, module: str = "") -> None:
    why = f" ({module} is missing)" if module else ""
    typer.echo(f'twinvault: `{name}` is not installed{why}. Run: pip install "twinvault[{extra}]"', err=True)
    raise typer.Exit(_NOT_INSTALLED)
