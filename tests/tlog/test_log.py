"""What the log's verbs give back, and what erasing takes away and leaves."""

from pathlib import Path

import pytest
import sqlalchemy

from vault.db import Database
from vault.errors import MalformedInput
from vault.proof import merkle
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.note import VerifierKey
from vault.proof.receipt import verify_receipt
from vault.proof.tiles import parse_bundle, split_hashes
from vault.tlog import log
from vault.tlog.errors import NotInLog
from vault.tlog.models import log_opening
from vault.tlog.sequencer import Sequencer

WAIT_S = 20.0


def test_a_leaf_opens_to_what_was_recorded(database: Database, sequencer: Sequencer) -> None:
    with database.transaction() as session:
        log.append(session, LeafKind.CONSENT, {"purpose": "service"}, {"subject": "abc"})
        last = log.append(session, LeafKind.ANSWER, {"purpose": "service"}, {"subject": "abc", "consent_seq": 2})
    sequencer.wait(last.id, WAIT_S)
    with database.snapshot() as session:
        leaf = log.leaf(session, 1)
        assert (leaf.pending_id, leaf.index, leaf.kind, leaf.entry) == (last.id, 1, LeafKind.ANSWER, last.entry)
        assert leaf.personal is not None
        assert verify_opening(leaf.entry, Part.PUBLIC, leaf.public) == {"kind": "answer", "purpose": "service"}
        assert verify_opening(leaf.entry, Part.PERSONAL, leaf.personal) == {"subject": "abc", "consent_seq": 2}
        assert [found.index for found in log.find(session)] == [0, 1]
        assert [found.index for found in log.find(session, kind=LeafKind.ANSWER)] == [1]
        assert [found.index for found in log.find(session, after=0)] == [1]
        assert [found.index for found in log.find(session, limit=1)] == [0]
        for missing in (-1, 2):
            with pytest.raises(NotInLog):
                log.leaf(session, missing)


def test_an_erased_personal_half_is_gone_from_the_file_and_every_proof_stays(
    sqlite_database: Database, log_key: VerifierKey, sign
) -> None:
    sequencer = Sequencer(sqlite_database, log_key, sign)
    sequencer.start()
    with sqlite_database.transaction() as session:
        gone = log.append(session, LeafKind.ANSWER, {}, {"subject": "canary-of-one-person"})
        kept = log.append(session, LeafKind.ANSWER, {}, {"subject": "another-person"})
    sequencer.wait(kept.id, WAIT_S)
    sequencer.stop()
    with sqlite_database.transaction() as session:
        log.delete_personal_openings(session, [gone.id])
        log.delete_personal_openings(session, [])
    with sqlite_database.snapshot() as session:
        leaf = log.leaf(session, 0)
        assert leaf.personal is None
        assert verify_opening(leaf.entry, Part.PUBLIC, leaf.public) == {"kind": "answer"}
        assert log.leaf(session, 1).personal is not None
        for index, pending in enumerate([gone, kept]):
            assert verify_receipt(log.receipt_for(session, index), pending.entry, log_key, log_key.name) == index
    with sqlite_database.engine.connect() as connection:
        connection.rollback()
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = sqlite_database.url.database
    assert path is not None
    content = Path(path).read_bytes()
    assert b"another-person" in content, "the search must be able to find an opening"
    assert b"canary-of-one-person" not in content
    assert gone.openings.personal.salt not in content


def test_a_caller_cannot_name_another_kind(database: Database) -> None:
    with database.transaction() as session, pytest.raises(MalformedInput):
        log.append(session, LeafKind.ANSWER, {"kind": "erasure"}, {})
    with database.snapshot() as session:
        assert session.connection().execute(sqlalchemy.select(log_opening)).first() is None


def test_a_log_never_started_answers_plainly(database: Database) -> None:
    with database.snapshot() as session:
        for ask in (
            lambda: log.checkpoint(session),
            lambda: log.receipt_for(session, 0),
            lambda: log.tile(session, 0, 0, 1),
            lambda: log.consistency(session, 1, 1),
        ):
            with pytest.raises(NotInLog):
                ask()


def test_tiles_bundles_and_proofs_of_more_than_one_tile(
    database: Database, sequencer: Sequencer, log_key: VerifierKey
) -> None:
    with database.transaction() as session:
        recorded = [log.append(session, LeafKind.UPLOAD, {}, {"n": n}) for n in range(600)]
    sequencer.wait(recorded[-1].id, WAIT_S)
    hashes = [merkle.leaf_hash(pending.entry) for pending in recorded]
    with database.snapshot() as session:
        assert parse_bundle(log.entries(session, 1, 256)) == [pending.entry for pending in recorded[256:512]]
        assert parse_bundle(log.entries(session, 2, 88)) == [pending.entry for pending in recorded[512:]]
        assert split_hashes(log.tile(session, 0, 0, 256)) == hashes[:256]
        assert split_hashes(log.tile(session, 0, 0, 17)) == hashes[:17], "a partial tile outlives the full one"
        assert split_hashes(log.tile(session, 1, 0, 2)) == [
            merkle.Edge().extend(hashes[at : at + 256]).root for at in (0, 256)
        ]
        for level, index, width in [(0, 2, 89), (0, 3, 1), (1, 0, 3), (2, 0, 1), (0, 0, 0), (0, 2, 256)]:
            with pytest.raises(NotInLog):
                log.tile(session, level, index, width)
        for index in (0, 255, 256, 511, 512, 599):
            receipt = log.receipt_for(session, index)
            assert verify_receipt(receipt, recorded[index].entry, log_key, log_key.name) == index
        root = merkle.Edge().extend(hashes).root
        for old in (1, 255, 256, 300, 512, 600):
            old_root = merkle.Edge().extend(hashes[:old]).root
            merkle.verify_consistency(old, 600, log.consistency(session, old, 600), old_root, root)
        with pytest.raises(NotInLog):
            log.receipt_for(session, 600)
        with pytest.raises(NotInLog):
            log.consistency(session, 1, 601)
        with pytest.raises(InvalidProof):
            log.consistency(session, 3, 2)


def test_events_are_found_by_whom_they_are_about_until_that_is_forgotten(
    database: Database, sequencer: Sequencer
) -> None:
    with database.transaction() as session:
        ours = [log.append(session, LeafKind.UPLOAD, {}, {"n": n}, about=b"o" * 16) for n in range(3)]
        theirs = log.append(session, LeafKind.UPLOAD, {}, {}, about=b"t" * 16)
        last = log.append(session, LeafKind.KEY, {}, {})
    sequencer.wait(last.id, WAIT_S)
    with database.snapshot() as session:
        assert [leaf.index for leaf in log.find(session, about=b"o" * 16)] == [0, 1, 2]
        assert [leaf.index for leaf in log.find(session, about=b"o" * 16, after=0, limit=1)] == [1]
        assert [leaf.index for leaf in log.find(session, about=b"o" * 16, kind=LeafKind.KEY)] == []
        assert all(b"o" * 16 not in pending.entry + pending.openings.personal.body for pending in ours)
    with database.transaction() as session:
        log.delete_personal_openings(session, [pending.id for pending in ours])
    with database.snapshot() as session:
        assert log.find(session, about=b"o" * 16) == []
        assert [leaf.pending_id for leaf in log.find(session, about=b"t" * 16)] == [theirs.id]
