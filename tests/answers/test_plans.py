"""Every look-up on the way to an answer or a denial goes through an index, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def test_no_look_up_of_an_answer_reads_a_whole_table(service: Service) -> None:
    granted, ended = service.consent(), service.consent()
    service.withdraw(ended)
    repeated = new_id()
    with noting(service.database) as statements:
        for _ in range(2):
            assert service.ask(granted, question_id=repeated).status_code == 200
        assert slug_of(service.ask(ended)) == "consent-not-active"
        assert slug_of(service.ask(new_id())) == "not-permitted"
    looked_up = {
        statement: parameters
        for statement, parameters in statements.items()
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")) and not _LEFT_OUT.search(statement)
    }
    tables = {table for statement in looked_up for table in re.findall(r"(?:FROM|JOIN|UPDATE) \"?(\w+)", statement)}
    assert {"consent", "consent_version", "handover", "person", "company", "answer", "imprint_row"} <= tables
    plans = {s: plan(service.database, s, parameters) for s, parameters in looked_up.items()}
    whole = {s: found for s, found in plans.items() if "Seq Scan" in found or re.search(r"SCAN (?!CONSTANT)", found)}
    assert whole == {}


def test_the_plan_of_a_look_up_without_an_index_would_be_noticed(service: Service) -> None:
    found = plan(service.database, "SELECT consent_id FROM consent WHERE quota_used = 3", ())
    assert "Seq Scan" in found or "SCAN consent" in found
