"""Reading and answering what companies ask: from the list, or by the short code that a browser shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import httpx

from twinvault.api import Api, field
from twinvault.terms import AskedBy, BadRequest, verify_asked
from vault.encoding import b64u
from vault.seal.fields import parse_id
from vault.seal.ids import ConsentId

_PATH: Final = "/v1/authorizations"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for this owner.

    Args:
        name: What to answer it by.
        asked: What the company signed, verified.
        renew: The consent that it wants renewed; None for a new one.
        expires_at_s: Unix second by which to decide.
    """

    name: str
    asked: AskedBy
    renew: ConsentId | None
    expires_at_s: int


class Approvals:
    """Reads requests and says how they were decided; `Owner.answer` decides and says so in one step.

    Args:
        api: The service.
        auth: The owner's session.
    """

    def __init__(self, api: Api, auth: httpx.Auth) -> None:
        self._api = api
        self._auth = auth

    def waiting(self) -> list[Waiting]:
        """Return what may be decided: renewals of this owner's consents, and requests that were read by their code.

        Raises:
            BadRequest: One of them is not signed by the company that the service names.
        """
        listed = field(self._api.get(_PATH, auth=self._auth), "waiting", list)
        return [self._verify(item) for item in listed]

    def read(self, code: str) -> Waiting:
        """Return what waits under a code, or under a name of the list; from now on only this vault can answer it.

        Raises:
            ApiError: Nothing waits under it, or too many wrong codes were tried.
            BadRequest: The request is not signed by the company that the service names.
        """
        return self._verify(self._api.get(_path(code), auth=self._auth))

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

    def _verify(self, shown: Any) -> Waiting:
        asked = verify_asked(self._api, field(shown, "request"))
        if asked.request.terms.grantee != field(shown, "company"):
            raise BadRequest("The service names another company than the one that signed the request.")
        renew = field(shown, "renew")
        name, expires_at_s = field(shown, "name"), field(shown, "expires_at", int)
        return Waiting(name, asked, ConsentId(parse_id(renew)) if renew else None, expires_at_s)


def _path(code: str) -> str:
    if _NAME.fullmatch(code):
        return f"{_PATH}/{code}"
    plain = "".join(letter for letter in code if letter.isalnum() and letter.isascii())
    if not plain:
        raise BadRequest("A code has letters and digits, as the browser shows it.")
    return f"{_PATH}/{plain}"
