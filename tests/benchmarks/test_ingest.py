"""The ingest benchmark: it counts as lost what was sent and is not stored, and nothing else."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from benchmarks import ingest
from vault.db import Database
from vault.store import shortkeys

_CALLS = 4  # two rounds, each of which sends its batches one by one and then as one group


@pytest.mark.parametrize("arriving", [_CALLS, _CALLS - 1])
def test_only_what_is_not_stored_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arriving: int) -> None:
    monkeypatch.setattr(ingest, "GROUP", 2)
    take, call = ingest.take_sealed, count()

    def interrupted(database: Database, sender: ingest.Sender, bodies: list[bytes]) -> int:
        return take(database, sender, bodies if next(call) < arriving else [])

    monkeypatch.setattr(ingest, "take_sealed", interrupted)
    sealed, plain, keys = (Database(f"sqlite:///{tmp_path / name}.sqlite") for name in ("sealed", "plain", "keys"))
    shortkeys.create_table(keys)
    found = ingest.compare(sealed, plain, keys, rounds=1, per_round=2)
    for database in (sealed, plain, keys):
        database.close()
    assert (found["lost"], found["errors"]) == (2 * (_CALLS - arriving), 0)
