"""What the browser sees at /authorize: who asks, and a short code for the owner's own client. No script, no form."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}"
    "code{font-size:2.2rem;letter-spacing:.15em}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the request_uri
}
_TRANSPORT: Final = "Strict-Transport-Security"
_YEARS: Final = {_TRANSPORT: "max-age=63072000"}  # two; a browser that came once never comes in the clear again
_POLL_S: Final = 3


def headers(issuer: str, *, redirects: bool = False) -> dict[str, str]:
    """Return the headers of a page, or of the redirect that ends it.

    Args:
        issuer: This server's base URL; a promise about https is made only there (RFC 6797 section 7.2).
        redirects: Whether the browser is sent on.
    """
    names = ("Cache-Control", "Referrer-Policy") if redirects else _HEADERS
    return {name: _HEADERS[name] for name in names} | (_YEARS if issuer.startswith("https:") else {})


def waiting(company_name: str, user_code: str) -> str:
    """Return the page that waits for the owner's decision; it reloads itself.

    Args:
        company_name: The company's logged name.
        user_code: Eight letters.
    """
    name, code = escape(company_name), f"{user_code[:4]}-{user_code[4:]}"
    return _page(
        f"{name} asks for your consent",
        f"<p><strong>{name}</strong> would like to ask your twin questions.</p>"
        "<p>Open your own TwinVault client and give it this code. It shows what exactly is asked; nothing is "
        f"granted here.</p><p><code>{code}</code></p>"
        "<p>Type it only if you came here yourself from this company. This page waits and takes you back.</p>",
        refresh=True,
    )


def closed() -> str:
    """Return the page for a link that leads nowhere, whatever the reason."""
    return _page(
        "This link does not work",
        "<p>It was used already, took too long, or belongs to another browser. Go back to the company and start "
        "again.</p>",
    )


def _page(title: str, body: str, *, refresh: bool = False) -> str:
    reload = f'<meta http-equiv="refresh" content="{_POLL_S}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{reload}<title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
