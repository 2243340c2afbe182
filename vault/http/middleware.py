"""One ASGI layer around every request: an id, a body limit, one log line."""

from __future__ import annotations

import errno
import re
import secrets
import sqlite3
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vault.errors import VaultError
from vault.http.problems import problem_response

_log = structlog.get_logger()

_ROOM_S: Final = 60
_DISK_FULL: Final = "53100"  # SQLSTATE

_ALWAYS = re.compile(r"/livez|/metrics|/version|/problems/[a-z-]+")

SHORT_BYTES: Final = 64 * 1024
"""Longest body of most routes: JSON takes up to thirty times its length in memory, before the caller is known."""

_LONGER: Final = (
    # Nobody is known before a vault is (its first months, others follow), nor by a session when an owner key is replaced.
    (1 << 18, re.compile(r"/v1/vaults(/[^/]+/successions)?")),
    # What follows is read only of somebody who is known, or knows a legacy key.
    (2 << 20, re.compile(r"/v1/vaults/[^/]+/erasures(/preview)?|/v1/consents/[^/]+/answers/[^/]+")),
    (8 << 20, re.compile(r"/v1/vaults/[^/]+/consents(/[^/]+/versions)?|/v1/legacies/[^/]+/openings")),
    (1 << 62, re.compile(r"/v1/vaults/[^/]+/(batches|ring)")),
)


class BodyTooLarge(VaultError):
    """A request body beyond what its route accepts."""

    slug = "body-too-large"
    title = "Body too large"
    status = 413


class NoRoom(VaultError):
    """A disk, or a quota on it, that takes no more; the operator has to make room."""

    slug = "no-room"
    title = "No room left"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is full; nothing was changed. Try again once its operator has made room.",
            retry_after_s=_ROOM_S,
        )


class Edge:
    """Give each request an id, bound its body and log its outcome.

    Args:
        app: The application inside.
        max_body_bytes: Largest body of any route; only uploads and rings may be as long.
        refusal: Why nothing is served at all now; None while something is.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, refusal: Callable[[], VaultError | None]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope["request_id"] = request_id
        started_s = time.perf_counter()
        status, started = 500, False
        received_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > SHORT_BYTES or received_bytes > self._max_body_bytes:
                self._require_small(received_bytes, scope["path"])
            return message

        async def noting_send(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                self._require_small(_length(declared), scope["path"])
                self._require_serving(scope["path"])
                await self._app(scope, bounded_receive, noting_send)
            except Exception as error:  # noqa: BLE001  the server's own log would print messages that quote values
                refusal = error if isinstance(error, VaultError) else _crash(error)
                if not started:
                    await problem_response(refusal, instance=f"/requests/{request_id}")(scope, receive, noting_send)
            route = scope.get("route")
            _log.info(
                "request.done",
                method=scope["method"],
                # The template, never the path: paths hold vault and question ids.
                route=getattr(route, "path", "unmatched"),
                status=status,
                wall_ms=round(1000 * (time.perf_counter() - started_s), 1),
            )

    def _require_serving(self, path: str) -> None:
        refusal = self._refusal()
        if refusal is not None and not _ALWAYS.fullmatch(path):
            raise refusal

    def _require_small(self, body_bytes: int, path: str) -> None:
        if body_bytes <= SHORT_BYTES and body_bytes <= self._max_body_bytes:
            return
        allowed = next((most for most, paths in _LONGER if paths.fullmatch(path)), SHORT_BYTES)
        most = min(allowed, self._max_body_bytes)
        if body_bytes > most:
            raise BodyTooLarge(f"The body must be at most {most} bytes here; send less, or in several requests.")


def _length(declared: bytes) -> int:
    if not declared.isdigit() or len(declared) > 18:
        raise BodyTooLarge("The body must say its length as a number.")
    return int(declared)


def _crash(error: Exception) -> VaultError:
    """Log where a defect showed, never its message, and return what the caller is told."""
    if _is_full(error):
        _log.error("request.failed", slug=NoRoom.slug)
        return NoRoom()
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    _log.error("request.crashed", error_type=type(error).__name__, reason=place)
    return VaultError("The server failed while handling this request; nothing was changed. Please try again.")


def _is_full(error: Exception) -> bool:
    """Say whether SQLite, PostgreSQL or the file system found no room to write."""
    told = getattr(error, "orig", error)
    return (
        getattr(told, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(told, "sqlstate", None) == _DISK_FULL
        or getattr(told, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    )
