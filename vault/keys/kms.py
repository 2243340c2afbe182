"""The key management system: four verbs over named keys.

The embedded keyring keeps each key in a file of its own that only its process's user may read.
A production KMS offers the same verbs and never hands a key out.
"""

from __future__ import annotations

import os
import re
import secrets
from functools import lru_cache
from pathlib import Path

from vault.errors import VaultError
from vault.seal.framing import frames
from vault.seal.signing import SigningKey, new_seed
from vault.seal.wrap import lock, unlock

_KEY_NAME = re.compile(r"[a-z]+(-[a-z]+)*(/[1-9][0-9]{0,5})?")


class NoSuchKey(VaultError):
    """A key that this keyring never held, or that was destroyed."""

    slug = "no-such-key"
    title = "No such key"
    status = 503


class UnsafeKeyring(VaultError):
    """A keyring whose files other users of the machine can read."""

    slug = "unsafe-keyring"
    title = "Unsafe keyring"
    status = 500


class LocalKeyring:
    """Keys in files, one per key, mode 0600, in a folder of mode 0700.

    Args:
        folder: The keyring of one process. App and worker each have their own.

    Raises:
        UnsafeKeyring: The folder is missing or others may read it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UnsafeKeyring("The keyring folder does not exist; run `twinvault operator init` first.")
        if folder.stat().st_mode & 0o077:
            raise UnsafeKeyring("Other users may read the keyring folder; set its mode to 0700.")
        self._folder = folder
        self._secret = lru_cache(maxsize=64)(self._read)
        self._signer = lru_cache(maxsize=64)(lambda name: SigningKey(self._secret(name)))

    @classmethod
    def create(cls, folder: Path) -> LocalKeyring:
        """Make an empty keyring, or open the one that is there."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder)

    def generate(self, name: str) -> None:
        """Make a new random key.

        Raises:
            FileExistsError: The name is taken; a key is never overwritten.
        """
        write_once(self._path(name), new_seed())

    def epochs(self, name: str) -> list[int]:
        """Return the epochs of which this keyring holds a key of that name, such as `serving`, oldest first."""
        suffixes = (path.name.removeprefix(f"{name}.").removesuffix(".key") for path in self._folder.glob("*.key"))
        return sorted(int(suffix) for suffix in suffixes if suffix.isdigit())

    def wrap(self, name: str, data: bytes, aad: bytes) -> bytes:
        """Return data locked under a named key.

        Args:
            name: Which key.
            data: What to lock.
            aad: What it is; unwrapping needs the same bytes.
        """
        return lock(self._secret(name), data, frames(b"kms", name.encode(), aad))

    def unwrap(self, name: str, wrapped: bytes, aad: bytes) -> bytes:
        """Undo `wrap`.

        Raises:
            NoSuchKey: The key is gone.
            SealError: Another key or aad, or altered.
        """
        return unlock(self._secret(name), wrapped, frames(b"kms", name.encode(), aad))

    def sign(self, name: str, data: bytes) -> bytes:
        """Return an Ed25519 signature by a named key."""
        return self._signer(name).sign(data)

    def public_key(self, name: str) -> bytes:
        """Return the raw Ed25519 public key of a named signing key."""
        return self._signer(name).public_key

    def destroy(self, name: str) -> None:
        """Overwrite and remove a key; what was wrapped under it stays closed. Safe to run again.

        A file system may keep old blocks: production keeps keys in a KMS that does not.
        """
        path = self._path(name)
        if path.exists():
            with path.open("r+b") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        self._secret.cache_clear()
        self._signer.cache_clear()

    def _path(self, name: str) -> Path:
        if _KEY_NAME.fullmatch(name) is None:
            raise NoSuchKey("That is not a key name; names look like `serving/1` or `log`.")
        return self._folder / f"{name.replace('/', '.')}.key"

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            if path.stat().st_mode & 0o077:
                raise UnsafeKeyring(f"Other users may read the key {name}; set its file's mode to 0600.")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise NoSuchKey(
                f"This keyring holds no key {name}; it was never made here, or it was destroyed."
            ) from error


def write_once(path: Path, data: bytes) -> None:
    """Write a private file, whole or not at all.

    Raises:
        FileExistsError: There is one of that name; it is left as it is.
    """
    staged = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(staged)
    finally:
        staged.unlink()


class KmsSigner:
    """A named signing key in the shape that `vault.seal` takes.

    Args:
        kms: Where the key lives.
        name: Which key.
    """

    def __init__(self, kms: LocalKeyring, name: str) -> None:
        self._kms = kms
        self._name = name
        self.public_key = kms.public_key(name)

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of the data."""
        return self._kms.sign(self._name, data)
