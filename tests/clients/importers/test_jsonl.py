from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from twinvault.importers import UnknownFormat, open_import
from vault.encoding import dump_json
from vault.schema.category import Category
from vault.schema.trace import Action, Trace, dump_trace

TRACE = Trace("1", "till", datetime(2026, 1, 5, tzinfo=UTC), Category("pd:Purchase"), Action.BUY, "gpc:1")
LINE = dump_json(dump_trace(TRACE)) + b"\n"
ZONE = ZoneInfo("UTC")


def test_lines_are_read_and_bad_ones_counted(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    unknown = json.dumps({**json.loads(LINE), "category": "pd:Nonsense"}).encode() + b"\n"
    bad = [b"[]\n", b"{\n", b"\xff\n", b'{"id":1.5}\n', unknown, b'{"id":"1"}\n', b'{"x":"' + b"y" * 200_000 + b'"}\n']
    path.write_bytes(LINE + b"\n" + b"".join(bad) + LINE.rstrip())
    found = open_import(path, ZONE)
    assert list(found) == [TRACE, TRACE]
    assert found.format == "twinvault"
    assert (found.rows_read, found.rejected) == (2 + len(bad), len(bad))


def test_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"\0" * 100, b"a,b\n1,2\n", b'{"a":"b"}\n', b"\xff\xfe", b"household_id,quantity\n"):
        path.write_bytes(content)
        with pytest.raises(UnknownFormat, match="TwinVault reads"):
            open_import(path, ZONE)
    with pytest.raises(UnknownFormat, match="cannot be read"):
        open_import(tmp_path / "missing", ZONE)
    with pytest.raises(UnknownFormat, match="cannot be read"):
        open_import(tmp_path, ZONE)
