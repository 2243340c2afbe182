"""What companies' requests, withdrawals and auditors look up is found by an index on both databases."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy


def test_every_look_up_uses_an_index(server: Any) -> None:
    queries = {
        "request_hash = :x AND company_id = 'a'": b"x",
        "user_code = :x AND state = 'shown'": "x",
        "code_hash = :x AND company_id = 'a'": b"x",
        "expires_at_s <= :x": 1,
        "vault_id = :x AND grant_id = 'a'": b"x",
    }
    tables = [("oauth_authorization", where, value) for where, value in queries.items()]
    tables += [("oauth_authorization", "company_id = :x AND state != 'redeemed'", "a")]
    tables += [("oauth_family", "family_id = :x", b"x"), ("oauth_family", "expires_at_s <= :x", 1)]
    tables += [("oauth_family", "consent_id IN (:x)", b"x"), ("oauth_family", "company_id = :x", "a")]
    tables += [("consent", "consent_id = :x", b"x"), ("spent", "digest IN (:x)", b"x")]
    tables += [("consent_version", "leaf_id IN (:x)", 1)]
    with server.database.snapshot() as session:
        if not server.database.is_sqlite:
            session.execute(sqlalchemy.text("SET LOCAL enable_seqscan = off"))  # empty tables are scanned otherwise
        explain = "EXPLAIN QUERY PLAN" if server.database.is_sqlite else "EXPLAIN"
        for table, where, value in tables:
            plan = session.execute(
                sqlalchemy.text(f"{explain} SELECT * FROM {table} WHERE {where}"), {"x": value}
            ).all()
            assert re.search(r"USING (COVERING )?INDEX|Index (Only )?Scan|Bitmap Index", repr(plan)), (
                table,
                where,
                plan,
            )
