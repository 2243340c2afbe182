"""Ends a process whose supervisor is gone, killed perhaps: nobody would stop it, and it would keep port and database."""

from __future__ import annotations

import os
import signal
import threading


def end_with(descriptor: int | None) -> None:
    """Send this process SIGTERM once nobody holds the other end of a pipe any more.

    Args:
        descriptor: The inherited end to read from, which nobody writes to; None if this process has no supervisor.
    """
    if descriptor is not None:
        threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
