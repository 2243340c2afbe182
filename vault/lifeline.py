"""How a process of the service ends: in words where it refuses to start, and with the supervisor that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vault.errors import VaultError


@contextmanager
def ended_in_words() -> Iterator[None]:
    """End this process with one sentence where it refuses to go on; a defect keeps its traceback."""
    try:
        yield
    except VaultError as refusal:
        sys.exit(f"twinvault: {refusal.detail}")


def end_with(descriptor: int | None) -> None:
    """Send this process SIGTERM once nobody holds the other end of a pipe any more.

    Whoever was killed cannot stop what it started, which would keep port and database.

    Args:
        descriptor: The inherited end to read from, which nobody writes to; None if this process has no supervisor.
    """
    if descriptor is not None:
        threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
