"""How a company asks an owner for a consent and learns what was decided: what is pushed, what comes back.

Source: RFC 9126, RFC 9207, RFC 9396; RFC 8252 section 7.3 for a browser on this machine; Grant Management for OAuth 2.0.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from twinvault.api import ApiError, ClientError, Unreachable, field
from vault.encoding import JsonObject, JsonValue, b64u, dump_json
from vault.schema.details import dump_details
from vault.schema.terms import Terms
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId, sha256

T = TypeVar("T")

PUSH_PATH: Final = "/v1/par"
GRANTS_PATH: Final = "/v1/grants"
AUTHORIZE_PATH: Final = "/authorize"
DEADLINE_S: Final = 600.0
"""As long as a browser's page waits for its owner."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_BUSY: Final = frozenset({429, 502, 503, 504})
_STALLED_S: Final = 5.0


class NotDecided(ClientError):
    """The owner did not decide in time."""

    slug = "not-decided"
    title = "Nobody decided"


class NotGranted(ClientError):
    """The owner refused."""

    slug = "not-granted"
    title = "Consent refused"


class WrongLanding(ClientError):
    """An address that is not the answer to what was asked."""

    slug = "wrong-landing"
    title = "Not the answer to this request"


@dataclass(frozen=True, slots=True, repr=False)
class Requested:
    """A consent that a company asked for and has no answer to yet; keep it to yourself, it holds the code's verifier.

    Args:
        request: The signed consent request.
        url: Where to send the owner's browser, within 90 seconds; empty before it was pushed.
        redirect_uri: Where the browser is sent back to.
        state: Comes back with it.
        verifier: Proves that whoever trades the code is who asked (RFC 7636).
        renew: The consent to renew; None to ask for a new one.
    """

    request: str
    url: str
    redirect_uri: str
    state: str
    verifier: str
    renew: ConsentId | None

    @property
    def comes_back_here(self) -> bool:
        """Whether the browser is sent back to this machine."""
        return urlsplit(self.redirect_uri).hostname in _LOOPBACK


@dataclass(frozen=True, slots=True)
class Granted:
    """What the owner gave.

    Args:
        consent_id: Under which to ask.
        details: What exactly, as authorization details; it may be less than was asked.
    """

    consent_id: ConsentId
    details: Mapping[str, JsonValue]


def new_asked(request: str, redirect_uri: str, renew: ConsentId | None) -> Requested:
    """Return what is about to be pushed; a redirect to this machine gets a port that is free."""
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    return Requested(request, "", _with_port(redirect_uri), state, verifier, renew)


def push_fields(asked: Requested, terms: Terms) -> dict[str, str]:
    """Return the authorization request as a form; who sends it is added with the proof."""
    details: JsonObject = {**dump_details(terms), "request": asked.request}
    fields = {
        "response_type": "code",
        "redirect_uri": asked.redirect_uri,
        "state": asked.state,
        "code_challenge": b64u(sha256(asked.verifier.encode())),
        "code_challenge_method": "S256",
        "authorization_details": f"[{dump_json(details).decode()}]",
    }
    if asked.renew is not None:
        fields |= {"grant_management_action": "replace", "grant_id": b64u(asked.renew)}
    return fields


def browser_url(issuer: str, company_id: str, request_uri: str) -> str:
    """Return where to send the owner's browser."""
    return f"{issuer}{AUTHORIZE_PATH}?{urlencode({'client_id': company_id, 'request_uri': request_uri})}"


def code_fields(asked: Requested, code: str) -> dict[str, str]:
    """Return the token request for a code, as a form."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": asked.redirect_uri,
        "code_verifier": asked.verifier,
    }


def verify_landing(asked: Requested, issuer: str, unverified_url: str) -> str:
    """Return the code out of the address that the browser was sent back to.

    Raises:
        NotGranted: The owner refused, or did not decide while the browser waited.
        WrongLanding: It answers another request, comes from another server, or repeats a parameter.
    """
    _, _, query = unverified_url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    sent = dict(pairs)
    if len(sent) != len(pairs) or not hmac.compare_digest(sent.get("state", "").encode(), asked.state.encode()):
        raise WrongLanding(
            "This address does not answer what was asked; copy the whole address that the browser shows."
        )
    if sent.get("iss") != issuer:
        raise WrongLanding("This answer comes from another server than the pinned one; it is not used.")
    if sent.get("error") == "access_denied":
        raise NotGranted("The owner refused, or did not decide in time. Nothing was granted.")
    if "error" in sent or not sent.get("code"):
        raise WrongLanding(f"The service refused the request: {sent.get('error_description') or 'no code came back'}")
    return sent["code"]


def granted_by(answer: Any) -> Granted:
    """Return what a token response, or the query of a grant, says was given."""
    details = field(answer, "authorization_details", list)
    if len(details) != 1 or not isinstance(details[0], dict):
        raise ApiError("unexpected-answer", 200, "The service's answer does not say what was granted.")
    return Granted(ConsentId(parse_id(field(answer, "grant_id"))), details[0])


def renewed_by(asked: Requested, grant: Any) -> Granted | None:
    """Return what was renewed, as the grant itself says, or None as long as nobody decided.

    Raises:
        NotGranted: The owner refused.
        NotDecided: The request waits no more.
    """
    if field(grant, "request_sha256") == b64u(sha256(asked.request.encode())):
        return granted_by(grant)
    renewal = grant.get("renewal")
    if renewal == "denied":
        raise NotGranted("The owner did not renew the consent; it stays as it was.")
    if renewal != "waiting":
        raise NotDecided("The request waits no more: its time is over, or a later one was answered. Ask again.")
    return None


def poll(read: Callable[[], T | None], *, deadline_s: float, sleep: Callable[[float], None]) -> T:
    """Read until there is something, ever more slowly, for as long as the caller has.

    Args:
        read: Returns None as long as there is nothing.
        deadline_s: When to give up, in seconds from now.
        sleep: Waits between two tries.

    Raises:
        NotDecided: The deadline passed.
    """
    until_s, pause_s = time.monotonic() + deadline_s, _FIRST_PAUSE_S
    while True:
        try:
            found = read()
        except Unreachable:
            found = None
        except ApiError as refusal:
            if refusal.status not in _BUSY:
                raise
            found, pause_s = None, max(pause_s, refusal.retry_after_s or 0)
        if found is not None:
            return found
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise NotDecided("The owner has not decided yet; wait again.")
        sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def listen(asked: Requested, *, deadline_s: float) -> str:
    """Wait on this machine for the owner's browser to be sent back, and return the whole address that it asked for.

    Whoever else calls here, with another path or state, is sent away and ends nothing.

    Raises:
        NotDecided: The deadline passed.
        ClientError: The port is taken.
    """
    back = urlsplit(asked.redirect_uri)
    landed: list[str] = []

    class Landing(BaseHTTPRequestHandler):
        timeout = _STALLED_S

        def do_GET(self) -> None:
            sent = urlsplit(self.path)
            states = [value for name, value in parse_qsl(sent.query) if name == "state"]
            mine = sent.path == back.path and states == [asked.state]
            if mine:
                landed.append(self.path)
            self.send_response(200 if mine else 404)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"You may close this window.\n" if mine else b"Nothing is here.\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the standard library)
            """Say nothing: the address holds the code."""

    class Listener(HTTPServer):
        address_family = socket.AF_INET6 if back.hostname == "::1" else socket.AF_INET

        def handle_error(self, request: object, client_address: object) -> None:
            """A caller that breaks off ends nothing."""

    until_s = time.monotonic() + deadline_s
    try:
        server = Listener((back.hostname or "", back.port or 0), Landing)
    except OSError as error:
        raise ClientError(f"Nothing can listen at {asked.redirect_uri}: {error.strerror}. Ask again.") from error
    with server:
        while not landed and (left_s := until_s - time.monotonic()) > 0:
            server.timeout = left_s
            server.handle_request()
    if not landed:
        raise NotDecided("The browser did not come back in time; wait again, or ask again.")
    return landed[0]


def dump_requested(asked: Requested) -> bytes:
    """Return the file that lets another process wait."""
    kept: JsonObject = {name: getattr(asked, name) for name in ("request", "url", "redirect_uri", "state", "verifier")}
    return dump_json({**kept, "renew": "" if asked.renew is None else b64u(asked.renew)})


def parse_requested(record: JsonObject) -> Requested:
    """Read such a file.

    Raises:
        ApiError: It is not one.
    """
    renew = field(record, "renew")
    return Requested(
        request=field(record, "request"),
        url=field(record, "url"),
        redirect_uri=field(record, "redirect_uri"),
        state=field(record, "state"),
        verifier=field(record, "verifier"),
        renew=ConsentId(parse_id(renew)) if renew else None,
    )


def _with_port(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.hostname not in _LOOPBACK or parts.port is not None:
        return uri
    family = socket.AF_INET6 if parts.hostname == "::1" else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((parts.hostname, 0))
        port = probe.getsockname()[1]
    return parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
