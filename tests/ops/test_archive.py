"""Backups are whole while the service writes, and nothing older or altered comes back unnoticed."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import text

from tests.site_kit import running_app
from vault.clock import SystemClock
from vault.ops import archive
from vault.ops.archive import BadBackup, InUse, back_up
from vault.ops.site import Site
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.tlog import log
from vault.tlog.tree import verify_tree


def live(site: Site, events: int) -> None:
    """Run the app for some events of the log."""
    with running_app(site) as client:
        database, sequencer = client.app.state.database, client.app.state.sequencer  # type: ignore[attr-defined]
        for n in range(events):
            with database.transaction() as session:
                pending = log.append(session, LeafKind.DENIAL, {"n": n}, {})
            sequencer.wait(pending.id, 20)


def restore(folder: Path, site: Site, *, replace: bool) -> int:
    restored = archive.restore(folder, site, replace=replace, now=SystemClock().now())
    assert restored.frozen == ""
    return restored.leaves


def size(site: Site) -> int:
    database, _ = site.databases()
    with database.snapshot() as session:
        head = verify_tree(session, site.log_key)
    database.close()
    assert head is not None
    return head.size


def test_a_backup_comes_back_as_it_was(site: Site, tmp_path: Path) -> None:
    live(site, 3)
    leaves = back_up(site, tmp_path / "backup")
    assert leaves == size(site)
    before = site.folder / "vault.sqlite"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{before}{suffix}").unlink(missing_ok=True)
    assert restore(tmp_path / "backup", site, replace=False) == leaves == size(site)
    live(site, 1)
    assert size(site) == leaves + 1


def test_a_backup_holds_no_short_key(site: Site, tmp_path: Path) -> None:
    secret = b"short key that must not be copied"
    _, short = site.databases()
    with short.transaction() as session:
        columns = [row[1] for row in session.connection().execute(text("PRAGMA table_info(short_key)"))]
        values = dict.fromkeys(columns, secret)
        session.connection().execute(
            text(f"INSERT INTO short_key ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)})"), values
        )
    short.close()
    back_up(site, tmp_path / "backup")
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["backup.json", "vault.sqlite"]
    assert not [path for path in (tmp_path / "backup").iterdir() if secret in path.read_bytes()]
    assert [path for path in site.folder.iterdir() if path.is_file() and secret in path.read_bytes()]


def test_a_backup_taken_while_the_service_writes_is_whole(site: Site, tmp_path: Path) -> None:
    stop = threading.Event()
    written: list[int] = []
    with running_app(site) as client:
        database, sequencer = client.app.state.database, client.app.state.sequencer  # type: ignore[attr-defined]

        def write() -> None:
            while not stop.is_set():
                with database.transaction() as session:
                    pending = log.append(session, LeafKind.DENIAL, {}, {})
                written.append(sequencer.wait(pending.id, 20))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            sizes = [back_up(site, tmp_path / f"backup{n}") for n in range(4)]
        finally:
            stop.set()
            writer.join()
    assert sizes == sorted(sizes)
    assert len(written) >= sizes[-1] - sizes[0] >= 0
    for number, leaves in enumerate(sizes):
        assert restore(tmp_path / f"backup{number}", site, replace=True) == leaves
        assert size(site) == leaves


@pytest.mark.parametrize("at", [0, 100, 5000, -1])
def test_an_altered_backup_is_refused(at: int, site: Site, tmp_path: Path) -> None:
    live(site, 1)
    back_up(site, tmp_path / "backup")
    before = size(site)
    copy = tmp_path / "backup/vault.sqlite"
    data = bytearray(copy.read_bytes())
    data[at] ^= 1
    copy.write_bytes(data)
    with pytest.raises(BadBackup, match="altered"):
        restore(tmp_path / "backup", site, replace=True)
    copy.write_bytes(bytes(data[:-4096]))
    with pytest.raises(BadBackup, match="altered"):
        restore(tmp_path / "backup", site, replace=True)
    assert size(site) == before


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"format":"twinvault-backup/2"}', b"[" * 5000])
def test_a_folder_that_is_no_backup_is_refused(record: bytes, site: Site, tmp_path: Path) -> None:
    back_up(site, tmp_path / "backup")
    (tmp_path / "backup/backup.json").write_bytes(record)
    with pytest.raises(BadBackup):
        restore(tmp_path / "backup", site, replace=True)
    with pytest.raises(BadBackup):
        restore(tmp_path, site, replace=True)


def test_a_backup_older_than_the_log_here_is_refused_unless_asked_for(
    site: Site, tmp_path: Path, run: Callable[..., Result]
) -> None:
    live(site, 1)
    older = back_up(site, tmp_path / "backup")
    live(site, 2)
    with pytest.raises(BadBackup, match="forks the log"):
        restore(tmp_path / "backup", site, replace=False)
    assert size(site) == older + 2
    result = run("restore", str(tmp_path / "backup"), "--replace", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told.pop("leaves"), told.pop("frozen")) == (0, older, "")
    assert not any(told.values())
    live(site, 1)  # starts: the anchor was taken away with the log that it named
    assert size(site) == older + 1


def test_a_lost_database_does_not_let_an_older_log_in(site: Site, tmp_path: Path) -> None:
    live(site, 1)
    back_up(site, tmp_path / "backup")
    live(site, 2)
    for suffix in ("", "-wal", "-shm"):
        (site.folder / f"vault.sqlite{suffix}").unlink(missing_ok=True)
    with pytest.raises(BadBackup, match="forks the log"):
        restore(tmp_path / "backup", site, replace=False)


def test_an_older_file_copied_by_hand_starts_frozen(site: Site, tmp_path: Path) -> None:
    live(site, 1)
    back_up(site, tmp_path / "backup")
    live(site, 2)
    for suffix in ("-wal", "-shm"):
        (site.folder / f"vault.sqlite{suffix}").unlink(missing_ok=True)
    (site.folder / "vault.sqlite").write_bytes((tmp_path / "backup/vault.sqlite").read_bytes())
    with running_app(site) as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-damaged")
    assert "restore --replace" in answer.json()["detail"]


def test_a_running_service_keeps_its_database(site: Site, tmp_path: Path) -> None:
    """Its processes would go on writing, and acknowledging, into a file that nobody finds again."""
    live(site, 1)
    back_up(site, tmp_path / "backup")
    with running_app(site) as client:
        database, sequencer = client.app.state.database, client.app.state.sequencer  # type: ignore[attr-defined]
        with pytest.raises(InUse, match="Stop app and worker"):
            restore(tmp_path / "backup", site, replace=True)
        with database.transaction() as session:
            pending = log.append(session, LeafKind.DENIAL, {}, {})
        index = sequencer.wait(pending.id, 20)
    assert size(site) == index + 1
    restore(tmp_path / "backup", site, replace=True)


@pytest.mark.parametrize("damage", [b"", b"no database at all", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_database_is_replaced(damage: bytes, site: Site, tmp_path: Path) -> None:
    live(site, 1)
    leaves = back_up(site, tmp_path / "backup")
    (site.folder / "vault.sqlite").write_bytes(damage)
    (site.folder / "vault.sqlite-wal").write_bytes(damage)
    assert restore(tmp_path / "backup", site, replace=True) == leaves == size(site)


def test_a_restore_that_has_no_room_changes_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(site, 1)
    back_up(site, tmp_path / "backup")
    live(site, 1)
    before = size(site)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        restore(tmp_path / "backup", site, replace=True)
    assert size(site) == before
    live(site, 1)
    assert size(site) == before + 1


def test_a_backup_never_overwrites_one(site: Site, tmp_path: Path) -> None:
    back_up(site, tmp_path / "backup")
    with pytest.raises(BadBackup, match="never overwrites"):
        back_up(site, tmp_path / "backup")


def test_published_files_of_a_lost_log_are_kept_beside_the_new_ones(site: Site, tmp_path: Path) -> None:
    live(site, 1)
    back_up(site, tmp_path / "backup")
    live(site, 2)
    files = site.log_files
    assert files is not None
    live(site, 1)  # its start publishes what there is
    lost = files.published()
    assert lost is not None
    restore(tmp_path / "backup", site, replace=True)
    assert files.published() is None
    live(site, 1)
    live(site, 1)
    assert files.published() != lost
    [kept] = site.folder.glob("public-log.*")
    assert verify_checkpoint((kept / "checkpoint").read_text(), site.log_key, site.log_key.name) == lost
