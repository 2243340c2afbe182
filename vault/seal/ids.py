"""Identifiers of the sealing core: 16 bytes each, base64url text of 22 characters in JSON."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NewType

VaultId = NewType("VaultId", bytes)
"""First 16 bytes of SHA-256 of the genesis payload, exactly as signed."""

CompartmentId = NewType("CompartmentId", bytes)
"""Random, so that it tells nothing."""

DeviceId = NewType("DeviceId", bytes)
"""First 16 bytes of SHA-256 of the device's Ed25519 public key: it certifies itself."""

ConsentId = NewType("ConsentId", bytes)
"""Random; OAuth's grant_id."""

SubjectId = NewType("SubjectId", bytes)
"""First 16 bytes of SHA-256 of the pairwise Ed25519 public key."""

ID_BYTES: Final = 16
HASH_BYTES: Final = 32


def sha256(data: bytes) -> bytes:
    """Return SHA-256 of the data."""
    return hashlib.sha256(data).digest()


def key_id(public_key: bytes) -> bytes:
    """Return the 16 bytes that name a public key."""
    return sha256(public_key)[:ID_BYTES]


def new_id() -> bytes:
    """Return 16 random bytes."""
    return secrets.token_bytes(ID_BYTES)
