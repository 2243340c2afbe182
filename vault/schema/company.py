"""What a company may call itself, and where it may have an owner's browser sent back to.

Source of the addresses: FAPI 2.0 Security Profile 5.3.2.2-8; RFC 8252 sections 7.3 and 8.3 for software on the owner's own machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Final

from vault.errors import MalformedInput

MAX_REDIRECTS: Final = 10
_NAME_CHARS: Final = range(2, 81)
_CONTACT_CHARS: Final = range(2, 201)
# Letters to Unicode, nothing to the eye: a name made of them could pass for another.
_INVISIBLE: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_HTTPS: Final = re.compile(r"https://[!-\"$-~]{1,500}")
# An address of the loopback interface and never its name, which may lead elsewhere.
_LOOPBACK: Final = re.compile(
    r"(?P<host>http://(?:127\.0\.0\.1|\[::1\]))(?P<port>:[1-9][0-9]{0,4})?(?P<path>/[!-\"$-~]{0,400})"
)
_MAX_PORT: Final = 65_535


def parse_company_name(text: str) -> str:
    """Return what owners are shown as a company's name.

    Raises:
        MalformedInput: Too short, too long, or with characters by which it could be misread.
    """
    return _readable(text, "A company's name", _NAME_CHARS)


def parse_contact(text: str) -> str:
    """Return where owners reach a company.

    Raises:
        MalformedInput: As for a name.
    """
    return _readable(text, "A company's contact", _CONTACT_CHARS)


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


def parse_redirects(texts: Collection[str]) -> list[str]:
    """Return the addresses that a company registers, each once and in order.

    Raises:
        MalformedInput: One is none, or there are too many.
    """
    addresses = sorted({parse_redirect(text) for text in texts})
    if len(addresses) > MAX_REDIRECTS:
        raise MalformedInput(f"A company registers at most {MAX_REDIRECTS} redirect URIs.")
    return addresses


def is_registered(unverified_uri: str, registered: Collection[str]) -> bool:
    """Say whether a request may name this address: one that was registered, loopback ones on any port."""
    if unverified_uri in registered:
        return True
    loopback = _LOOPBACK.fullmatch(unverified_uri)
    if loopback is None or not loopback["port"] or int(loopback["port"][1:]) > _MAX_PORT:
        return False
    return loopback["host"] + loopback["path"] in registered


def _readable(text: str, what: str, sizes: range) -> str:
    # isprintable() is false for bidi controls, zero-width and other format characters.
    plain = text.isprintable() and not _INVISIBLE & set(text) and unicodedata.is_normalized("NFC", text)
    if not plain or len(text) not in sizes or text != " ".join(text.split()) or unicodedata.combining(text[0]):
        raise MalformedInput(
            f"{what} must have {sizes[0]} to {sizes[-1]} printable characters in NFC, no text-direction or invisible"
            " characters, and only single spaces between words."
        )
    return text
