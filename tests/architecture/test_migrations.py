"""Migrations make the schema that the models describe, on both databases, and can be taken back."""

from __future__ import annotations

import ast
import importlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import alembic.command
import alembic.config
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from tests.conftest import execute
from vault.db import Database, migrate

ROOT = Path(__file__).parents[2]
VERSIONS = sorted(ROOT.glob("migrations/versions/*.py"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
        yield database
        database.close()
        return
    server = request.getfixturevalue("postgresql_server")
    name = f"empty_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE template0")
    database = Database(server.set(database=name).render_as_string(hide_password=False))
    yield database
    database.close()
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def downgrade(database: Database, revision: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, revision)
        connection.commit()


def schema(database: Database) -> dict[str, object]:
    """Return every table with its columns, keys and indexes, as the database tells them."""
    inspector = sqlalchemy.inspect(database.engine)
    # Of all tables at once: five queries a table, after each step of each version, were most of the time here.
    columns, keys = inspector.get_multi_columns(), inspector.get_multi_pk_constraint()
    foreign, unique = inspector.get_multi_foreign_keys(), inspector.get_multi_unique_constraints()
    indexes = inspector.get_multi_indexes()
    return {
        table[1]: (
            [(column["name"], repr(column["type"]), column["nullable"]) for column in columns[table]],
            keys[table],
            sorted(map(repr, foreign[table])),
            sorted(map(repr, unique[table])),
            sorted(
                (index["name"], index["column_names"], index["unique"], [*map(str, index["dialect_options"].values())])
                for index in indexes[table]
            ),
        )
        for table in columns
        if table[1] != "alembic_version"
    }


def triggers(database: Database) -> int:
    query = (
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
        if database.is_sqlite
        else "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    )
    with database.snapshot() as session:
        found = session.connection().exec_driver_sql(query).scalar_one()
    assert isinstance(found, int)
    return found


def test_up_down_and_up_again_gives_the_same_schema(empty_database: Database) -> None:
    migrate(empty_database)
    first, guards = schema(empty_database), triggers(empty_database)
    assert first
    assert guards, "the ledger is append-only by trigger"
    downgrade(empty_database, "base")
    assert schema(empty_database) == {}
    assert triggers(empty_database) == 0
    migrate(empty_database)
    assert (schema(empty_database), triggers(empty_database)) == (first, guards)
    migrate(empty_database)  # safe to run again


def test_each_step_can_be_taken_back(empty_database: Database) -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    steps = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    assert len(steps) == len(VERSIONS), "one line of revisions, none beside it"
    for before, after in zip(["base", *steps], steps, strict=False):
        state = schema(empty_database)
        migrate(empty_database, after)
        downgrade(empty_database, before)
        assert schema(empty_database) == state, after
        migrate(empty_database, after)


def test_the_migrated_schema_is_the_one_the_models_describe(empty_database: Database) -> None:
    for path in sorted(ROOT.glob("vault/*/models.py")):
        importlib.import_module(f"vault.{path.parent.name}.models")
    migrate(empty_database)
    with empty_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_who_was_here_before_days_could_close_together_goes_on_by_days(empty_database: Database) -> None:
    migrate(empty_database, "12_legacy")
    values = {
        "vault_id": bytes(16), "owner_key": b"k", "former_owner_keys": b"", "next_owner_key_hash": b"n",
        "identity_digest": b"i", "time_zone": "UTC", "created_at": "2026-11-01 00:00:00", "state": "active",
        "minor": False, "guardian_ok": False, "deceased": False, "sequence": 0, "sandbox": False,
    }  # fmt: skip
    names = ", ".join(values)
    with empty_database.transaction() as session:
        insert = f"INSERT INTO person ({names}) VALUES ({', '.join(f':{name}' for name in values)})"
        session.connection().execute(sqlalchemy.text(insert), values)
    migrate(empty_database)
    with empty_database.snapshot() as session:
        found = session.connection().execute(sqlalchemy.text("SELECT freshness, time_zone FROM person")).all()
    assert [tuple(row) for row in found] == [("day", "UTC")]


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_a_version_depends_on_no_code_that_changes_later(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"sqlalchemy", "alembic", *sys.stdlib_module_names}
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"upgrade", "downgrade"} <= functions.keys()
    undone = [isinstance(functions[name].body[-1], ast.Pass | ast.Raise) for name in ("upgrade", "downgrade")]
    assert undone in ([False, False], [True, True]), "what is done can be taken back"
