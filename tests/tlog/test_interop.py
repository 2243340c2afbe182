"""Somebody else's code reads what we publish, and we read what it publishes."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.tlog.test_files import Growing, replay, static_host
from vault.db import Database
from vault.proof import merkle
from vault.proof.checkpoint import Checkpoint
from vault.proof.note import COSIGNATURE, NoteSignature, VerifierKey
from vault.proof.receipt import Receipt, verify_receipt
from vault.proof.tiles import Tile, hashes_from_tiles
from vault.proof.witness import cosign, verify_cosignatures
from vault.tlog import log

pytestmark = (
    pytest.mark.slow
)  # fetches a package that asks for a newer Python than this project does, and works on ours

_PACKAGE = "aics-tlog==0.2.1"


@pytest.fixture(scope="module")
def aics(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("aics")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--ignore-requires-python",
        "--target",
        str(folder),
    ]
    subprocess.run([*pip, _PACKAGE], check=True, capture_output=True)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("aics_tlog")
    sys.path.remove(str(folder))


def test_it_audits_the_log_that_we_publish(
    aics: Any, sqlite_database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    growing = Growing(sqlite_database, log_key, sign, tmp_path / "public")
    for size in (200, 551):
        growing.to(size)
        growing.publish()
    with static_host(growing.folder) as url:
        reader = aics.HttpTileReader([url])
        key = aics.parse_vkey(log_key.text)
        checked = aics.verify_checkpoint(
            aics.parse_note((growing.folder / "checkpoint").read_bytes()), key, [], quorum=0
        )
        assert checked.ok, checked
        verified = aics.VerifiedTileReader(reader, checked.size, checked.root)
        with sqlite_database.snapshot() as session:
            for index in (0, 199, 200, 255, 256, 550):
                entry = log.leaf(session, index).entry
                assert verified.entry(index) == entry
                proof = aics.inclusion_proof_from_tiles(verified, index, 551)
                assert proof == merkle.inclusion_proof(index, 551, log.hashes_at(session, 551))
                assert aics.verify_leaf_inclusion(entry, index, 551, proof, checked.root)
            consistency = log.consistency(session, 200, 551)
            old = merkle.range_root(0, 200, log.hashes_at(session, 551))
            assert aics.verify_consistency(200, 551, old, checked.root, consistency)
            assert not aics.verify_consistency(200, 551, old, checked.root, consistency[::-1])


def test_we_audit_the_log_that_it_publishes(aics: Any, tmp_path: Path) -> None:
    origin, private = "other.example/log", Ed25519PrivateKey.generate()
    store = aics.DirectoryTileStore(str(tmp_path))
    writer = aics.IncrementalTileWriter(store)
    key = VerifierKey(origin, private.public_key().public_bytes_raw())
    entries = [b"message %d" % n for n in range(700)]
    for start, end in ((0, 3), (3, 256), (256, 700)):
        writer.append(entries[start:end])
        signed = aics.sign_checkpoint(aics.Checkpoint(origin, end, writer.root()), private, origin).to_bytes()
        store.write_checkpoint(signed)
        checkpoint = replay(lambda path: (tmp_path / path).read_bytes(), key)
        assert checkpoint.size == end
        hash_at = hashes_from_tiles(end, lambda *tile: (tmp_path / Tile(*tile).path).read_bytes())
        receipt = Receipt(2, tuple(merkle.inclusion_proof(2, end, hash_at)), signed.decode())
        assert verify_receipt(receipt.text, entries[2], key, origin) == 2


def test_each_verifies_what_the_other_cosigns(aics: Any) -> None:
    private = Ed25519PrivateKey.generate()
    public, name, at_s = private.public_key().public_bytes_raw(), "witness.example/1", 1_795_000_000
    key = VerifierKey(name, public, COSIGNATURE)
    checkpoint = Checkpoint("log.example/vault", 7, bytes(range(32)))
    assert aics.cosignature_vkey(name, public).key_id == key.key_id
    ours = cosign(checkpoint, key, private.sign, at_s)
    content = (checkpoint.origin, checkpoint.size, checkpoint.root)
    assert aics.verify_cosignature(ours.signature, name, public, *content)
    assert not aics.verify_cosignature(ours.signature, name, public, *content[:2], bytes(32))
    blob, _ = aics.sign_cosignature(private, name, at_s, *content)
    assert blob == ours.signature
    note = f"{checkpoint.text}\n{NoteSignature(name, key.key_id, blob).line}"
    assert verify_cosignatures(note, checkpoint, [key]) == {name: at_s}
