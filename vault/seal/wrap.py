"""Symmetric wraps: Cobblestone-256, salted and key-committing, so one ciphertext opens under one key only.

Source: C2SP chunked-encryption (Cobblestone), https://c2sp.org.
"""

from __future__ import annotations

from typing import Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from vault.seal.errors import SealError
from vault.seal.framing import frames

KEY_BYTES: Final = 32
WRAP_OVERHEAD_BYTES: Final = 72


def lock(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Return the plaintext locked under a key, 72 bytes longer.

    Args:
        key: 32 bytes; any number of wraps may share it.
        plaintext: What to lock.
        context: What it is; unlocking needs the same bytes.

    Raises:
        SealError: The key has another length.
    """
    if len(key) != KEY_BYTES:
        raise SealError("A wrapping key does not have 32 bytes.")
    encryptor = Cobblestone256Encryptor(key, context)
    return encryptor.update(plaintext) + encryptor.finalize()


def unlock(key: bytes, locked: bytes, context: bytes) -> bytes:
    """Return the plaintext of a wrap.

    Args:
        key: 32 bytes, as for `lock`.
        locked: From `lock`.
        context: As for `lock`.

    Raises:
        SealError: Locked under another key or context, or altered.
    """
    if len(key) != KEY_BYTES:
        raise SealError("A wrapping key does not have 32 bytes.")
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        return decryptor.update(locked) + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise SealError("A wrap does not open under this key and context.") from error


def lock_short(short_key: bytes, blob: bytes, about: bytes) -> bytes:
    """Lock a locked seed or a handover once more, under the server's short key for it.

    Args:
        short_key: 32 random bytes, kept out of backups; deleting them revokes the blob even there.
        blob: What the store keeps.
        about: The id of the compartment or consent.
    """
    return lock(short_key, blob, frames(b"twinvault/short/v1", about))


def unlock_short(short_key: bytes, locked: bytes, about: bytes) -> bytes:
    """Undo `lock_short`.

    Args:
        short_key: 32 bytes.
        locked: From `lock_short`.
        about: The id of the compartment or consent.

    Raises:
        SealError: Another short key or id, or altered.
    """
    return unlock(short_key, locked, frames(b"twinvault/short/v1", about))
