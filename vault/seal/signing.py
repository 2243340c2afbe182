"""Ed25519: signing keys, and the one rule by which every signature and every public key is judged.

OpenSSL signs: a private key stays in its memory. libsodium verifies, in half the time and by a stricter rule
(`docs/protocol.md`, ADR 0029). Source: RFC 8032.
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from vault.seal.errors import SealError

SEED_BYTES = 32
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES: Final = 32

_P: Final = 2**255 - 19
_Y_OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_Y_OF_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})
_LAX: Final = (
    bytes.fromhex(  # R is off by a point of order 8: it holds up to the cofactor
        "8c1e6a6d6874a90537c21cd615f2badb87b20215f2edce44cf557a5ca77a8e26"
        "1c354c4c7a6de4bcb4fd275f391333dd9bf17d38b41332753f60cf56d5ef4fcc"
        "c94703048dd6d2a4fe47a2bcbc552089621eab5d1d73ce0e43310f20fb5e9e08"
    ),
    bytes.fromhex(  # S is a good one plus L
        "8c1e6a6d6874a90537c21cd615f2badb87b20215f2edce44cf557a5ca77a8e26"
        "1d84c09c915b1e355f4130b3950f6754270b37696f36f1b6ca5d4a9b4cf48860"
        "ec3eca8b0a771067f8f398e95b13737ceff8af093679a7e943fa2ecba121441e"
    ),
    bytes.fromhex(  # R has order 4, and the key a part of small order
        "074bc7fe71800c0b151ac6cc8f02637dfdcbb74656676d17b8a87f9d0444f0ba"
        "0000000000000000000000000000000000000000000000000000000000000000"
        "cc6774dc0b06ba4bc2434973663e2096eff0c927f96088e6769f6ac72ca89f08"
    ),
)
"""Keys and signatures over nothing, each of which a library takes that lacks one part of the rule."""


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


def parse_public_key(data: bytes) -> bytes:
    """Return a public key that a signature can bind somebody by.

    Args:
        data: What should be a raw Ed25519 key.

    Raises:
        SealError: It has other than 32 bytes, is a second spelling of a key, or has small order: under such a key
            anybody signs.
    """
    if len(data) != PUBLIC_KEY_BYTES:
        raise SealError(f"An Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, not {len(data)}.")
    y = int.from_bytes(data, "little") & (2**255 - 1)
    if y >= _P:
        raise SealError("An Ed25519 public key is not in its one spelling.")
    if y in _Y_OF_SMALL_ORDER:
        raise SealError("An Ed25519 public key has small order: anybody can sign under it. Make a new key.")
    return data


def verify_signature(public_key: bytes, signature: bytes, data: bytes) -> None:
    """Check a signature.

    Args:
        public_key: Raw Ed25519 key, 32 bytes.
        signature: 64 bytes.
        data: What was signed.

    Raises:
        SealError: The key is not one, or the signature is not by it over the data.

    Guarantees: of the same bytes every verifier that keeps the rule of `docs/protocol.md` says the same.
    """
    key = parse_public_key(public_key)
    if len(signature) != SIGNATURE_BYTES:  # libsodium takes both in one piece and would look for the border at 64
        raise SealError(f"A signature has {SIGNATURE_BYTES} bytes, not {len(signature)}.")
    try:
        crypto_sign_open(signature + data, key)
    except BadSignatureError as error:
        raise SealError("A signature does not verify under the expected key.") from error


def _require_one_rule() -> None:
    """Refuse a libsodium that takes more than the rule does, or compares only up to the cofactor.

    It would take signatures that another verifier refuses, and whoever holds a key can make them.
    """
    for lax in _LAX:
        try:
            verify_signature(lax[:PUBLIC_KEY_BYTES], lax[PUBLIC_KEY_BYTES:], b"")
        except SealError:
            continue
        raise ImportError(
            "The libsodium of this machine verifies Ed25519 by another rule; install the wheel of pynacl 1.6.2."
        )


_require_one_rule()
