"""Slots: the root behind a passphrase and a device, or behind a recovery code. A slot wraps nothing but the root.

The server finds a slot by SHA-256(locator) and holds no name, salt or verifier: without the device
secret there is nothing to guess a passphrase against.

Source: RFC 9106 (Argon2id), section 4, second recommended option; 1Password's two-secret key derivation.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vault.seal.derive import derive
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import HASH_BYTES, sha256
from vault.seal.signing import SEED_BYTES
from vault.seal.wrap import KEY_BYTES, WRAP_OVERHEAD_BYTES, lock, unlock

DEVICE_SECRET_BYTES: Final = 16
RECOVERY_CODE_BYTES: Final = 32
_TYPE: Final = b"twinvault/slot/v1"
_SEALED_BYTES: Final = KEY_BYTES + WRAP_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Stretch:
    """The cost of one passphrase guess; the defaults are the least that is accepted.

    Args:
        memory_kib: Memory, at least 65,536 KiB.
        passes: At least 3.
        lanes: At least 4.

    Raises:
        SealError: Cheaper than that: someone is trying to make guessing easy.
    """

    memory_kib: int = 65_536
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if self.memory_kib < 65_536 or self.passes < 3 or self.lanes < 4:
            raise SealError("Passphrases are stretched with at least 64 MiB, 3 passes and 4 lanes.")


@dataclass(frozen=True, slots=True, repr=False)
class SlotKey:
    """What opens one slot.

    Args:
        locator: Finds it: the server looks it up by SHA-256(locator).
        unlock: Wraps the root.
        about: Kind and cost, bound into the wrap.
    """

    locator: bytes
    unlock: bytes
    about: bytes

    @property
    def slot_id(self) -> bytes:
        """SHA-256(locator), the only thing the server knows a slot by."""
        return sha256(self.locator)


@dataclass(frozen=True, slots=True)
class Slot:
    """What the server stores.

    Args:
        slot_id: SHA-256(locator), 32 bytes.
        sealed: The root under the slot's unlock key.
    """

    slot_id: bytes
    sealed: bytes

    @property
    def encoded(self) -> bytes:
        """The one binary encoding: type frame, slot id, sealed root."""
        return frames(_TYPE) + self.slot_id + self.sealed


def new_device_secret() -> bytes:
    """Return 128 random bits; they stay on the owner's devices and in the recovery kit."""
    return secrets.token_bytes(DEVICE_SECRET_BYTES)


def passphrase_key(passphrase: str, device_secret: bytes, stretch: Stretch | None = None) -> SlotKey:
    """Return the key of a passphrase slot. Takes about a third of a second and 64 MiB on purpose.

    Args:
        passphrase: As typed; compared in Unicode NFC.
        device_secret: 16 random bytes.
        stretch: Cost; the least accepted if not given.

    Raises:
        SealError: An empty passphrase, or a device secret of another length.
    """
    stretch = stretch or Stretch()
    if not passphrase or len(device_secret) != DEVICE_SECRET_BYTES:
        raise SealError("Unlocking needs a passphrase and a device secret of 16 bytes.")
    try:
        typed = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError as error:
        raise SealError("A passphrase holds half of a surrogate pair.") from error
    salt = derive(device_secret, "salt")
    argon2 = Argon2id(
        salt=salt,
        length=32,
        iterations=stretch.passes,
        lanes=stretch.lanes,
        memory_cost=stretch.memory_kib,
    )
    cost = b"%d,%d,%d" % (stretch.memory_kib, stretch.passes, stretch.lanes)
    return _slot_key(argon2.derive(typed) + device_secret, b"passphrase", cost)


def recovery_key(recovery_code: bytes) -> SlotKey:
    """Return the key of a recovery slot; a code of 256 random bits needs no stretching.

    Raises:
        SealError: The code has another length.
    """
    if len(recovery_code) != RECOVERY_CODE_BYTES:
        raise SealError("A recovery code does not have 32 bytes.")
    return _slot_key(recovery_code, b"recovery", b"")


def seal_slot(root: bytes, key: SlotKey) -> Slot:
    """Return the root behind a slot's key.

    Raises:
        SealError: The root has another length.
    """
    if len(root) != SEED_BYTES:
        raise SealError("A root does not have 32 bytes.")
    return Slot(key.slot_id, lock(key.unlock, root, _context(key)))


def parse_slot(data: bytes) -> Slot:
    """Parse a slot.

    Raises:
        SealError: The bytes are not the one encoding of a slot.
    """
    reader = Reader(data, 1024)
    if reader.frame() != _TYPE:
        raise SealError("A slot has a type that TwinVault does not know.")
    slot = Slot(reader.take(HASH_BYTES), reader.take(_SEALED_BYTES))
    reader.end()
    return slot


def open_slot(slot: Slot, key: SlotKey) -> bytes:
    """Return the root.

    Raises:
        SealError: Another passphrase, device secret, code or cost, or altered.
    """
    if slot.slot_id != key.slot_id:
        raise SealError("The passphrase, device secret or recovery code does not belong to this slot.")
    return unlock(key.unlock, slot.sealed, _context(key))


def _slot_key(material: bytes, kind: bytes, cost: bytes) -> SlotKey:
    locator, unlocking = (derive(material, label, kind, cost) for label in ("locator", "unlock"))
    return SlotKey(locator, unlocking, frames(kind, cost))


def _context(key: SlotKey) -> bytes:
    return frames(_TYPE, key.slot_id, key.about)
