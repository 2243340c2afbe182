"""Signing in as an owner or a device: by a signed answer to the service's challenge, again whenever a session ended."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Final

import httpx

from twinvault.api import ClientError, field, json_of, problem
from vault.encoding import b64u, parse_b64u
from vault.proof.trust import TrustedRoot
from vault.seal.ids import DeviceId, VaultId, key_id
from vault.seal.person import NONCE_BYTES, Role, SignIn, sign_sign_in
from vault.seal.signing import Signer

_UNAUTHORIZED: Final = 401


class WrongOrigin(ClientError):
    """A challenge made for another server: someone in between wants an answer to use there."""

    slug = "wrong-origin"
    title = "Challenge is for another server"


class SignedIn(httpx.Auth):
    """Authorises requests by a session of one vault.

    Args:
        trust: Names the server; a challenge of any other is never signed.
        vault: Which vault.
        signer: The owner's or the device's signing key.
        role: As what to sign in.
    """

    requires_response_body = True

    def __init__(self, trust: TrustedRoot, vault: VaultId, signer: Signer, role: Role) -> None:
        self._trust = trust
        self._vault = vault
        self._signer = signer
        self._role = role
        self._token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with a session token; sign in where there is none or it has ended."""
        fresh = not self._token
        if fresh:
            yield from self._sign_in()
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == _UNAUTHORIZED and not fresh:
            yield from self._sign_in()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def authorization(self, client: httpx.Client) -> str:
        """Return the header's value, after signing in if there is no session."""
        if not self._token:
            flow = self._sign_in()
            request = next(flow)
            with suppress(StopIteration):
                while True:
                    request = flow.send(client.send(request))
        return f"Bearer {self._token}"

    def forget(self) -> None:
        """Drop a session that has ended."""
        self._token = ""

    def _sign_in(self) -> Generator[httpx.Request, httpx.Response, None]:
        base = self._trust.issuer.rstrip("/")
        asked = {"vault": b64u(self._vault), "role": str(self._role)}
        challenge = _document((yield httpx.Request("POST", f"{base}/v1/challenges", json=asked)))
        origin = field(challenge, "origin")
        if origin.rstrip("/") != base:
            raise WrongOrigin("The server's challenge names another server than the pinned trust file; not signed.")
        device = DeviceId(key_id(self._signer.public_key)) if self._role is Role.DEVICE else None
        nonce = parse_b64u(field(challenge, "nonce"), size=NONCE_BYTES)
        answer = sign_sign_in(self._signer, SignIn(self._vault, self._role, device, nonce, origin))
        session = _document((yield httpx.Request("POST", f"{base}/v1/sessions", content=answer.encoded)))
        self._token = field(session, "token")


def _document(response: httpx.Response) -> object:
    if not response.is_success:
        raise problem(response)
    document: object = json_of(response)
    return document
