"""The published folder is the log: complete at every checkpoint, unchanging, and readable without this code."""

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from vault.db import Database
from vault.proof import merkle
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.proof.tiles import Tile, hashes_from_tiles, parse_bundle
from vault.tlog import log
from vault.tlog.errors import LogDamaged
from vault.tlog.files import CHECKPOINT, LogFiles, grown_tiles
from vault.tlog.tree import grow


class Growing:
    """A log that grows only when told to, and its published folder."""

    def __init__(self, database: Database, key: VerifierKey, sign: Callable[[bytes], bytes], folder: Path) -> None:
        self.database, self.key, self.sign, self.folder = database, key, sign, folder
        self.files = LogFiles(folder, key)

    def to(self, size: int) -> None:
        with self.database.transaction() as session:
            before, _ = grow(session, self.key, self.sign, None)
            for n in range(before.size, size):
                log.append(session, LeafKind.ANSWER, {"n": n}, {})
        with self.database.transaction() as session:
            grow(session, self.key, self.sign, None)

    def publish(self) -> Checkpoint:
        with self.database.snapshot() as session:
            return self.files.publish(session)

    def recover(self) -> Checkpoint:
        with self.database.snapshot() as session:
            return self.files.recover(session)


@pytest.fixture
def growing(sqlite_database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes], tmp_path: Path) -> Growing:
    return Growing(sqlite_database, log_key, sign, tmp_path / "public")


def replay(read: Callable[[str], bytes], key: VerifierKey) -> Checkpoint:
    """Rebuild the root as a stranger does, from entries alone, and prove every leaf from the tiles."""
    checkpoint = verify_checkpoint(read(CHECKPOINT).decode(), key, key.name)
    edge = merkle.Edge()
    for index in range(-(-checkpoint.size // 256)):
        bundle = read(Tile(None, index, min(256, checkpoint.size - 256 * index)).path)
        edge = edge.extend(map(merkle.leaf_hash, parse_bundle(bundle)))
    assert edge.root == checkpoint.root
    hash_at = hashes_from_tiles(checkpoint.size, lambda *tile: read(Tile(*tile).path))
    for index in range(0, checkpoint.size, max(1, checkpoint.size // 17)):
        proof = merkle.inclusion_proof(index, checkpoint.size, hash_at)
        merkle.verify_inclusion(hash_at(0, index), index, checkpoint.size, proof, checkpoint.root)
    return checkpoint


@contextmanager
def static_host(folder: Path) -> Iterator[str]:
    """Serve a folder as the plainest file server does."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_every_published_checkpoint_can_be_replayed(growing: Growing) -> None:
    for size in (1, 2, 255, 256, 257, 700):
        growing.to(size)
        assert growing.publish().size == size
        assert replay(lambda path: (growing.folder / path).read_bytes(), growing.key).size == size
        assert growing.publish() == growing.recover()


def test_a_static_host_is_all_that_a_reader_needs(growing: Growing) -> None:
    growing.to(300)
    growing.publish()
    with static_host(growing.folder) as url, httpx.Client(base_url=url) as client:
        assert replay(lambda path: client.get(path).raise_for_status().content, growing.key).size == 300


def test_a_published_file_never_changes(growing: Growing) -> None:
    seen: dict[Path, bytes] = {}
    for size in (3, 200, 256, 300, 520):
        growing.to(size)
        growing.publish()
        files = {path: path.read_bytes() for path in growing.folder.rglob("*") if path.is_file()}
        files.pop(growing.folder / CHECKPOINT)
        for path, content in seen.items():
            kept = path if path in files else path.parent.with_suffix("")  # a full tile instead of a partial one
            assert files[kept].startswith(content)
        seen = files


def test_grown_tiles_are_exactly_what_is_new() -> None:
    for old, new in ((0, 1), (1, 255), (255, 256), (256, 257), (250, 70_000), (65_536, 65_537)):
        have, want = set(grown_tiles(0, old)), set(grown_tiles(0, new))
        assert set(grown_tiles(old, new)) == want - have


def test_a_missing_file_is_put_back_and_an_altered_one_is_named(growing: Growing) -> None:
    growing.to(600)
    growing.publish()
    tile, bundle = (growing.folder / Tile(level, 1).path for level in (0, None))
    tile.unlink()
    shutil.rmtree(growing.folder / "tile/1")
    growing.recover()
    replay(lambda path: (growing.folder / path).read_bytes(), growing.key)
    bundle.write_bytes(bundle.read_bytes()[:-1] + bytes([bundle.read_bytes()[-1] ^ 1]))
    with pytest.raises(LogDamaged, match="tile/entries/001"):
        growing.recover()


def test_a_crash_before_the_checkpoint_leaves_the_old_one_whole(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.to(250)
    growing.publish()
    growing.to(300)
    replace, left = Path.replace, iter(range(2))  # two files, then the disk is full

    def broken(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise OSError("no space left")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        growing.publish()
    monkeypatch.undo()
    assert replay(lambda path: (growing.folder / path).read_bytes(), growing.key).size == 250
    assert growing.publish().size == 300
    assert replay(lambda path: (growing.folder / path).read_bytes(), growing.key).size == 300


def test_another_tree_is_never_published_over_this_one(
    growing: Growing, postgresql_database: Database, sqlite_database: Database
) -> None:
    growing.to(20)
    growing.publish()
    other = Growing(postgresql_database, growing.key, growing.sign, growing.folder)
    other.to(30)  # the same key signs another tree
    with pytest.raises(LogDamaged, match="older or another"):
        other.publish()
    assert growing.publish().size == 20


def test_a_checkpoint_that_is_none_of_this_log_is_refused(growing: Growing) -> None:
    growing.to(5)
    growing.publish()
    for content in (b"", b"\xff", (growing.folder / CHECKPOINT).read_bytes().replace(b"\n5\n", b"\n6\n")):
        (growing.folder / CHECKPOINT).write_bytes(content)
        with pytest.raises(LogDamaged, match="published checkpoint"):
            growing.publish()
