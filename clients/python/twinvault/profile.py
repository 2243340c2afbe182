"""The local profile: what one person, company or auditor keeps on this machine. Never a passphrase.

A folder of mode 0700: `profile.json` (who this is, device keys), `trust.json` (the pinned keys),
`memory.json` (the highest versions seen, so that a rollback shows) and a device's spool.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twinvault.api import ClientError
from vault.encoding import JsonObject, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.proof.trust import TrustedRoot, dump_trust, parse_trust
from vault.seal.version import Remembered

RECORD: Final = "profile.json"
TRUST: Final = "trust.json"
MEMORY: Final = "memory.json"
SPOOL: Final = "spool.sqlite"


class BadProfile(ClientError):
    """A profile that is missing, exists already, or cannot be read."""

    slug = "bad-profile"
    title = "Profile cannot be used"


class RolledBack(ClientError):
    """The service showed something older than, or different from, what this client saw before.

    Args:
        shown: What it showed, in a sentence.
    """

    slug = "rolled-back"
    title = "Service contradicts itself"

    def __init__(self, shown: str) -> None:
        super().__init__(
            f"{shown} Do not trust it. Only if you believe its operator, who told you by another way that a backup was"
            f" put back, delete {MEMORY} in your profile's folder: this client then begins to remember anew."
        )


def home() -> Path:
    """Return the folder of all profiles: `$TWINVAULT_HOME`, or `~/.twinvault`."""
    return Path(os.environ.get("TWINVAULT_HOME") or Path.home() / ".twinvault")


class Profile:
    """One profile on this machine; make it with `create` or `load`.

    Args:
        folder: Where it lies.
        trust: The pinned keys.
        record: Who this is; fields differ by kind.
    """

    def __init__(self, folder: Path, trust: TrustedRoot, record: JsonObject) -> None:
        self.folder = folder
        self.trust = trust
        self.record = record

    @classmethod
    def create(cls, folder: Path, trust: TrustedRoot, record: JsonObject) -> Profile:
        """Write a new profile.

        Args:
            folder: Must not exist.
            trust: What to pin.
            record: Who this is.

        Raises:
            BadProfile: There is one already, or the folder cannot be made.

        Guarantees: when this returns, everything is on disk; when it fails, there is no profile.
        """
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
            write_private(draft / TRUST, dump_trust(trust))
            write_private(draft / RECORD, dump_json(record))
            if folder.exists():
                raise BadProfile(f"A profile lies in {folder} already; choose another name with --profile.")
            draft.rename(folder)
            _sync(folder.parent)
        except OSError as error:
            raise BadProfile(f"The profile {folder} cannot be written: {error.strerror}.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(folder, trust, record)

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """Read a profile.

        Raises:
            BadProfile: There is none, it is damaged, or other users may read it.
        """
        try:
            if folder.stat().st_mode & 0o077:
                raise BadProfile(f"Other users may read the profile {folder}; run: chmod 700 {folder}")
            trust, record = (folder / TRUST).read_bytes(), (folder / RECORD).read_bytes()
        except OSError as error:
            raise BadProfile(
                f"No profile lies in {folder}; make one with `twinvault owner init`, `company register` or"
                " `auditor register`, or name another with --profile."
            ) from error
        try:
            return cls(folder, parse_trust(trust), parse_json(record))
        except MalformedInput as error:
            raise BadProfile(f"The profile {folder} is damaged: {error.detail}") from error

    def keep(self, changes: JsonObject) -> None:
        """Change fields of the record.

        Guarantees: when this returns, they are on disk; a crash leaves the record as it was or as it is to be.
        """
        with self._locked():
            changed = {**parse_json((self.folder / RECORD).read_bytes()), **changes}
            write_private(self.folder / RECORD, dump_json(changed))
        self.record = changed

    def text(self, name: str) -> str:
        """Return a text of the record.

        Raises:
            BadProfile: This kind of profile has no such field.
        """
        value = self.record.get(name)
        if not isinstance(value, str):
            raise BadProfile(f"The profile {self.folder} is of another kind: it holds no {name}.")
        return value

    def binary(self, name: str, size: int | None = None) -> bytes:
        """Return bytes of the record.

        Raises:
            BadProfile: This kind of profile has no such field, or it is damaged.
        """
        try:
            return parse_b64u(self.text(name), size=size)
        except MalformedInput as error:
            raise BadProfile(f"The profile {self.folder} is damaged: {error.detail}") from error

    def remembered(self, name: str) -> Remembered | None:
        """Return the highest version seen of something, or None on the first visit."""
        return self._memory().get(name)

    def remember(self, name: str, seen: Remembered) -> None:
        """Keep the highest version seen of one thing; see `remember_all`.

        Raises:
            RolledBack: A higher version was seen, or another one with the same number.
        """
        self.remember_all({name: seen})

    def remember_all(self, seen: Mapping[str, Remembered]) -> None:
        """Keep the highest versions seen, all or none of them.

        Args:
            seen: By what it is of: `ring`, `account`, `identity`, `key/processor`, `consent/<id>`, `checkpoint`. Its version,
                epoch or size, and its digest.

        Raises:
            RolledBack: A higher version was seen, or another one with the same number.
        """
        with self._locked():
            memory = self._memory()
            for name, item in seen.items():
                _refuse_older(name, item, memory.get(name))
            if all(memory.get(name) == item for name, item in seen.items()):
                return
            memory |= seen
            record: JsonObject = {
                key: {"version": item.version, "digest": b64u(item.digest)} for key, item in memory.items()
            }
            write_private(self.folder / MEMORY, dump_json(record))

    def _memory(self) -> dict[str, Remembered]:
        path = self.folder / MEMORY
        if not path.exists():
            return {}
        memory: dict[str, Remembered] = {}
        try:
            for name, item in parse_json(path.read_bytes()).items():
                if not isinstance(item, dict) or not isinstance(item.get("version"), int):
                    raise BadProfile(f"The profile's {MEMORY} is damaged; restore it from a copy.")
                memory[name] = Remembered(int(str(item["version"])), parse_b64u(item.get("digest"), size=32))
        except MalformedInput as error:
            raise BadProfile(f"The profile's {MEMORY} is damaged: {error.detail}") from error
        return memory

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _refuse_older(name: str, seen: Remembered, highest: Remembered | None) -> None:
    if highest is not None and seen.version < highest.version:
        raise RolledBack(f"The service showed an older {name} than this client has seen.")
    if highest is not None and seen.version == highest.version and seen.digest != highest.digest:
        raise RolledBack(f"The service showed two different {name} of one version.")


def write_private(path: Path, data: bytes) -> None:
    """Replace a file, mode 0600, at once and for good: a crash leaves the old one or the new one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def read_trust(path: Path) -> TrustedRoot:
    """Return the keys of a trust file.

    Raises:
        BadProfile: It cannot be read.
        BadTrustFile: It is not one.
    """
    try:
        return parse_trust(path.read_bytes())
    except OSError as error:
        raise BadProfile(f"The trust file {path} cannot be read: {error.strerror}.") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
