"""How a process of the app accepts connections, and leaves them to the others where it has more.

Whichever process the kernel wakes first would accept, and of 20 connections 14 may lie in one of two processes: whoever
asks there waits twice as long. So each process says how many it has, and one that has more than another waits a
moment before it accepts one more.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress
from typing import Final

import structlog
import uvicorn

from vault.http.malformed import TURN_S, Protocol
from vault.http.shares import Shares

_YIELD_S: Final = 0.005  # in which another process gets its turn of the interpreter and accepts
_LOOK_S: Final = 0.0005  # an idle one has accepted by then, and many who come at once are served a beat sooner
_RETRY_S: Final = 0.1
_MOST_CONNECTIONS: Final = 4_096
_TICKS: Final = 10 * TURN_S  # uvicorn ticks every tenth of a second

_log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn's, except that it takes no more than its share of the connections.

    Args:
        config: As uvicorn's.
        shares: Of all processes that accept from the same socket.
    """

    def __init__(self, config: uvicorn.Config, shares: Shares) -> None:
        super().__init__(config)
        self._shares = shares
        self._most = _most_connections()
        self._accepting: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then accept from the sockets."""
        await super().startup(sockets=[])
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in sockets or []]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, finish what was begun, and end."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Hang up, now and then, on who does not come to the point."""
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.take_turn()
        return await super().on_tick(counter)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._say()
        while True:
            await _readable(listener)
            self._say()
            if len(self.server_state.connections) >= self._most:  # they wait in the kernel, which costs nothing here
                await asyncio.sleep(_RETRY_S)
                continue
            if self._shares.has_more:
                await self._give_way()
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # another process has it, or its client is gone
                continue
            except OSError as error:  # such as no file descriptor left; those who wait outlive it
                _log.warning("accept.failed", error_type=type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            connection.setblocking(False)
            with suppress(OSError):  # its client is gone already
                await loop.connect_accepted_socket(self._protocol, connection)

    async def _give_way(self) -> None:
        """Wait until another process has as many, but no longer than a busy one takes to accept: it may be dead."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _YIELD_S
        while self._shares.has_more and loop.time() < until_s:  # noqa: ASYNC110  another process changes it and tells nobody
            await asyncio.sleep(_LOOK_S)

    def _say(self) -> None:
        self._shares.say(len(self.server_state.connections))

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg]  # as uvicorn itself calls it
        return protocol


def _most_connections() -> int:
    """Return for how many connections this process may open files, and leave as many for databases and folders."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS
    if 0 <= soft < wanted:  # below 0 there is no limit
        soft = max(soft, wanted if hard < 0 else min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MOST_CONNECTIONS if soft < 0 else min(_MOST_CONNECTIONS, soft // 2)


async def _readable(listener: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)
