"""The private half of an HPKE key: the only module that opens. Import rules keep it out of the web process's reach."""

from __future__ import annotations

from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from vault.seal.errors import SealError
from vault.seal.recipient import HPKE, Recipient, expand_seed


class Identity:
    """A private key that opens what was sealed to its public half.

    Args:
        seed: 32 random bytes.

    Raises:
        SealError: The seed has another length.
    """

    def __init__(self, seed: bytes) -> None:
        self._mlkem, self._x25519 = expand_seed(seed)
        self._key = MLKEM768X25519PrivateKey(self._mlkem, self._x25519)

    @cached_property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw())

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """Return the plaintext of an HPKE message.

        Args:
            ciphertext: Encapsulated key and ciphertext.
            info: The bytes it was sealed with.

        Raises:
            SealError: Sealed to another key, with other info, or altered.
        """
        try:
            return HPKE.decrypt(ciphertext, self._key, info=info)
        except (InvalidTag, ValueError) as error:
            raise SealError("An HPKE message does not open under this key and description.") from error
