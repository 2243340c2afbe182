"""The one error root: every refusal has a stable slug, a title and a status (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class VaultError(Exception):
    """A refusal that says what was wrong and what to do.

    Args:
        detail: One or two plain sentences for the person who reads them. Never holds
            plaintext, keys, tokens or fragments of them.
        retry_after_s: Seconds after which the same request may succeed, if it may.
    """

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    headers: Mapping[str, str] = MappingProxyType({})
    """Further response headers, where a protocol asks for them."""

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class MalformedInput(VaultError):
    """Bytes or JSON that do not have the documented shape."""

    slug = "malformed-input"
    title = "Malformed input"
    status = 400
