"""What the demo prints: numbered steps, plain sentences, one progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Teller:
    """Tells the story as it happens.

    Args:
        console: Standard output, or standard error where standard output carries JSON.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0
        self._started_s = time.monotonic()

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        elapsed_s = time.monotonic() - self._started_s
        self._console.print(
            f"\n[bold]{self._steps}  {title}[/bold] [dim]{elapsed_s:.0f} s[/dim]", highlight=False, soft_wrap=True
        )

    def say(self, sentence: str) -> None:
        """Print one thing that the step shows."""
        self._console.print(f"   {sentence}", markup=False, highlight=False, soft_wrap=True)

    def lines(self, text: str) -> None:
        """Print lines to copy, unwrapped."""
        for line in text.splitlines():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar; yields what to call for each piece that is done."""
        columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)
