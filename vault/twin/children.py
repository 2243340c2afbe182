"""The worker's end of the opening processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from vault.errors import VaultError
from vault.imprint.noise import Integers
from vault.seal.errors import SealError
from vault.twin.opening import BATCH, NO_MORE, REPLY_S, Ask, Channel, VaultKeys, dump_ask, parse_reply, reply_bytes


class UnreadableBatches(VaultError):
    """Batches of a vault that do not open: altered, of an unlisted device, or malformed inside."""

    slug = "unreadable-batches"
    title = "Batches cannot be read"
    status = 422


class OpeningFailed(VaultError):
    """The process that opened a vault's batches died, ran too long or answered nonsense."""

    slug = "opening-failed"
    title = "Opening batches failed"
    status = 500


class Child:
    """A process that holds one vault's keys; see `Children.of`.

    Args:
        channel: To the process.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def month(self, ask: Ask, batches: Iterable[bytes]) -> Integers:
        """Return what is wanted of one month's traces.

        Args:
            ask: What, of which month.
            batches: In the order in which each device's chain grew.

        Returns:
            int64 of the shape that the ask says.

        Raises:
            UnreadableBatches: The child refused a batch.
            OpeningFailed: The child is gone.
        """
        try:
            self._channel.send(dump_ask(ask))
            for encoded in batches:
                self._channel.send(BATCH + encoded)
            self._channel.send(NO_MORE)
        except OSError:
            pass  # it stopped listening; its answer says why
        try:
            numbers = parse_reply(self._channel.receive(reply_bytes(ask.shape)), ask.shape)
        except (OSError, SealError) as error:
            raise OpeningFailed("The process that opened the batches ended without an answer.") from error
        if numbers is None:
            raise UnreadableBatches("A batch of this vault does not open; have its device seal those traces again.")
        return numbers


class Children:
    """The fork server; start it before seeds or torch are loaded.

    Args:
        read_texts: Read what texts are read with once, for all children; else each that meets a text does.

    Guarantees: no child inherits memory, environment or open files of the worker; one child is sent
    the keys of one vault.
    """

    def __init__(self, *, read_texts: bool = False) -> None:
        self._read_texts = read_texts
        self._turn = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        # Only the import path: settings with database URLs and keyring folders stay here.
        found = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        environment = {"PYTHONPATH": found, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "vault.twin.opening", str(theirs.fileno()), str(int(self._read_texts))]
        self._server = subprocess.Popen(  # noqa: S603  # our own module
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        theirs.close()

    @contextmanager
    def of(self, keys: VaultKeys) -> Iterator[Child]:
        """Fork a child for one vault; it ends with the block.

        Raises:
            OpeningFailed: There is none; the next one may be forked again.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._fork(theirs)
        ours.settimeout(REPLY_S)
        channel = Channel(ours)
        try:
            try:
                channel.send(keys.dump())
            except OSError as error:
                raise OpeningFailed("The process that opens batches could not be reached.") from error
            yield Child(channel)
        finally:
            channel.close()

    def _fork(self, theirs: socket.socket) -> None:
        """Have a child forked that listens there, by a new server where the former one died, as for want of memory."""
        with self._turn:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                self.close()
                self._start()
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])

    def close(self) -> None:
        """End the server; children end with their blocks."""
        self._control.close()
        self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
