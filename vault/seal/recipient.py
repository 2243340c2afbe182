"""The public half of an HPKE key: everything that seals.

Source: RFC 9180; draft-ietf-hpke-pq, KEM 0x647a (X-Wing, ML-KEM-768 with X25519), HKDF-SHA256,
AES-256-GCM. HPKE in base mode authenticates no sender, so every message is also signed over its
hash, and what it is about goes whole through `info`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

from vault.seal.errors import SealError
from vault.seal.ids import sha256

SUITE_NAME: Final = "x-wing+hkdf-sha256+aes-256-gcm"
HPKE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
PUBLIC_BYTES: Final = 1216
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64


def expand_seed(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Return the two private halves of a 32-byte X-Wing seed.

    Raises:
        SealError: The seed has another length.

    Source: draft-connolly-cfrg-xwing-kem, section 5.2 (expandDecapsulationKey).
    """
    if len(seed) != 32:
        raise SealError("An HPKE seed does not have 32 bytes.")
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + 32)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
    return mlkem, X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])


class Recipient:
    """Whom something is sealed to.

    Args:
        public: Raw public key, 1,216 bytes: ML-KEM-768 (1,184) then X25519 (32).
    """

    def __init__(self, public: bytes) -> None:
        self.public = public

    @classmethod
    def of_seed(cls, seed: bytes) -> Recipient:
        """Return the public half of a 32-byte seed.

        Raises:
            SealError: The seed has another length.
        """
        mlkem, x25519 = expand_seed(seed)
        return cls(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    @cached_property
    def key_hash(self) -> bytes:
        """SHA-256 of the public key."""
        return sha256(self.public)

    @cached_property
    def _key(self) -> MLKEM768X25519PublicKey:
        if len(self.public) != PUBLIC_BYTES:
            raise SealError("An HPKE public key does not have 1,216 bytes.")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(self.public[:_MLKEM_PUBLIC_BYTES])
            x25519 = X25519PublicKey.from_public_bytes(self.public[_MLKEM_PUBLIC_BYTES:])
        except ValueError as error:
            raise SealError("An HPKE public key is not one.") from error
        return MLKEM768X25519PublicKey(mlkem, x25519)

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Return the HPKE message: encapsulated key and ciphertext, 1,136 bytes longer than the plaintext.

        Args:
            plaintext: What only the holder of the private half may read.
            info: What it is about; opening needs the same bytes.

        Raises:
            SealError: The public key is malformed or degenerate.
        """
        try:
            return HPKE.encrypt(plaintext, self._key, info=info)
        except ValueError as error:
            raise SealError("An HPKE public key is degenerate.") from error


class Opener(Protocol):
    """Anything that opens what was sealed to it: `identity.Identity`, or a key behind a KMS."""

    @property
    def recipient(self) -> Recipient:
        """The public half."""

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """Return the plaintext, or raise `SealError`."""
