"""Keys of the first epoch: one keyring per process, each public half under the operator's signature."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.leaves import leaves
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.keys import statements
from vault.keys.identities import make_identity, open_identity
from vault.keys.kms import KmsSigner, LocalKeyring, NoSuchKey
from vault.keys.operator import make_keyrings
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.ids import sha256
from vault.seal.recipient import Recipient
from vault.seal.signing import SigningKey, new_seed, verify_signature
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement, verify_key_statement

ORIGIN = "log.example/vault"


def test_every_key_is_stated_and_each_process_holds_its_own(tmp_path: Path) -> None:
    made = make_keyrings(tmp_path / "keys", log_origin=ORIGIN, now=NOW)
    stated = {s.name: s for s in (verify_key_statement(e, made.operator_key) for e in made.statements)}
    assert set(stated) == set(KeyName)
    assert stated[KeyName.LOG].log_origin == ORIGIN
    assert {path.name for path in made.app.iterdir()} == {
        "serving.1.key",
        "serving.1.wrapped",
        "service.1.key",
        "log.key",
    }
    assert {path.name for path in made.worker.iterdir()} == {
        "processor.1.key",
        "processor.1.wrapped",
        "processor-sign.1.key",
    }
    app, worker = LocalKeyring(made.app), LocalKeyring(made.worker)
    assert open_identity(made.app, app, "serving/1").recipient.public == stated[KeyName.SERVING].public_key
    assert open_identity(made.worker, worker, "processor/1").recipient.public == stated[KeyName.PROCESSOR].public_key
    verify_signature(stated[KeyName.SERVICE].public_key, app.sign("service/1", b"x"), b"x")
    for process, folder, name in ((app, made.app, "processor/1"), (worker, made.worker, "serving/1")):
        with pytest.raises(NoSuchKey):
            open_identity(folder, process, name)
    for path in (tmp_path / "keys").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path == tmp_path / "keys", path


def test_making_keys_again_keeps_them(tmp_path: Path) -> None:
    first = make_keyrings(tmp_path, log_origin=ORIGIN, now=NOW)
    again = make_keyrings(tmp_path, log_origin=ORIGIN, now=NOW)
    assert again.operator_key == first.operator_key
    assert [e.payload for e in again.statements] == [e.payload for e in first.statements]


def test_the_app_cannot_open_the_workers_identity_with_its_own_keys(tmp_path: Path) -> None:
    made = make_keyrings(tmp_path, log_origin=ORIGIN, now=NOW)
    app = LocalKeyring(made.app)
    stolen = made.app / "processor.1.wrapped"
    stolen.write_bytes((made.worker / "processor.1.wrapped").read_bytes())
    (made.app / "processor.1.key").write_bytes((made.app / "serving.1.key").read_bytes())
    (made.app / "processor.1.key").chmod(0o600)
    with pytest.raises(SealError):
        open_identity(made.app, app, "processor/1")


def test_a_destroyed_key_closes_the_identity(tmp_path: Path) -> None:
    kms = LocalKeyring.create(tmp_path / "ring")
    kms.generate("serving/1")
    make_identity(tmp_path / "ring", kms, "serving/1")
    kms.destroy("serving/1")
    with pytest.raises(NoSuchKey):
        open_identity(tmp_path / "ring", kms, "serving/1")


def test_statements_are_kept_logged_and_in_force_by_epoch(database: Database) -> None:
    operator = SigningKey(new_seed())
    recipient = Recipient.of_seed(new_seed()).public
    first = KeyStatement(KeyName.SERVING, 1, recipient, unix_s(NOW))
    later = replace(first, epoch=2, public_key=Recipient.of_seed(new_seed()).public, not_before=unix_s(NOW) + 60)
    processor = replace(first, name=KeyName.PROCESSOR)
    with database.transaction() as session:
        for statement in (later, first, processor):
            assert statements.publish(session, sign_key_statement(statement, operator), operator.public_key)
        changed = replace(first, public_key=Recipient.of_seed(new_seed()).public)
        assert statements.publish(session, sign_key_statement(changed, operator), operator.public_key) is None
        now = statements.in_force(session, operator.public_key, NOW)
        assert now == {KeyName.SERVING: first, KeyName.PROCESSOR: processor}
        after = statements.in_force(session, operator.public_key, NOW + timedelta(minutes=1))
        assert after[KeyName.SERVING] == later
        assert statements.recipients(now)[KeyKind.IMPRINT] == sha256(recipient)
        assert len(statements.envelopes(session)) == 3
        logged = [public for kind, public, _ in leaves(session) if kind == "key"]
    assert [(public["name"], public["epoch"]) for public in logged] == [
        ("serving", 2),
        ("serving", 1),
        ("processor", 1),
    ]
    with pytest.raises(NoSuchKey):
        statements.recipients({})


def test_a_statement_by_another_key_is_refused(database: Database) -> None:
    operator, stranger = SigningKey(new_seed()), SigningKey(new_seed())
    forged = sign_key_statement(KeyStatement(KeyName.SERVICE, 1, new_seed(), 0), stranger)
    with pytest.raises(SealError), database.transaction() as session:
        statements.publish(session, forged, operator.public_key)


@pytest.mark.parametrize(
    "statement",
    [
        KeyStatement(KeyName.SERVICE, 1, b"x" * 31, 0),
        KeyStatement(KeyName.SERVING, 1, b"x" * 32, 0),
        KeyStatement(KeyName.SERVICE, 0, b"x" * 32, 0),
        KeyStatement(KeyName.LOG, 1, b"x" * 32, 0),
        KeyStatement(KeyName.SERVICE, 1, b"x" * 32, 0, ORIGIN),
    ],
)
def test_a_statement_that_contradicts_itself_is_refused(statement: KeyStatement) -> None:
    operator = SigningKey(new_seed())
    with pytest.raises(SealError):
        verify_key_statement(sign_key_statement(statement, operator), operator.public_key)


def test_a_statement_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    kms = LocalKeyring.create(tmp_path / "operator")
    kms.generate("operator")
    signer = KmsSigner(kms, "operator")
    encoded = sign_key_statement(KeyStatement(KeyName.SERVICE, 1, new_seed(), 0), signer).encoded
    for place in range(0, len(encoded), 7):
        flipped = bytearray(encoded)
        flipped[place] ^= 1
        with pytest.raises(SealError):
            verify_key_statement(parse_envelope(bytes(flipped)), signer.public_key)
