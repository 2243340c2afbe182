"""Making the service's keys: one keyring per process, and the operator's signed word on the public halves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vault.clock import unix_s
from vault.keys.identities import make_identity
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.seal.dsse import Envelope
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement

APP = {KeyName.SERVING: "serving/1", KeyName.SERVICE: "service/1", KeyName.LOG: "log"}
"""Names in the web process's keyring, first epoch."""

WORKER = {KeyName.PROCESSOR: "processor/1", KeyName.PROCESSOR_SIGN: "processor-sign/1"}
"""Names in the worker's keyring, first epoch."""


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
            _ensure(keyring, key)
            public = make_identity(folder / part, keyring, key).public if name.seals else keyring.public_key(key)
            origin = log_origin if name is KeyName.LOG else ""
            statements.append(sign_key_statement(KeyStatement(name, 1, public, unix_s(now), origin), signer))
    return Keyrings(folder / "app", folder / "worker", folder / "operator", signer.public_key, tuple(statements))


def _ensure(keyring: LocalKeyring, name: str) -> None:
    with suppress(FileExistsError):
        keyring.generate(name)
