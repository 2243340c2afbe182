"""The database edge: commits last, failures leave nothing, times keep their zone."""

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from sqlmodel import Session

import vault.connections
import vault.db
from vault.db import Database, DatabaseBusy, Prepared, UtcDateTime
from vault.driver import Named


def _table(database: Database) -> None:
    with database.transaction() as session:
        session.exec(sqlalchemy.text("CREATE TABLE counter (n INTEGER)"))
        session.exec(sqlalchemy.text("INSERT INTO counter VALUES (0)"))


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    _table(database)
    with pytest.raises(RuntimeError), database.transaction() as session:
        session.exec(sqlalchemy.text("UPDATE counter SET n = 7"))
        raise RuntimeError
    with database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0


def test_concurrent_writers_lose_no_update(database: Database) -> None:
    _table(database)

    def add() -> None:
        for _ in range(20):
            with database.transaction() as session:
                session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 120


def test_a_snapshot_does_not_wait_for_a_writer(database: Database) -> None:
    _table(database)
    with database.transaction() as writer:
        writer.exec(sqlalchemy.text("UPDATE counter SET n = 9"))
        with database.snapshot() as reader:
            assert reader.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0


def test_times_come_back_aware_and_naive_ones_are_refused(database: Database) -> None:
    kind = UtcDateTime()
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert kind.process_result_value(at.replace(tzinfo=None), database.engine.dialect) == at
    with pytest.raises(ValueError, match="zone"):
        kind.process_bind_param(at.replace(tzinfo=None), database.engine.dialect)


def _flushes(session: Session) -> bool:
    """Say whether the transaction's commit waits for the disk."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        return connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
    return connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@pytest.mark.parametrize("kept", [0, 4])
def test_a_commit_waits_for_the_disk_unless_told_otherwise(
    kept: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections carry settings along: nothing that one transaction did may change the next one's."""
    monkeypatch.setattr(vault.connections, "_KEPT", kept)
    _table(database)
    for durable in (True, False, True, False, False, True):
        with database.transaction(durable=durable) as session:
            assert _flushes(session) is durable
        with database.snapshot() as session:
            session.exec(sqlalchemy.text("SELECT n FROM counter"))
        with pytest.raises(RuntimeError), database.transaction(durable=not durable) as session:
            session.exec(sqlalchemy.text("UPDATE counter SET n = 7"))
            assert _flushes(session) is not durable
            raise RuntimeError
        with database.transaction() as session:
            assert _flushes(session)


def test_more_transactions_than_are_kept_ready_give_their_connections_back(database: Database) -> None:
    _table(database)
    pool = database.engine.pool
    assert isinstance(pool, sqlalchemy.pool.QueuePool)
    for _ in range(2):
        with ExitStack() as open_ones:
            sessions = [open_ones.enter_context(database.snapshot()) for _ in range(7)]
            assert len({id(session.connection()) for session in sessions}) == 7
        with database.transaction():
            assert pool.checkedout() == 4 + 1  # snapshots', and a writer's
    database.close()
    assert pool.checkedout() == 0


def test_a_session_ends_with_its_transaction(database: Database) -> None:
    _table(database)
    kept = []
    for opened in (database.transaction, database.snapshot):
        with opened() as session:
            session.exec(sqlalchemy.text("SELECT n FROM counter"))
            kept.append(session)
        with opened(), pytest.raises(RuntimeError, match="over"):
            kept[-1].connection()
        with opened(), pytest.raises(sqlalchemy.exc.UnboundExecutionError):
            kept[-1].exec(sqlalchemy.text("UPDATE counter SET n = 7"))


def test_when_the_server_cuts_everybody_off_each_kind_of_transaction_fails_once(postgresql_database: Database) -> None:
    _table(postgresql_database)

    def read() -> None:
        with postgresql_database.snapshot() as session:
            session.exec(sqlalchemy.text("SELECT n FROM counter"))

    with ExitStack() as open_ones:
        for _ in range(3):
            open_ones.enter_context(postgresql_database.snapshot())
    server = sqlalchemy.create_engine(postgresql_database.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        ended = sqlalchemy.text("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = :name")
        connection.execute(ended, {"name": postgresql_database.url.database})
    server.dispose()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        read()
    for _ in range(4):
        read()


def test_a_transaction_of_which_a_statement_failed_does_not_end_well(postgresql_database: Database) -> None:
    _table(postgresql_database)
    with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="rolled back"):  # noqa: SIM117  the commit raises
        with postgresql_database.transaction() as session:
            session.exec(sqlalchemy.text("UPDATE counter SET n = 7"))
            with suppress(sqlalchemy.exc.ProgrammingError):
                session.exec(sqlalchemy.text("SELECT 1 FROM missing"))
    with postgresql_database.transaction() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0


def test_a_transaction_that_somebody_rolled_back_within_does_not_end_well(database: Database) -> None:
    """Kept connections end their transactions by themselves: what SQLAlchemy ended meanwhile must not look committed."""
    _table(database)
    for _ in range(2):
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="rolled back within"):  # noqa: SIM117
            with database.transaction() as session:
                session.exec(sqlalchemy.text("UPDATE counter SET n = 7"))
                session.rollback()
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="rolled back within"):  # noqa: SIM117
            with database.transaction() as session:
                session.exec(sqlalchemy.text("UPDATE counter SET n = 8"))
                session.rollback()
                session.exec(sqlalchemy.text("UPDATE counter SET n = 9"))
        with database.transaction() as session:
            assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 0
        with database.snapshot() as session:
            session.exec(sqlalchemy.text("SELECT n FROM counter"))
            session.rollback()


def test_a_named_statement_outlives_refusals_and_names_no_value(postgresql_database: Database) -> None:
    with postgresql_database.transaction() as session:
        session.exec(sqlalchemy.text("CREATE TABLE said (n BIGINT, body BYTEA UNIQUE, word TEXT)"))
    say = Named("INSERT INTO said VALUES (length($1::text), $2, $1) RETURNING n")
    for n, (word, body) in enumerate([("a", b"\0\xff"), ("añb", None), ("", b"")]):
        with postgresql_database.transaction() as session:
            assert say.one(session, word, body) == str(len(word)).encode()
            assert say.one(session, word, b"%d" % n) == str(len(word)).encode()
        with pytest.raises(sqlalchemy.exc.IntegrityError) as found, postgresql_database.transaction() as session:
            say.one(session, "a secret", b"%d" % n)
        assert "a secret" not in str(found.value)
    with postgresql_database.snapshot() as session:
        kept = session.exec(sqlalchemy.text("SELECT word, body FROM said ORDER BY word, body")).all()
    assert {(row.word, row.body) for row in kept} >= {("a", b"\0\xff"), ("añb", None), ("", b"")}
    assert len(kept) == 6


def test_more_writers_than_are_let_in_all_get_their_turn(postgresql_database: Database) -> None:
    _table(postgresql_database)
    waiting = threading.Barrier(21)

    def add() -> None:
        waiting.wait()
        with postgresql_database.transaction() as session:
            session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))

    threads = [threading.Thread(target=add) for _ in range(20)]
    for thread in threads:
        thread.start()
    with postgresql_database.transaction() as session:  # all of them wait for this row, or for their turn
        session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))
        waiting.wait()
    for thread in threads:
        thread.join()
    with postgresql_database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 21


def test_writers_of_two_processes_take_turns(sqlite_database: Database) -> None:
    _table(sqlite_database)
    script = (
        "import sys, sqlalchemy; from vault.db import Database; database = Database(sys.argv[1])\n"
        "for _ in range(30):\n"
        "    with database.transaction() as session:\n"
        "        session.exec(sqlalchemy.text('UPDATE counter SET n = n + 1'))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(sqlite_database.url)]) for _ in range(2)]
    for _ in range(30):
        with sqlite_database.transaction() as session:
            session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))
    assert [child.wait(60) for child in children] == [0, 0]
    with sqlite_database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 90


def test_a_killed_process_gives_its_turn_back(sqlite_database: Database) -> None:
    _table(sqlite_database)
    script = (
        "import sys, sqlalchemy; from vault.db import Database; database = Database(sys.argv[1])\n"
        "with database.transaction() as session:\n"
        "    session.exec(sqlalchemy.text('UPDATE counter SET n = 7'))\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(sqlite_database.url)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
    with sqlite_database.transaction() as session:
        session.exec(sqlalchemy.text("UPDATE counter SET n = n + 1"))
    with sqlite_database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 1


def test_nobody_waits_for_ever_behind_one_who_waits_for_a_stopped_writer(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _table(sqlite_database)
    script = (
        "import sys, sqlalchemy; from vault.db import Database; database = Database(sys.argv[1])\n"
        "with database.transaction() as session:\n"
        "    session.exec(sqlalchemy.text('UPDATE counter SET n = n + 1'))\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )

    def add() -> None:
        with sqlite_database.transaction() as session:
            session.exec(sqlalchemy.text("UPDATE counter SET n = n + 10"))

    monkeypatch.setattr(vault.db, "_BUSY_TIMEOUT_S", 0.3)
    with (
        ThreadPoolExecutor(2) as threads,
        subprocess.Popen(
            [sys.executable, "-c", script, str(sqlite_database.url)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        done, waiting = wait([threads.submit(add) for _ in range(2)], 30, FIRST_COMPLETED)
        monkeypatch.setattr(vault.db, "_BUSY_TIMEOUT_S", 60)
        child.send_signal(signal.SIGCONT)
    assert [getattr(one.exception(), "status", None) for one in done] == [503]
    assert [one.exception() for one in waiting] == [None]
    add()  # the one who was refused is owed no turn
    with sqlite_database.snapshot() as session:
        assert session.exec(sqlalchemy.text("SELECT n FROM counter")).scalar_one() == 21


def test_who_takes_no_turns_is_waited_for_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault.db, "_BUSY_TIMEOUT_S", 0.1)
    database = Database(f"sqlite:///{tmp_path / 'other.sqlite'}")
    _table(database)
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy), database.transaction():
            pass
    with database.transaction() as session:
        session.exec(sqlalchemy.text("UPDATE counter SET n = 1"))
    database.close()


def test_an_error_of_the_driver_is_one_of_sqlalchemy_and_names_no_value(database: Database) -> None:
    prepared = Prepared(sqlalchemy.text("SELECT :secret FROM missing").columns(n=sqlalchemy.Integer))
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as found, database.snapshot() as session:
        prepared.one(session, secret="a key")
    assert "missing" in str(found.value)
    assert "a key" not in str(found.value)


def test_a_prepared_statement_reads_and_writes_what_its_core_statement_does(database: Database) -> None:
    kinds = sqlalchemy.Table(
        "kinds",
        sqlalchemy.MetaData(),
        sqlalchemy.Column("name", sqlalchemy.String, primary_key=True),
        sqlalchemy.Column("body", sqlalchemy.LargeBinary),
        sqlalchemy.Column("live", sqlalchemy.Boolean),
        sqlalchemy.Column("at", UtcDateTime),
        sqlalchemy.Column("used", sqlalchemy.Integer),
    )
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    with database.transaction() as session:
        kinds.create(session.connection())
        rows = [{"name": name, "body": b"\0\xff", "live": name == "a", "at": at, "used": 1} for name in ("a", "b")]
        session.connection().execute(kinds.insert(), rows)
    named = sqlalchemy.select(kinds).where(kinds.c.name == sqlalchemy.bindparam("wanted"))
    of_core = sqlalchemy.update(kinds).where(kinds.c.name == sqlalchemy.bindparam("wanted"), kinds.c.live)
    find, every = Prepared(named), Prepared(sqlalchemy.select(kinds).order_by(kinds.c.name))
    use = Prepared(of_core.values(used=kinds.c.used + 1).returning(kinds.c.used.label("now_used")))
    spoil = Prepared(of_core.values(body=None))
    with database.transaction() as session:
        assert use.one(session, wanted="a").now_used == 2
        assert use.one(session, wanted="b") is None
        assert find.one(session, wanted="c") is None
        for name in ("a", "b"):
            assert find.one(session, wanted=name) == tuple(session.connection().execute(named, {"wanted": name}).one())
        assert [row.name for row in every.all(session)] == ["a", "b"]
        assert (spoil.run(session, wanted="a"), spoil.run(session, wanted="b")) == (1, 0)
        assert find.one(session, wanted="a").body is None
    with pytest.raises(KeyError if database.is_sqlite else Exception), database.snapshot() as session:
        find.one(session)  # a value is missing


def test_whoever_watches_statements_sees_prepared_ones(database: Database) -> None:
    _table(database)
    seen: list[str] = []
    sqlalchemy.event.listen(
        database.engine, "before_cursor_execute", lambda _conn, _cursor, statement, *_rest: seen.append(statement)
    )
    with database.snapshot() as session:
        assert Prepared(sqlalchemy.text("SELECT n FROM counter").columns(n=sqlalchemy.Integer)).one(session) == (0,)
    assert "SELECT n FROM counter" in seen
