"""The bell: how the processes of one SQLite database tell each other at once that there is something to look at.

A ring carries nothing and may be lost: who hears none looks by itself a moment later. PostgreSQL needs none,
because there every process sequences its own events.
"""

from __future__ import annotations

import os
import secrets
import select
from contextlib import suppress
from pathlib import Path

import structlog

_DRAIN_BYTES = 65_536  # all that a pipe holds

_log = structlog.get_logger()


class Bell:
    """A named pipe for each listening process, in a folder beside the database; a dead one's is removed by who rings it.

    Args:
        folder: Where the pipes of all processes lie; None to be heard by this process alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._name = ""
        self._read = self._write = -1
        self._others: dict[str, int] = {}
        self._rung = False

    def open(self) -> None:
        """Listen from now on."""
        try:
            if self._folder is not None:
                self._read = self._write = self._listed(self._folder)
        except OSError as error:  # such as a file system without named pipes
            _log.warning("bell.unheard", error_type=type(error).__name__)
        if self._read < 0:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def close(self) -> None:
        """Stop listening; nobody may ring or wait any more."""
        if self._folder is not None and self._name:
            (self._folder / self._name).unlink(missing_ok=True)
        for pipe in {self._read, self._write, *self._others.values()}:
            os.close(pipe)
        self._others.clear()
        self._read = self._write = -1

    def wait(self, timeout_s: float) -> bool:
        """Say whether it was rung since it was last cleared, waiting for that for a while."""
        return bool(self._poll.poll(1000 * timeout_s))

    def clear(self) -> None:
        """Take note of every ring so far; look at what they may be about after this, not before."""
        with suppress(BlockingIOError):
            os.read(self._read, _DRAIN_BYTES)
        self._rung = False  # after that: who finds it rung may leave it at that only if a look is still to come

    def ring(self) -> None:
        """Wake this process."""
        if self._rung:
            return
        self._rung = True
        with suppress(OSError):  # full, so it rings already; or closed, so nobody listens
            os.write(self._write, b"\0")

    def ring_others(self) -> None:
        """Wake every other process of the database; one at a time may call this."""
        if self._folder is None or self._write < 0:
            return
        with suppress(FileNotFoundError):
            names = {one.name for one in self._folder.iterdir() if not one.name.startswith(".")} - {self._name}
            for name in self._others.keys() - names:
                os.close(self._others.pop(name))
            for name in names:
                self._ring(name, self._folder / name)

    def _ring(self, name: str, path: Path) -> None:
        try:
            if name not in self._others:
                self._others[name] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._others[name], b"\0")
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more: its process is dead
            if name in self._others:
                os.close(self._others.pop(name))
            path.unlink(missing_ok=True)

    def _listed(self, folder: Path) -> int:
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        hidden = folder / f".{name}"  # found unread, it would be taken for a dead process's
        os.mkfifo(hidden, 0o600)
        pipe = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        hidden.rename(folder / name)
        self._name = name
        return pipe
