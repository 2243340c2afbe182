"""One thin HTTP session with the service. Nothing that it returns is believed before a signature says so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import httpx

from vault.errors import VaultError

TIMEOUT_S: Final = 60.0
_TRIES: Final = 3
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5
_IDEMPOTENT: Final = frozenset({"GET", "PUT", "DELETE"})
_BUSY: Final = frozenset({502, 503, 504})
_UNAUTHORIZED: Final = 401
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

_NEXT_STEPS: Final = {
    "not-signed-in": "Run the command again; it signs in anew.",
    "sign-in-refused": "Check that this profile belongs to this server and that its device was not revoked.",
    "version-conflict": "Another client changed the same record; run the command again.",
    "not-stored": "Check the passphrase, the recovery code and the profile.",
    "closed-epoch": "Run the command again; it seals to the newest keys.",
    "unknown-company": "Ask the company for its id, or the operator to register it.",
    "unauthenticated": "Check that the operator registered this company's record.",
}


class ClientError(VaultError):
    """The client itself refuses, or something on this machine is not as it must be."""

    slug = "client"
    title = "Client refused"
    status = 400


class Unreachable(ClientError):
    """No answer came from the service."""

    slug = "unreachable"
    title = "Service not reachable"
    status = 503


class ApiError(VaultError):
    """A refusal of the service, read from its problem document.

    Args:
        slug: Which refusal; stable.
        status: HTTP status.
        detail: One or two sentences from the service.
        retry_after_s: Seconds after which trying again may help.
    """

    def __init__(self, slug: str, status: int, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.slug = slug  # type: ignore[misc]  # the class stands for all refusals, the instance for one
        self.status = status  # type: ignore[misc]  # as above
        self.next_step = _NEXT_STEPS.get(slug, "")


def problem(response: httpx.Response) -> ApiError:
    """Return the refusal that a response carries, in whatever form it came (RFC 9457, RFC 6749 section 5.2)."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    kind = str(document.get("type") or document.get("error") or "no-problem-document")
    detail = str(document.get("detail") or document.get("error_description") or f"HTTP {response.status_code}.")
    after = response.headers.get("Retry-After", "")
    retry_after_s = int(after) if after.isascii() and after.isdigit() else None
    return ApiError(kind.rpartition("/")[2], response.status_code, detail, retry_after_s=retry_after_s)


class SignIn(Protocol):
    """What a stream needs of a session; `SignedIn` is the one that exists."""

    def authorization(self, client: httpx.Client) -> str:
        """Return the header's value, after signing in if there is no session."""

    def forget(self) -> None:
        """Drop a session that has ended."""


class Api:
    """Requests to one server.

    Args:
        base_url: The service's issuer URL, from the pinned trust file.
        transport: Another way to reach it than the network.
        sleep: Waits between tries.

    Raises:
        ClientError: Plain http to another machine.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
            raise ClientError("The service's address must be https, or http on this machine; check the trust file.")
        self.base_url = base_url.rstrip("/")
        self._client = httpx.Client(base_url=self.base_url, transport=transport, timeout=TIMEOUT_S)
        self._sleep = sleep
        self._kept: dict[str, tuple[float, Any]] = {}

    def request(
        self,
        method: str,
        path: str,
        *,
        auth: httpx.Auth | None = None,
        json: object = None,
        content: bytes | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send one request and return its answer.

        Args:
            method: HTTP method.
            path: Below the base URL.
            auth: Who asks.
            json: Body as JSON.
            content: Body as bytes.
            params: Query.
            headers: Further headers.
            repeatable: Whether sending this body twice does what sending it once does; GET, PUT and
                DELETE always are.

        Raises:
            ApiError: The service refuses.
            Unreachable: No answer came; a repeatable request was tried three times.
        """
        request = self._client.build_request(method, path, json=json, content=content, params=params, headers=headers)
        tries = _TRIES if repeatable or method in _IDEMPOTENT else 1
        for left in reversed(range(tries)):
            try:
                response = self._client.send(request, auth=auth)
            except httpx.HTTPError as error:
                if not left:
                    raise Unreachable(
                        f"No answer from {self.base_url} ({type(error).__name__}); check that it runs and try again."
                    ) from error
                self._sleep(_PAUSE_S)
                continue
            if response.is_success:
                return response
            refusal = problem(response)
            pause_s = _PAUSE_S if refusal.retry_after_s is None else refusal.retry_after_s
            if not left or response.status_code not in _BUSY or pause_s > _LONGEST_PAUSE_S:
                raise refusal
            self._sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def get(self, path: str, *, auth: httpx.Auth | None = None, params: dict[str, Any] | None = None) -> Any:
        """Return the JSON that lies at a path.

        Raises:
            ApiError: The service refuses, or answers with something else than JSON.
            Unreachable: No answer came.
        """
        return json_of(self.request("GET", path, auth=auth, params=params))

    def get_kept(self, path: str, *, at_most_s: float) -> Any:
        """Return the JSON that lies at a public path, from a moment ago if it was fetched so lately.

        Args:
            path: What everybody may read and what rarely changes.
            at_most_s: How old the answer may be; 0 fetches it in any case.

        Raises:
            As `get`.
        """
        now_s = time.monotonic()
        fetched_s, document = self._kept.get(path, (-math.inf, None))
        if now_s - fetched_s >= at_most_s:
            document = self.get(path)
            self._kept[path] = now_s, document
        return document

    @contextmanager
    def stream(self, path: str, *, auth: SignIn, params: dict[str, Any]) -> Iterator[Iterator[str]]:
        """Open a stream of lines that lasts as long as the service keeps it.

        Args:
            path: Below the base URL.
            auth: Who asks; signs in again if its session has ended.
            params: Query.

        Raises:
            ApiError: The service refuses.
            Unreachable: The connection was not made, or broke.
        """
        for last in (False, True):
            try:
                headers = {"Authorization": auth.authorization(self._client)}
                with self._client.stream("GET", path, params=params, headers=headers) as response:
                    if response.is_success:
                        yield response.iter_lines()
                        return
                    response.read()
            except httpx.HTTPError as error:
                raise Unreachable(f"The stream from {self.base_url} broke ({type(error).__name__}).") from error
            if last or response.status_code != _UNAUTHORIZED:
                raise problem(response)
            auth.forget()

    def pause(self, seconds: float) -> None:
        """Wait before trying again."""
        self._sleep(seconds)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def json_of(response: httpx.Response) -> Any:
    """Return a response's JSON object.

    Raises:
        ApiError: It is none.
    """
    try:
        document = response.json()
    except ValueError as error:
        raise ApiError(
            "not-json", response.status_code, "The service answered with something else than JSON."
        ) from error
    if not isinstance(document, dict):
        raise ApiError("not-json", response.status_code, "The service answered with something else than an object.")
    return document


def field(document: Any, name: str, kind: type[Any] = str) -> Any:
    """Return a field of an answer.

    Raises:
        ApiError: It is missing or of another type.
    """
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise ApiError("unexpected-answer", 200, f"The service's answer lacks {name}, or it is of another kind.")
    return value
