"""The one family of refusals of the sealing core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vault.errors import MalformedInput, VaultError


class SealError(VaultError):
    """A sealed or signed object is malformed, forged, misplaced or cannot be opened."""

    slug = "bad-seal"
    title = "Bad seal"
    status = 400


@contextmanager
def as_seal_error() -> Iterator[None]:
    """Turn `MalformedInput` of the layers below into `SealError`, so that callers handle one family."""
    try:
        yield
    except MalformedInput as error:
        raise SealError(error.detail) from error
