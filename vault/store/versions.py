"""Compare-and-swap of the owner's versioned records."""

from __future__ import annotations

from vault.seal.errors import SealError
from vault.seal.version import Remembered, verify_successor
from vault.store.errors import VersionConflict


def require_successor(version: int, prev: bytes, current: Remembered | None) -> None:
    """Check that a record follows the stored one.

    Args:
        version: Of the new record.
        prev: Digest that it names as the one before.
        current: The stored one, in a row that the caller has locked, or None.

    Raises:
        VersionConflict: It follows another version.
    """
    try:
        verify_successor(version, prev, current)
    except SealError as error:
        raise VersionConflict(
            "Another version was published first; fetch it, apply the change again and sign."
        ) from error
