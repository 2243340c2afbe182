from __future__ import annotations

import base64
import gzip
import zlib
from pathlib import Path

import pytest
import zstandard

from twinvault.demo import scan
from twinvault.demo.scan import find_in, find_in_files, forms, size_bytes

CANARY = "canary Kanarienvogel 7f3a"


@pytest.mark.parametrize("shift", range(7))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_every_form_is_found_at_every_alignment(encoding: str, shift: int) -> None:
    raw = b"\xfaxyzuvw"[:shift] + CANARY.encode(encoding) + b"\xfb after"
    noise = bytes(range(256))
    for written in (
        raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(raw),
    ):  # fmt: skip
        assert find_in(noise + written + noise, CANARY)
        for packed in (zstandard.compress(written), gzip.compress(written), zlib.compress(written)):
            assert find_in(noise + packed + noise, CANARY)
    assert find_in(zstandard.compress(base64.b64encode(zstandard.compress(b"x") + raw)), CANARY)


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_in(bytes(range(256)) * 50 + CANARY[:-1].encode() + zstandard.compress(b"other text"), CANARY) == []
    assert all(len(needle) >= 12 for needle in forms(CANARY).values())
    with pytest.raises(ValueError, match="12"):
        forms("short")


def test_files_and_folders_are_searched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.txt").write_text(f"seen {CANARY}")
    (tmp_path / "b.bin").write_bytes(b"nothing")
    assert list(find_in_files([tmp_path], CANARY)) == [tmp_path / "a" / "log.txt"]
    assert find_in_files([tmp_path / "b.bin"], CANARY) == {}


def test_a_file_that_a_running_service_replaces_meanwhile_neither_ends_the_search_nor_escapes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"read first")
    (tmp_path / "log.anchor.7").write_text(CANARY)
    (tmp_path / "tile").mkdir()
    (tmp_path / "tile" / "1.p").write_bytes(b"removed")

    def meanwhile(data: bytes, canary: str) -> list[str]:
        if data == b"read first":
            (tmp_path / "log.anchor.7").replace(tmp_path / "log.anchor")
            (tmp_path / "tile" / "1.p").unlink()
            (tmp_path / "tile").rmdir()
        return find_in(data, canary)

    monkeypatch.setattr(scan, "find_in", meanwhile)
    assert list(find_in_files([tmp_path], CANARY)) == [tmp_path / "log.anchor"]
    assert size_bytes([tmp_path, tmp_path / "gone"]) == len("read first") + len(CANARY)
