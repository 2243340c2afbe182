"""A log key and a started sequencer."""

from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vault.db import Database
from vault.proof.note import VerifierKey
from vault.tlog.sequencer import Sequencer

ORIGIN = "log.example/vault"
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)


@pytest.fixture
def log_key() -> VerifierKey:
    return VerifierKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())


@pytest.fixture
def sign() -> Callable[[bytes], bytes]:
    return PRIVATE.sign


@pytest.fixture
def sequencer(database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]) -> Iterator[Sequencer]:
    running = Sequencer(database, log_key, sign)
    running.start()
    yield running
    running.stop()
