"""What the server says to whoever does not speak HTTP to it."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vault.errors import VaultError
from vault.http.problems import problem_response


class MalformedHttp(VaultError):
    """Bytes that are not an HTTP/1.1 request, such as a header with a name that no header may have."""

    slug = "malformed-http"
    title = "Malformed HTTP"
    status = 400


class Protocol(HttpToolsProtocol):
    """uvicorn's, except that its own refusal is a problem document like every other."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request and close the connection; nothing of it has reached the app."""
        refusal = problem_response(MalformedHttp("This is not a well-formed HTTP/1.1 request; look at its headers."))
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in refusal.raw_headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", bytes(refusal.body)]))
        self.transport.close()
