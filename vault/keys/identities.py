"""Identities at rest: an X-Wing seed wrapped under a key of the KMS, which itself cannot hold such a key.

Destroying the KMS key closes the identity for good, whatever copies of the wrapped seed exist.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from vault.keys.kms import LocalKeyring, NoSuchKey
from vault.seal.identity import Identity
from vault.seal.recipient import Recipient
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
        wrapped = kms.wrap(name, new_seed(), _AAD)
        descriptor = os.open(_path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(wrapped)
            file.flush()
            os.fsync(file.fileno())
    return open_identity(folder, kms, name).recipient


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


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '.')}.wrapped"
