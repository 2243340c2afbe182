"""Answering what a company asked in a browser: the short code leads to the request, the decision is made here."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from twinvault.api import Api, field
from twinvault.terms import AskedBy, BadRequest, verify_asked
from vault.encoding import b64u
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits under a short code.

    Args:
        asked: What the company signed, verified.
        renew: The consent that it wants renewed; None for a new one.
        expires_at_s: Unix second by which to decide.
    """

    asked: AskedBy
    renew: ConsentId | None
    expires_at_s: int


class Approvals:
    """Reads requests by the code that the browser shows, and answers them.

    Args:
        api: The service.
        auth: The owner's session.
    """

    def __init__(self, api: Api, auth: httpx.Auth) -> None:
        self._api = api
        self._auth = auth

    def read(self, code: str) -> Waiting:
        """Return what waits under a code; from now on only this vault can answer it.

        Raises:
            ApiError: Nothing waits under it, or too many wrong codes were tried.
            BadRequest: The request is not signed by the company that the service names.
        """
        shown = self._api.get(_path(code), auth=self._auth)
        asked = verify_asked(self._api, field(shown, "request"))
        if asked.request.terms.grantee != field(shown, "company"):
            raise BadRequest("The service names another company than the one that signed the request.")
        renew = field(shown, "renew")
        return Waiting(asked, ConsentId(parse_id(renew)) if renew else None, field(shown, "expires_at", int))

    def approve(self, code: str, consent: ConsentId) -> None:
        """Name the consent that answers the request; the browser then moves on.

        Raises:
            ApiError: It does not answer this request, or the code was never read.
        """
        self._api.request("POST", f"{_path(code)}/approve", auth=self._auth, json={"consent": b64u(consent)})

    def deny(self, code: str) -> None:
        """Refuse; the company learns `access_denied` and nothing else.

        Raises:
            ApiError: The code was never read, or was answered.
        """
        self._api.request("POST", f"{_path(code)}/deny", auth=self._auth)


def _path(code: str) -> str:
    plain = "".join(letter for letter in code if letter.isalnum() and letter.isascii())
    if not plain:
        raise BadRequest("A code has letters and digits, as the browser shows it.")
    return f"/v1/authorizations/{plain}"
