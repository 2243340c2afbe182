"""Whoever brings a key under which anybody signs is told so where the key is registered, not when it is used."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.curve import SPELLED, P
from vault.db import Database
from vault.encoding import b64u
from vault.errors import VaultError
from vault.evidence.auditors import list_auditors, register_auditor
from vault.proof.jose import read_jwk
from vault.proof.note import COSIGNATURE, ED25519, VerifierKey, parse_verifier_key
from vault.proof.trust import TrustedRoot, dump_trust, parse_trust
from vault.seal.audit import Registration, dump_registration, parse_registration
from vault.seal.device import Device, DeviceRole, dump_device, parse_device
from vault.seal.fields import Fields
from vault.seal.ids import VaultId, sha256
from vault.seal.legacy import LegacyTerms, Plan, sign_plan, verify_plan
from vault.seal.person import sign_genesis, sign_succession, verify_genesis, verify_succession
from vault.seal.signing import SigningKey
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement, verify_key_statement
from vault.seal.version import NO_PREV

OWNER = SigningKey(b"\x01" * 32)
VAULT = VaultId(bytes(16))
LOG = VerifierKey("log.example/one", OWNER.public_key)


class Pretender:
    """Signs with one key and names another."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key

    def sign(self, data: bytes) -> bytes:
        return OWNER.sign(data)


def _genesis(key: bytes) -> object:
    return verify_genesis(sign_genesis(Pretender(key), OWNER.public_key, created_at=1, time_zone="UTC"))


def _succession(key: bytes) -> object:
    envelope = sign_succession(Pretender(key), OWNER.public_key, vault_id=VAULT, prev=NO_PREV)
    return verify_succession(envelope, vault_id=VAULT, prev=NO_PREV, next_owner_key_hash=sha256(key))


def _plan(key: bytes) -> object:
    plan = Plan(VAULT, 1, NO_PREV, 1, LegacyTerms(key, 2, 3, 30))
    return verify_plan(sign_plan(plan, OWNER), OWNER.public_key, VAULT)


def _statement(key: bytes) -> object:
    return verify_key_statement(sign_key_statement(KeyStatement(KeyName.SERVICE, 1, key, 0), OWNER), OWNER.public_key)


def _verifier_key(kind: bytes) -> Callable[[bytes], object]:
    return lambda key: parse_verifier_key(VerifierKey("one.example", key, kind).text, kind)


READERS: dict[str, Callable[[bytes], object]] = {
    "owner": _genesis,
    "next owner": _succession,
    "device": lambda key: parse_device(Fields(dump_device(Device(key, DeviceRole.SOURCE)))),
    "executors": _plan,
    "service": _statement,
    "operator": lambda key: parse_trust(dump_trust(TrustedRoot("https://one.example", LOG.name, LOG, key))),
    "log": _verifier_key(ED25519),
    "witness": _verifier_key(COSIGNATURE),
    "company": lambda key: read_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64u(key)}),
    "auditor": lambda key: parse_registration(dump_registration(Registration("One", key))),
}


@pytest.mark.parametrize("who", READERS)
def test_a_key_that_binds_nobody_is_refused_where_it_is_registered(who: str) -> None:
    assert READERS[who](OWNER.public_key)
    for key, _ in SPELLED:
        with pytest.raises(VaultError, match=r"small order|one spelling"):
            READERS[who](key)
    with pytest.raises(VaultError, match="one spelling"):
        READERS[who]((P + 5).to_bytes(32, "little"))


def test_the_operator_registers_no_auditor_with_such_a_key(database: Database) -> None:
    for key in (bytes(32), (P + 5).to_bytes(32, "little"), b"", OWNER.public_key[:31]):
        with pytest.raises(VaultError, match="The auditor's key cannot be used"), database.transaction() as session:
            register_auditor(session, "One", key, datetime(2030, 1, 1, tzinfo=UTC))
    with database.snapshot() as session:
        assert list_auditors(session) == []
