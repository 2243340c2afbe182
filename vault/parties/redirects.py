"""Where a company may have an owner's browser sent back to.

Source: FAPI 2.0 Security Profile 5.3.2.2-8; RFC 8252 sections 7.3 and 8.3 for software on the owner's own machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from vault.errors import MalformedInput

_HTTPS: Final = re.compile(r"https://[!-\"$-~]{1,500}")
# An address of the loopback interface and never its name, which may lead elsewhere.
_LOOPBACK: Final = re.compile(
    r"(?P<host>http://(?:127\.0\.0\.1|\[::1\]))(?P<port>:[1-9][0-9]{0,4})?(?P<path>/[!-\"$-~]{0,400})"
)
_MAX_PORT: Final = 65_535


def parse_redirect(text: str) -> str:
    """Return an address that a company registers.

    Raises:
        MalformedInput: Neither https nor the loopback interface, with a fragment, or loopback with a port, which
            is chosen anew for every request.
    """
    loopback = _LOOPBACK.fullmatch(text)
    if _HTTPS.fullmatch(text) is None and (loopback is None or loopback["port"]):
        raise MalformedInput(
            "A redirect URI must be an https URL, or http://127.0.0.1/... or http://[::1]/... without a port, and "
            "have no fragment."
        )
    return text


def is_registered(unverified_uri: str, registered: Collection[str]) -> bool:
    """Say whether a request may name this address: one that was registered, loopback ones on any port."""
    if unverified_uri in registered:
        return True
    loopback = _LOOPBACK.fullmatch(unverified_uri)
    if loopback is None or not loopback["port"] or int(loopback["port"][1:]) > _MAX_PORT:
        return False
    return loopback["host"] + loopback["path"] in registered
