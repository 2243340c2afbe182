"""Requests that any HTTP client can send: everything that must be signed is signed, the rest is plain HTTP."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, good once and for about a minute.

    Args:
        method: HTTP method.
        url: Its whole URL.
        headers: Its headers, proof and signatures among them.
        body: What to send, exactly.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: str

    @property
    def curl(self) -> str:
        """One line for a POSIX shell."""
        headers = [part for name, value in self.headers.items() for part in ("-H", f"{name}: {value}")]
        words = ["curl", "-sS", "-X", self.method, *headers, "--data-binary", self.body, self.url]
        return " ".join(map(shlex.quote, words))
