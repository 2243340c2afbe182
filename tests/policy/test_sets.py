"""Policy sets are kept for ever under their hash, logged once, and never change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.leaves import leaves
from vault.db import Database
from vault.encoding import b64u
from vault.http.problems import install_problems
from vault.policy import sets
from vault.policy.routes import policy_router
from vault.policy.sets import UnknownPolicySet
from vault.proof.decision import load_shipped_policy_set, parse_policy_set

RULES = load_shipped_policy_set()


def publish(database: Database) -> bool:
    with database.transaction() as session:
        return sets.publish(session, RULES) is not None


def test_a_set_is_published_once_by_whichever_process_comes_first(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: publish(database), range(8))) == 1
    with database.snapshot() as session:
        assert parse_policy_set(sets.get(session, RULES.sha256)).sha256 == RULES.sha256
        logged = [public for kind, public, _ in leaves(session) if kind == "policy-set"]
        with pytest.raises(UnknownPolicySet):
            sets.get(session, b"x" * 32)
    assert [public["policy_set"] for public in logged] == [b64u(RULES.sha256)]


@pytest.mark.parametrize("statement", ["UPDATE policy_set SET source = sha256", "DELETE FROM policy_set"])
def test_a_published_set_is_immutable_in_the_database(database: Database, statement: str) -> None:
    publish(database)
    with pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
        session.connection().execute(sqlalchemy.text(statement))


def test_anyone_fetches_a_set_by_its_hash(sqlite_database: Database) -> None:
    publish(sqlite_database)
    app = FastAPI()
    install_problems(app)
    app.state.database = sqlite_database
    app.include_router(policy_router)
    client = TestClient(app)
    assert client.get(f"/v1/policies/{b64u(RULES.sha256)}").content == RULES.source
    assert client.get(f"/v1/policies/{b64u(b'x' * 32)}").status_code == 404
    assert client.get("/v1/policies/zz").status_code == 400
