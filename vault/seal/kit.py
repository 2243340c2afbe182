"""The recovery kit: three secrets on paper, in letters and digits that people can copy.

Source: Crockford's Base32 (no I, L, O, U; case does not matter).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from vault.seal.errors import SealError
from vault.seal.ids import sha256
from vault.seal.signing import SEED_BYTES, new_seed
from vault.seal.slot import DEVICE_SECRET_BYTES, RECOVERY_CODE_BYTES

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_MISREAD: Final = str.maketrans("OIL", "011", "- \t\r")
_TITLE: Final = "TwinVault recovery kit"
_SIZES: Final = {
    "recovery code": RECOVERY_CODE_BYTES,
    "next owner key": SEED_BYTES,
    "device secret": DEVICE_SECRET_BYTES,
}
_GROUP: Final = 4


@dataclass(frozen=True, slots=True, repr=False)
class RecoveryKit:
    """What brings a vault back without passphrase or devices; whoever has it has the vault.

    Args:
        recovery_code: Opens the recovery slot, 32 bytes.
        next_owner_seed: Seed of the key that genesis or the last succession committed to.
        device_secret: Goes with the passphrase, 16 bytes.
    """

    recovery_code: bytes
    next_owner_seed: bytes
    device_secret: bytes


def new_kit(device_secret: bytes) -> RecoveryKit:
    """Return a kit with a fresh code and next owner key."""
    return RecoveryKit(secrets.token_bytes(RECOVERY_CODE_BYTES), new_seed(), device_secret)


def dump_kit(kit: RecoveryKit) -> str:
    """Return the text to print: a title and three named lines."""
    values = (kit.recovery_code, kit.next_owner_seed, kit.device_secret)
    lines = [f"{name}: {_write(name, value)}" for name, value in zip(_SIZES, values, strict=True)]
    return "\n".join([_TITLE, *lines]) + "\n"


def parse_kit(text: str) -> RecoveryKit:
    """Return the kit of its printed text; case, spaces and hyphens do not matter, nor O for 0 or I and L for 1.

    Raises:
        SealError: A line is missing, unknown, twice, or mistyped.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    pairs = [line.partition(":") for line in lines[1:]]
    found = {name.strip().lower(): value for name, _, value in pairs}
    if not lines or lines[0] != _TITLE or found.keys() != _SIZES.keys() or len(pairs) != len(found):
        raise SealError("A recovery kit is its title and three lines: recovery code, next owner key, device secret.")
    return RecoveryKit(*(_read(name, size, found[name]) for name, size in _SIZES.items()))


def _checksum(name: str, value: bytes) -> bytes:
    # The name is in it, so that one line of the kit is not taken for another; the length makes whole letters.
    return sha256(f"twinvault/kit/{name}".encode() + value)[: 5 - len(value) % 5]


def _write(name: str, value: bytes) -> str:
    data = value + _checksum(name, value)
    number = int.from_bytes(data, "big")
    letters = [_ALPHABET[number >> shift & 31] for shift in range(8 * len(data) - 5, -1, -5)]
    return "-".join("".join(letters[i : i + _GROUP]) for i in range(0, len(letters), _GROUP))


def _read(name: str, size: int, text: str) -> bytes:
    letters = text.upper().translate(_MISREAD)
    total = size + 5 - size % 5
    if len(letters) * 5 != total * 8 or any(letter not in _VALUES for letter in letters):
        raise SealError(f"The {name} has {total * 8 // 5} letters and digits; check what was typed.")
    number = 0
    for letter in letters:
        number = number << 5 | _VALUES[letter]
    data = number.to_bytes(total, "big")
    if _checksum(name, data[:size]) != data[size:]:
        raise SealError(f"The {name} has a typing error.")
    return data[:size]
