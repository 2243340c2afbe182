"""Ed25519 signing keys. Source: RFC 8032."""

from __future__ import annotations

import secrets
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vault.seal.errors import SealError

SEED_BYTES = 32
SIGNATURE_BYTES = 64


class Signer(Protocol):
    """Anything that signs with Ed25519: a seed in memory, or a KMS."""

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of the data."""


class SigningKey:
    """An Ed25519 key in memory.

    Args:
        seed: 32 random bytes.

    Raises:
        SealError: The seed has another length.
    """

    __slots__ = ("_key", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise SealError("A signing seed does not have 32 bytes.")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of the data."""
        return self._key.sign(data)


def new_seed() -> bytes:
    """Return 32 random bytes: a root, a signing seed, a pairwise seed, a compartment seed or a short key."""
    return secrets.token_bytes(SEED_BYTES)


def verify_signature(public_key: bytes, signature: bytes, data: bytes) -> None:
    """Check a signature.

    Args:
        public_key: Raw Ed25519 key, 32 bytes.
        signature: 64 bytes.
        data: What was signed.

    Raises:
        SealError: The key is not one, or the signature is not by it over the data.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError) as error:
        raise SealError("A signature does not verify under the expected key.") from error
