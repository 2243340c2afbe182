"""What the browser sees at /authorize: who asks, and a short code for the owner's own client. No script, no form.

In the language that the browser says its owner reads, English if it names none of ours.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

from vault.schema.language import Language

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
_WEIGHT: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


@dataclass(frozen=True, slots=True)
class _Words:
    """The wording of one language; braces are filled in, with a name and a code that are markup already."""

    waiting_title: str
    waiting: str
    closed_title: str
    closed: str


_WORDS: Final[Mapping[Language, _Words]] = {
    Language.EN: _Words(
        waiting_title="{name} asks for your consent",
        waiting=(
            "<p><strong>{name}</strong> would like to ask your twin questions.</p>"
            "<p>Open your own TwinVault client and give it this code. It shows what exactly is asked; nothing is granted "
            "here.</p><p>{code}</p>"
            "<p>Type it only if you came here yourself from this company. This page waits and takes you back.</p>"
        ),
        closed_title="This link does not work",
        closed=(
            "<p>It was used already, took too long, or belongs to another browser. Go back to the company and start "
            "again.</p>"
        ),
    ),
    Language.FR: _Words(
        waiting_title="{name} demande votre consentement",
        waiting=(
            "<p><strong>{name}</strong> souhaite poser des questions à votre jumeau.</p>"
            "<p>Ouvrez votre propre client TwinVault et donnez-lui ce code. Il montre ce qui est demandé exactement ; rien "
            "n'est accordé ici.</p><p>{code}</p>"
            "<p>Ne le tapez que si vous venez vous-même du site de cette entreprise. Cette page attend et vous y ramène.</p>"
        ),
        closed_title="Ce lien ne fonctionne pas",
        closed=(
            "<p>Il a déjà servi, a expiré ou appartient à un autre navigateur. Retournez chez l'entreprise et recommencez."
            "</p>"
        ),
    ),
}


def headers(issuer: str, *, redirects: bool = False) -> dict[str, str]:
    """Return the headers of a page, or of the redirect that ends it.

    Args:
        issuer: This server's base URL; a promise about https is made only there (RFC 6797 section 7.2).
        redirects: Whether the browser is sent on.
    """
    names = ("Cache-Control", "Referrer-Policy") if redirects else _HEADERS
    return {name: _HEADERS[name] for name in names} | (_YEARS if issuer.startswith("https:") else {})


def language_of(accepted: str) -> Language:
    """Return the language in which a browser gets its page.

    Args:
        accepted: Its `Accept-Language` header (RFC 9110 section 12.5.4); empty if it sent none.
    """
    best, most = Language.EN, 0.0
    for said in accepted.lower().split(","):
        # Anybody sends this header, as long as any: one pattern for all of it went over a run of blanks again and again.
        tag, _, parameter = said.partition(";")
        primary = tag.strip().partition("-")[0]
        weight = _WEIGHT.fullmatch(parameter.strip() or "q=1")
        if weight is not None and primary in set(Language) and float(weight[1]) > most:
            best, most = Language(primary), float(weight[1])
    return best


def waiting(company_name: str, user_code: str, language: Language = Language.EN) -> str:
    """Return the page that waits for the owner's decision; it reloads itself.

    Args:
        company_name: The company's logged name.
        user_code: Eight letters.
        language: In which it is written.
    """
    name, code, words = escape(company_name), f"{user_code[:4]}-{user_code[4:]}", _WORDS[language]
    title, body = words.waiting_title.format(name=name), words.waiting.format(name=name, code=f"<code>{code}</code>")
    return _page(title, body, language, refresh=True)


def closed(language: Language = Language.EN) -> str:
    """Return the page for a link that leads nowhere, whatever the reason."""
    words = _WORDS[language]
    return _page(words.closed_title, words.closed, language)


def _page(title: str, body: str, language: Language, *, refresh: bool = False) -> str:
    reload = f'<meta http-equiv="refresh" content="{_POLL_S}">' if refresh else ""
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">{reload}<title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
