"""Proofs made from remembered subtrees lead to the signed roots, however the tree grew meanwhile."""

import pytest

from vault.db import Database
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.note import VerifierKey
from vault.tlog import hashes, log
from vault.tlog.hashes import HashCache
from vault.tlog.sequencer import Sequencer

WAIT_S = 60.0


@pytest.mark.parametrize("kept", [256, 1])
def test_a_growing_tree_is_proven_from_what_is_remembered(
    kept: int,
    database: Database,
    sequencer: Sequencer,
    log_key: VerifierKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashes, "_MAX_TILES", kept)
    cache, entries = HashCache(), list[bytes]()
    for more in (1, 2, 250, 3, 1, 300):
        with database.transaction() as session:
            added = [log.append(session, LeafKind.CONSENT, {"n": n}, {}) for n in range(more)]
        sequencer.wait(added[-1].id, WAIT_S)
        entries += [pending.entry for pending in added]
        with database.snapshot() as session:
            size, note = log.head(session)
            assert size == len(entries)
            root = verify_checkpoint(note, log_key, log_key.name).root
            for index in [0, size // 2, min(255, size - 1), min(256, size - 1), size - 1, 0]:
                verify_inclusion(leaf_hash(entries[index]), index, size, cache.path(session, index, size), root)


def test_a_smaller_tree_is_proven_after_a_larger_one(
    database: Database, sequencer: Sequencer, log_key: VerifierKey
) -> None:
    cache, seen = HashCache(), list[tuple[int, bytes, bytes]]()
    for _ in range(5):
        with database.transaction() as session:
            pending = log.append(session, LeafKind.CONSENT, {}, {})
        sequencer.wait(pending.id, WAIT_S)
        with database.snapshot() as session:
            size, note = log.head(session)
            cache.hashes_at(session, size)(0, size - 1)
        seen.append((size, pending.entry, verify_checkpoint(note, log_key, log_key.name).root))
    with database.snapshot() as session:
        for size, entry, root in seen:
            verify_inclusion(leaf_hash(entry), size - 1, size, cache.path(session, size - 1, size), root)
