"""Versions of the owner's records: each names the digest of the one before, and clients remember the highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.seal.dsse import Envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.ids import VaultId

NO_PREV: Final = bytes(32)
"""The `prev` of a first version."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a client keeps of the highest version it saw, to notice an older one.

    Args:
        version: Its version.
        digest: Digest of its envelope.
    """

    version: int
    digest: bytes


def verify_successor(version: int, prev: bytes, current: Remembered | None) -> None:
    """Check that a head, page or account record is the next version of what is stored: compare-and-swap.

    Args:
        version: Of the record that arrived.
        prev: Digest that it names as the one before, 32 bytes.
        current: What is stored; None for nothing yet.

    Raises:
        SealError: It follows another version than the stored one.
    """
    expected = (current.version + 1, current.digest) if current else (1, NO_PREV)
    if (version, prev) != expected:
        raise SealError("A record does not follow the stored version; fetch it and sign again.")


def refuse_rollback(envelope: Envelope, version: int, prev: bytes, remembered: Remembered) -> None:
    """Check that a record is not older than, or forked from, the highest one a client saw.

    Args:
        envelope: What the server gave, its signature checked.
        version: Which it says it is.
        prev: Digest that it names as the one before, 32 bytes.
        remembered: The highest version that this client saw.

    Raises:
        SealError: The server gave an older record, or another one of the same or next version.
    """
    if version < remembered.version:
        raise SealError("The server gave an older record than this client has seen.")
    if version == remembered.version and envelope.digest != remembered.digest:
        raise SealError("The server gave two records of the same version.")
    if version == remembered.version + 1 and prev != remembered.digest:
        raise SealError("The server gave a record that does not follow the one this client has seen.")


def parse_version(fields: Fields, vault: VaultId) -> tuple[int, bytes]:
    """Return version and previous digest of a record of this vault.

    Raises:
        SealError: Another vault's, malformed, or a first version with a past.
    """
    if fields.id("vault") != vault:
        raise SealError("A record belongs to another vault.")
    version, prev = fields.integer("version", least=1), fields.hash("prev")
    if (version == 1) != (prev == NO_PREV):
        raise SealError("A record's version and previous hash contradict each other.")
    return version, prev
