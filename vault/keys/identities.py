"""Identities at rest: an X-Wing seed wrapped under a key of the KMS, which itself cannot hold such a key.

Destroying the KMS key closes the identity for good, whatever copies of the wrapped seed exist.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from vault.keys.kms import LocalKeyring, NoSuchKey, write_once
from vault.seal.identity import Identity
from vault.seal.recipient import Opener, Recipient
from vault.seal.signing import new_seed

_AAD: Final = b"x-wing-seed"


def make_identity(folder: Path, kms: LocalKeyring, name: str) -> Recipient:
    """Make an identity, or open the one that is there, and return its public half.

    Args:
        folder: Where the wrapped seed lies: the keyring of the one process that may open it.
        kms: Holds the wrapping key.
        name: Of that key and of the identity, such as `serving/1`.
    """
    if not _path(folder, name).exists():
        with suppress(FileExistsError):
            write_once(_path(folder, name), kms.wrap(name, new_seed(), _AAD))
    return open_identity(folder, kms, name).recipient


def destroy_identity(folder: Path, kms: LocalKeyring, name: str) -> None:
    """Close an identity for good; what is sealed to it stays sealed. Safe to run again."""
    kms.destroy(name)
    _path(folder, name).unlink(missing_ok=True)


def open_identity(folder: Path, kms: LocalKeyring, name: str) -> Identity:
    """Return an identity.

    Raises:
        NoSuchKey: It was never made here, or its key was destroyed.
        SealError: The wrapped seed is not the one that was made here.
    """
    try:
        wrapped = _path(folder, name).read_bytes()
    except FileNotFoundError as error:
        raise NoSuchKey(f"There is no identity {name} here; run `twinvault operator init` first.") from error
    return Identity(kms.unwrap(name, wrapped, _AAD))


class Epochs:
    """Every epoch of one identity that a keyring holds; one that was made since is found when it is asked for.

    Args:
        folder: The keyring of this process.
        kms: Opens it.
        name: Such as `serving`.
    """

    def __init__(self, folder: Path, kms: LocalKeyring, name: str) -> None:
        self._folder = folder
        self._kms = kms
        self._name = name
        self._found: dict[bytes, Identity] = {}

    def find(self, key_hash: bytes) -> Opener | None:
        """Return the identity whose public key has this hash, if this process holds it."""
        if key_hash not in self._found:
            for epoch in self._kms.epochs(self._name):
                with suppress(NoSuchKey):  # its wrapped half is being made, or was destroyed just now
                    identity = open_identity(self._folder, self._kms, f"{self._name}/{epoch}")
                    self._found[identity.recipient.key_hash] = identity
        return self._found.get(key_hash)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '.')}.wrapped"
