"""Processes of one database wake each other at once, and what a dead one left behind is swept away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vault.db import Database
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.tlog import log, sequencer
from vault.tlog.bell import Bell
from vault.tlog.sequencer import Sequencer

WAIT_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault.sqlite.bell"


def opened(folder: Path | None) -> Bell:
    bell = Bell(folder)
    bell.open()
    return bell


def test_a_ring_is_heard_once_by_every_other(folder: Path) -> None:
    first, second, third = (opened(folder) for _ in range(3))
    for _ in range(3):
        first.ring_others()
        assert [bell.wait(0) for bell in (first, second, third)] == [False, True, True]
        for bell in (second, third):
            bell.clear()
            assert not bell.wait(0)
    for bell in (first, second, third):
        bell.close()
    assert list(folder.iterdir()) == []


def test_a_process_hears_itself_with_and_without_others(folder: Path) -> None:
    for bell in (opened(folder), opened(None)):
        bell.ring()
        bell.ring_others()
        assert bell.wait(0)
        bell.clear()
        assert not bell.wait(0)
        bell.close()
        bell.ring()  # nobody listens any more, and nothing breaks
        bell.ring_others()


def test_rings_that_nobody_clears_never_block(folder: Path) -> None:
    first, second = opened(folder), opened(folder)
    for _ in range(70_000):  # more than a pipe holds
        second.ring()
    first.ring_others()
    second.clear()
    assert not second.wait(0)
    first.ring_others()
    assert second.wait(0)
    first.close()
    second.close()


def test_the_pipe_of_a_killed_process_is_removed_by_who_rings_it(folder: Path) -> None:
    script = (
        "import os, signal, sys, pathlib; from vault.tlog.bell import Bell; b = Bell(pathlib.Path(sys.argv[1])); "
        "b.open(); print(flush=True); os.read(0, 1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    living = opened(folder)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        living.ring_others()
        assert len(list(folder.iterdir())) == 2
        child.stdin.write(b"x")
    assert child.returncode < 0
    living.ring_others()
    assert len(list(folder.iterdir())) == 1
    os.mkfifo(folder / "1-dead")  # of one that nobody rang while it lived
    living.ring_others()
    assert len(list(folder.iterdir())) == 1
    living.close()


def test_without_named_pipes_a_process_still_hears_itself(tmp_path: Path) -> None:
    (tmp_path / "bell").write_bytes(b"")  # a file where the folder should be
    bell = opened(tmp_path / "bell")
    bell.ring()
    assert bell.wait(0)
    bell.close()


def test_nobody_waits_for_the_poll(
    sqlite_database: Database,
    log_key: VerifierKey,
    sign: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sequencer, "IDLE_POLL_S", 3600.0)
    elected, other = (Sequencer(sqlite_database, log_key, sign) for _ in range(2))
    elected.start()
    other.start()
    for number, one in enumerate((other, elected, other, other, elected)):
        with sqlite_database.transaction() as session:
            pending = log.append(session, LeafKind.ANSWER, {"n": number}, {})
        assert one.wait(pending.id, WAIT_S) == number
    with sqlite_database.transaction() as session:  # sequenced before the other asks for it
        early, late = (log.append(session, LeafKind.ANSWER, {}, {}) for _ in range(2))
    assert elected.wait(late.id, WAIT_S) == 6
    assert other.wait(early.id, WAIT_S) == 5
    other.stop()
    elected.stop()


def test_with_every_bell_broken_the_poll_finds_what_waits(
    sqlite_database: Database,
    log_key: VerifierKey,
    sign: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Bell, "ring_others", lambda _bell: None)
    elected, other = (Sequencer(sqlite_database, log_key, sign) for _ in range(2))
    elected.start()
    other.start()
    with sqlite_database.transaction() as session:
        pending = log.append(session, LeafKind.ANSWER, {}, {})
    assert other.wait(pending.id, WAIT_S) == 0
    other.stop()
    elected.stop()
