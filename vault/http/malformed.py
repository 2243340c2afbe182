"""What the server says to whoever does not speak HTTP to it, or does not come to the point."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vault.errors import VaultError
from vault.http.problems import problem_response

MOST_HEAD_BYTES: Final = 64 * 1024
TURN_S: Final = 10
_HEAD_TURNS = 3  # as long as an idle connection is kept
_BODY_TURNS = 30  # 32 MiB at 1 Mbit/s


class MalformedHttp(VaultError):
    """Bytes that are not an HTTP/1.1 request, such as a header with a name that no header may have."""

    slug = "malformed-http"
    title = "Malformed HTTP"
    status = 400


class HeadTooLarge(VaultError):
    """A request line, headers or trailers longer than any route needs."""

    slug = "head-too-large"
    title = "Head too large"
    status = 431


class TooSlow(VaultError):
    """A head or body that was begun and did not come to its end in time."""

    slug = "request-too-slow"
    title = "Request too slow"
    status = 408


class Protocol(HttpToolsProtocol):
    """uvicorn's, except that its own refusal is a problem document like every other, and that a head has an end.

    The parser keeps what it reads of a head until the head is complete; nothing else bounds that.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._turns = 0
        self._waited_for: tuple[object, bool] = (None, True)

    def take_turn(self) -> None:
        """Count a turn of `TURN_S`, in each of which a request may come to its end; after enough of them, hang up.

        Who waits for an answer, or reads a long one, is left alone. Nothing is done for each request: this is seen
        from outside.
        """
        cycle: Any = self.cycle  # None before the first request
        reads_head = cycle is None or cycle.response_complete
        if not reads_head and not cycle.more_body:
            return
        if self._waited_for != (cycle, reads_head):
            self._waited_for, self._turns = (cycle, reads_head), 0
        self._turns += 1
        if self._turns <= (_HEAD_TURNS if reads_head else _BODY_TURNS) or self.transport.is_closing():
            return
        if self._head_bytes if reads_head else not cycle.response_started:
            self._refuse(TooSlow("The request was begun and did not come to its end in time; send it again."))
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read on, and refuse a head that does not end."""
        self._head_bytes += len(data)
        super().data_received(data)  # what it finds complete begins to count anew
        if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLarge(f"The request line and headers must be at most {MOST_HEAD_BYTES} bytes."))

    def on_headers_complete(self) -> None:
        """Hand the request over; what comes now is its body, which `Edge` bounds."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body over."""
        self._head_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request and close the connection; nothing of it has reached the app."""
        self._refuse(MalformedHttp("This is not a well-formed HTTP/1.1 request; look at its headers."))

    def _refuse(self, error: VaultError) -> None:
        refusal = problem_response(error)
        status = HTTPStatus(error.status)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}".encode(),
            *(b": ".join(header) for header in refusal.raw_headers),
        ]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", bytes(refusal.body)]))
        self.transport.close()
