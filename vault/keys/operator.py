"""Making the service's keys: one keyring per process, and the operator's signed word on the public halves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vault.clock import unix_s
from vault.errors import VaultError
from vault.keys.identities import make_identity
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.seal.dsse import Envelope
from vault.seal.signing import Signer
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement

APP = {KeyName.SERVING: "serving/1", KeyName.SERVICE: "service/1", KeyName.LOG: "log"}
"""Names in the web process's keyring, first epoch."""

LEAD_S: Final = 15
"""A new key is shown this long before it is in force, so that every process knows it before anyone signs with it."""

WORKER = {KeyName.PROCESSOR: "processor/1", KeyName.PROCESSOR_SIGN: "processor-sign/1"}
"""Names in the worker's keyring, first epoch."""


class RolloverUnderway(VaultError):
    """A key whose last rollover is not over yet."""

    slug = "rollover-underway"
    title = "A rollover is under way"
    status = 409


def key_name(name: KeyName, epoch: int) -> str:
    """Return what a keyring calls a key."""
    return str(name) if name is KeyName.LOG else f"{name}/{epoch}"


@dataclass(frozen=True)
class Keyrings:
    """What `operator init` made.

    Args:
        app: Folder of the web process's keyring.
        worker: Folder of the worker's keyring.
        operator: Folder of the operator's key: take it offline once the statements are published.
        operator_key: What clients pin, 32 bytes.
        statements: One signed statement for each key.
    """

    app: Path
    worker: Path
    operator: Path
    operator_key: bytes
    statements: tuple[Envelope, ...]


def make_keyrings(folder: Path, *, log_origin: str, now: datetime) -> Keyrings:
    """Make all keys of a first epoch; what exists is kept, so that it is safe to run again.

    Args:
        folder: Gets one folder per holder: `app`, `worker`, `operator`.
        log_origin: Origin line of the log's checkpoints.
        now: From when on the keys are in force.

    Guarantees:
        No key of one process is ever in a folder of the other.
    """
    operator = LocalKeyring.create(folder / "operator")
    _ensure(operator, "operator")
    signer = KmsSigner(operator, "operator")
    statements = []
    for part, names in (("app", APP), ("worker", WORKER)):
        keyring = LocalKeyring.create(folder / part)
        for name, key in names.items():
            epoch = max(keyring.epochs(name), default=1)  # one that was rolled over is not made again
            if epoch == 1:
                _ensure(keyring, key)
            public = _public(folder / part, keyring, name, epoch)
            origin = log_origin if name is KeyName.LOG else ""
            statements.append(sign_key_statement(KeyStatement(name, epoch, public, unix_s(now), origin), signer))
    return Keyrings(folder / "app", folder / "worker", folder / "operator", signer.public_key, tuple(statements))


def make_next(folder: Path, stated: KeyStatement, operator: Signer, *, now: datetime) -> Envelope:
    """Make the key of the next epoch in its holder's keyring, or take the one that an interrupted try made.

    Args:
        folder: The keyring of the process that holds the key.
        stated: The key in force.
        operator: The operator's key.
        now: The current time; the key is in force `LEAD_S` later.

    Returns:
        The operator's statement of the new key, to be published.

    Raises:
        RolloverUnderway: An older key still waits to be destroyed.
    """
    keyring, epoch = LocalKeyring(folder), stated.epoch + 1
    if any(older < stated.epoch for older in keyring.epochs(stated.name)):
        raise RolloverUnderway(
            f"The rollover of {stated.name} to epoch {stated.epoch} is not over: app and worker must run until its"
            " old key is destroyed; `twinvault operator keys show` tells how far it is."
        )
    _ensure(keyring, key_name(stated.name, epoch))
    public = _public(folder, keyring, stated.name, epoch)
    return sign_key_statement(KeyStatement(stated.name, epoch, public, unix_s(now) + LEAD_S), operator)


def _public(folder: Path, keyring: LocalKeyring, name: KeyName, epoch: int) -> bytes:
    key = key_name(name, epoch)
    return make_identity(folder, keyring, key).public if name.seals else keyring.public_key(key)


def _ensure(keyring: LocalKeyring, name: str) -> None:
    with suppress(FileExistsError):
        keyring.generate(name)
