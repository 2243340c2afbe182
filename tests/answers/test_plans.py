"""Every look-up on the way to an answer or a denial goes through an index, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy

from tests.answer_kit import Service, slug_of
from vault.db import Database
from vault.seal.ids import new_id

# The log has tests of its own; the operator's few statements about keys are all wanted, once for an opened handover.
_LEFT_OUT = re.compile(r"\b(log_\w+|sqlite_master|key_statement)\b")


@contextmanager
def noting(database: Database) -> Iterator[dict[str, Any]]:
    """Collect every statement with the parameters of its last use."""
    found: dict[str, Any] = {}

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        found[statement] = parameters

    sqlalchemy.event.listen(database.engine, "before_cursor_execute", note)
    yield found
    sqlalchemy.event.remove(database.engine, "before_cursor_execute", note)


def plan(database: Database, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    with database.snapshot() as session:
        if not database.is_sqlite:  # a table of five rows is read whole even where an index fits
            session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
        return " | ".join(
            str(tuple(row)) for row in session.connection().exec_driver_sql(explain + statement, parameters)
        )


def effort(database: Database, statement: str, parameters: Any) -> int:
    """Count the steps of SQLite's machine, or the rows that PostgreSQL looks at."""
    with database.snapshot() as session:
        connection = session.connection()
        if database.is_sqlite:
            return _steps(connection.connection.driver_connection, statement, parameters)
        connection.exec_driver_sql("ANALYZE")  # as PostgreSQL does by itself in time
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # a small table is read whole
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
        return _rows(explained[0]["Plan"])


def _steps(connection: Any, statement: str, parameters: Any) -> int:
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1

    connection.set_progress_handler(step, 1)
    try:
        connection.execute(statement, parameters).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
    return taken


def _rows(node: Mapping[str, Any]) -> int:
    met = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return round(met * node["Actual Loops"]) + sum(_rows(below) for below in node.get("Plans", ()))


def looked_up(service: Service) -> dict[str, Any]:
    """Ask in every way that there is; return the statements that look something up, with their parameters."""
    granted, ended = service.consent(), service.consent()
    service.withdraw(ended)
    repeated = new_id()
    with noting(service.database) as statements:
        for _ in range(2):
            assert service.ask(granted, question_id=repeated).status_code == 200
        assert slug_of(service.ask(ended)) == "consent-not-active"
        assert slug_of(service.ask(new_id())) == "not-permitted"
    return {
        statement: parameters
        for statement, parameters in statements.items()
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")) and not _LEFT_OUT.search(statement)
    }


def test_no_look_up_of_an_answer_reads_a_whole_table(service: Service) -> None:
    statements = looked_up(service)
    tables = {table for statement in statements for table in re.findall(r"(?:FROM|JOIN|UPDATE) \"?(\w+)", statement)}
    assert {"consent", "consent_version", "handover", "person", "company", "answer", "imprint_row"} <= tables
    plans = {s: plan(service.database, s, parameters) for s, parameters in statements.items()}
    whole = {s: found for s, found in plans.items() if "Seq Scan" in found or re.search(r"SCAN (?!CONSTANT)", found)}
    assert whole == {}


def test_a_look_up_takes_no_longer_where_there_are_more_consents_and_answers(service: Service) -> None:
    # An index is not enough: one over what half of all rows have in common finds half of all rows.
    statements = {s: p for s, p in looked_up(service).items() if s.lstrip().startswith(("SELECT", "WITH"))}
    before = {s: effort(service.database, s, parameters) for s, parameters in statements.items()}
    for _ in range(30):
        assert service.ask(service.consent()).status_code == 200
    after = {s: effort(service.database, s, parameters) for s, parameters in statements.items()}
    assert {s: (before[s], after[s]) for s in statements if after[s] > before[s] + 12} == {}


def test_the_plan_of_a_look_up_without_an_index_would_be_noticed(service: Service) -> None:
    found = plan(service.database, "SELECT consent_id FROM consent WHERE quota_used = 3", ())
    assert "Seq Scan" in found or "SCAN consent" in found
