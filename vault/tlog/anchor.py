"""The anchor: the newest signed checkpoint in a file of its own, outside the database and its backups.

A database put back from yesterday is whole and rightly signed; only something that was not put
back with it can tell. Without it the log would sign a second tree, which every client refuses.
"""

from __future__ import annotations

import os
from pathlib import Path

from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.note import VerifierKey
from vault.tlog.errors import LogDamaged


class Anchor:
    """One file that holds one checkpoint note.

    Args:
        path: The file; its folder must exist.
        log: The log's public key.
    """

    def __init__(self, path: Path, log: VerifierKey) -> None:
        self._path = path
        self._key = log
        self._written = ""

    def read(self) -> Checkpoint | None:
        """Return the anchored checkpoint, or None before the first one.

        Read it before the database: it is written after a commit, so a database read later must have reached it.

        Raises:
            LogDamaged: The file holds something else.
        """
        try:
            note = self._path.read_bytes().decode()
            return verify_checkpoint(note, self._key, self._key.name)
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, InvalidProof) as error:
            raise LogDamaged(
                f"The anchor file {self._path.name} is not a checkpoint of this log. Compare the log with a checkpoint "
                "that a witness, owner or company holds; if the log has it, delete the file and start again."
            ) from error

    def delete(self) -> None:
        """Forget the checkpoint, because whoever runs the log accepts that it forks."""
        self._path.unlink(missing_ok=True)

    def write(self, note: str) -> None:
        """Replace the anchored checkpoint in one step.

        It is not flushed to the disk: a power cut may bring back an older anchor, which asks for less but never
        for anything false, and the database that it must not outlive was flushed before.

        Args:
            note: A signed checkpoint that the database has committed.
        """
        if note == self._written:
            return
        staged = self._path.with_name(f"{self._path.name}.{os.getpid()}")  # two apps may share one file
        file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.write(file, note.encode())
        finally:
            os.close(file)
        staged.replace(self._path)
        self._written = note
