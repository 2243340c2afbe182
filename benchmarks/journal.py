"""Forgetting in the journal: how long nobody may sequence while an erasure is taken out of a large one.

The same file is written anew twice: all of it while the lock is held, as an erasure did once, and copied before, with
only what came meanwhile under the lock.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import update

from vault.db import Database, migrate
from vault.proof.leaf import LeafKind, Opening
from vault.tlog import journal as journals
from vault.tlog import log
from vault.tlog.journal import Journal
from vault.tlog.log import Leaf, PendingId
from vault.tlog.models import log_entry

ORIGIN = "log.example/bench"
SIGNED_BYTES = 900  # of a withdrawal
BODY_BYTES = 300
CHUNK = 1_000


def fill(database: Database, journal: Journal, path: Path, mib: int) -> int:
    """Journal withdrawals until the file is that large; return how many."""
    count = 0
    body = b"x" * BODY_BYTES
    while not count or path.stat().st_size < mib << 20:
        leaves = []
        with database.transaction() as session:
            for _ in range(CHUNK):
                pending = log.append(session, LeafKind.CONSENT, {}, {})
                half = Opening(secrets.token_bytes(64), body)
                leaves.append(Leaf(pending.id, count, LeafKind.CONSENT, pending.entry, half, half))
                count += 1
        journal.append(leaves, {leaf.pending_id: b"s" * SIGNED_BYTES for leaf in leaves})
    return count


def forget(database: Database, journal: Journal, path: Path, name: int, *, copied_before: bool) -> dict[str, float]:
    """Erase one event and let the journal forget it; return seconds, of it those under the lock, and of CPU."""
    with database.transaction() as session:
        log.delete_personal_openings(session, [PendingId(name)])
        erasure = log.append(session, LeafKind.ERASURE, {}, {})
        session.connection().execute(update(log_entry).where(log_entry.c.id == erasure.id).values(leaf_index=name))
        journal.write(session, name, name)
    if not copied_before:
        path.with_name(f"{path.name}.due").write_bytes(bytes(24))  # as if nothing of the file were known to be whole
    locked: list[float] = []
    begun, cpu = time.perf_counter(), time.process_time()
    take = mock.Mock(side_effect=lambda _: locked.append(time.perf_counter()))
    with mock.patch.object(journals.tree, "lock", take):
        journal.forget_erased(database)
    ended = time.perf_counter()
    return {
        "s": round(ended - begun, 3), "under_lock_s": round(ended - locked[0], 4), "cpu_s": round(time.process_time() - cpu, 3),
    }  # fmt: skip


def measure(mib: int) -> dict[str, Any]:
    """Return what writing a journal of this size anew takes, both ways."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/log.sqlite")
        migrate(database)
        path = Path(folder) / "log.journal"
        journal = Journal(path, ORIGIN)
        journal.begin(0)
        count = fill(database, journal, path, mib)
        ways: dict[str, Any] = {}
        for run, (way, copied_before) in enumerate((("all_under_lock", False), ("copied_before", True)) * 2):
            found = forget(database, journal, path, run + 1, copied_before=copied_before)
            ways[way] = min(ways.get(way, found), found, key=lambda one: one["under_lock_s"])
        database.close()
    ratio = round(ways["all_under_lock"]["under_lock_s"] / ways["copied_before"]["under_lock_s"], 1)
    return {"mib": mib, "events": count, **ways, "lock_ratio": ratio}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a journal of 16 MiB")
    parser.add_argument("--mib", type=int, default=256, help="how large the journal is; 256 is its limit")
    arguments = parser.parse_args()
    found = measure(16 if arguments.quick else arguments.mib)
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
