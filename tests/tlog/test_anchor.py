"""A database set back while the log was not running is noticed, because the anchor was not set back with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from vault.db import Database
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.tlog import log
from vault.tlog.errors import LogDamaged
from vault.tlog.models import log_entry, log_head, log_opening
from vault.tlog.sequencer import Sequencer

WAIT_S = 20.0

Sign = Callable[[bytes], bytes]


def run(database: Database, key: VerifierKey, sign: Sign, anchor: Path | None, events: int) -> None:
    """One life of the app: start, log some events, stop."""
    sequencer = Sequencer(database, key, sign, anchor)
    sequencer.start()
    for n in range(events):
        with database.transaction() as session:
            pending = log.append(session, LeafKind.ANSWER, {"n": n}, {})
        sequencer.wait(pending.id, WAIT_S)
    sequencer.stop()


def empty(database: Database) -> None:
    """Set the log back to before its first event, as a restored backup would."""
    with database.transaction() as session:
        for table in (log_opening, log_entry, log_head):
            session.connection().execute(sqlalchemy.delete(table))


def test_the_anchor_holds_the_newest_checkpoint(
    database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    anchor = tmp_path / "log.anchor"
    size = 0
    for events in (0, 2, 3):
        size += events
        run(database, log_key, sign, anchor, events)
        with database.snapshot() as session:
            assert anchor.read_text() == log.checkpoint(session)
        assert verify_checkpoint(anchor.read_text(), log_key, log_key.name).size == size
    assert [path.name for path in tmp_path.iterdir() if "anchor" in path.name] == ["log.anchor"]


def test_a_database_set_back_while_stopped_does_not_start(
    database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    anchor = tmp_path / "log.anchor"
    run(database, log_key, sign, anchor, 3)
    before = anchor.read_text()
    empty(database)
    with pytest.raises(LogDamaged, match="restore --replace"):
        run(database, log_key, sign, anchor, 0)
    assert anchor.read_text() == before
    with database.snapshot() as session:
        assert session.connection().execute(sqlalchemy.select(log_head)).all() == [], "nothing may be signed"


def test_another_log_of_the_same_key_does_not_start(
    database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    anchor = tmp_path / "log.anchor"
    run(database, log_key, sign, anchor, 3)
    empty(database)
    run(database, log_key, sign, None, 4)  # longer, and every signature in it is right
    with pytest.raises(LogDamaged, match="older or another"):
        run(database, log_key, sign, anchor, 0)


def test_an_older_anchor_is_overtaken(database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path) -> None:
    anchor = tmp_path / "log.anchor"
    run(database, log_key, sign, anchor, 2)
    older = anchor.read_text()
    run(database, log_key, sign, anchor, 2)
    anchor.write_text(older)  # what a power cut may leave
    run(database, log_key, sign, anchor, 0)
    assert verify_checkpoint(anchor.read_text(), log_key, log_key.name).size == 4


@pytest.mark.parametrize("content", [b"", b"\xff", b"log.example/vault\n9\nAAAA\n", b"x" * 10_000])
def test_an_anchor_that_is_no_checkpoint_does_not_start(
    content: bytes, sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    anchor = tmp_path / "log.anchor"
    anchor.write_bytes(content)
    with pytest.raises(LogDamaged, match="not a checkpoint"):
        run(sqlite_database, log_key, sign, anchor, 0)


def test_an_anchor_that_another_key_signed_does_not_start(
    sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    other = Ed25519PrivateKey.generate()
    anchor = tmp_path / "log.anchor"
    stranger = tmp_path / "other.sqlite"
    from vault.db import migrate

    elsewhere = Database(f"sqlite:///{stranger}")
    migrate(elsewhere)
    run(elsewhere, VerifierKey(log_key.name, other.public_key().public_bytes_raw()), other.sign, anchor, 1)
    elsewhere.close()
    with pytest.raises(LogDamaged, match="not a checkpoint"):
        run(sqlite_database, log_key, sign, anchor, 0)


def test_an_anchor_that_cannot_be_written_acknowledges_nothing(
    sqlite_database: Database, log_key: VerifierKey, sign: Sign, tmp_path: Path
) -> None:
    from vault.tlog.errors import LogBusy

    folder = tmp_path / "outside"
    folder.mkdir()
    sequencer = Sequencer(sqlite_database, log_key, sign, folder / "log.anchor")
    sequencer.start()
    (folder / "log.anchor").unlink()
    folder.rmdir()
    with sqlite_database.transaction() as session:
        pending = log.append(session, LeafKind.ANSWER, {}, {})
    with pytest.raises(LogBusy):
        sequencer.wait(pending.id, 1.0)
    folder.mkdir()
    assert sequencer.wait(pending.id, WAIT_S) == 0
    sequencer.stop()
