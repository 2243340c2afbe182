"""Policy sets are kept for ever under their hash, logged once, and never change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.leaves import leaves
from vault.db import Database
from vault.encoding import b64u, parse_json
from vault.http.problems import install_problems
from vault.policy import sets
from vault.policy.routes import policy_router
from vault.policy.sets import NotSuccessor, UnknownPolicySet
from vault.proof.decision import PolicySet, load_policy_set, load_shipped_policy_set, parse_policy_set

RULES = load_shipped_policy_set()
TEXTS: Any = parse_json(RULES.source)


def successor(before: PolicySet, comment: str = "", version: int | None = None) -> PolicySet:
    """Return the shipped rules with a comment, as the version after another set."""
    texts = TEXTS["policies"] | {"more.cedar": f"// {comment}\n"}
    version = before.version + 1 if version is None else version
    return load_policy_set(texts, TEXTS["schema"], version=version, predecessor=before.sha256)


def publish(database: Database, rules: PolicySet = RULES) -> bool:
    with database.transaction() as session:
        return sets.publish(session, rules) is not None


def chosen(database: Database) -> PolicySet:
    with database.snapshot() as session:
        return sets.choose(session)


def test_a_set_is_published_once_by_whichever_process_comes_first(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: publish(database), range(8))) == 1
    with database.snapshot() as session:
        assert parse_policy_set(sets.get(session, RULES.sha256)).sha256 == RULES.sha256
        logged = [public for kind, public, _ in leaves(session) if kind == "policy-set"]
        with pytest.raises(UnknownPolicySet):
            sets.get(session, b"x" * 32)
    assert [public["policy_set"] for public in logged] == [b64u(RULES.sha256)]
    assert [(public["version"], public["predecessor"]) for public in logged] == [
        (RULES.version, b64u(RULES.predecessor))
    ]


def test_a_process_that_starts_takes_the_newest_set_and_replays_the_older_ones(database: Database) -> None:
    assert chosen(database).sha256 == RULES.sha256, "what the release ships, while nothing is published"
    publish(database)
    second = successor(RULES, "ours")
    third = successor(second, "ours too")
    assert publish(database, second)
    assert publish(database, third)
    assert chosen(database).sha256 == third.sha256, "never replaced by what a release ships"
    assert not publish(database, second), "published before: nothing happens, and the newest stays"
    assert chosen(database).sha256 == third.sha256
    with database.snapshot() as session:
        assert {sets.get(session, rules.sha256) for rules in (RULES, second, third)} == {
            RULES.source,
            second.source,
            third.source,
        }


def test_a_release_whose_rules_follow_the_newest_ones_brings_them(database: Database) -> None:
    former = load_policy_set(TEXTS["policies"], TEXTS["schema"])
    shipped = successor(former)
    publish(database, former)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "load_shipped_policy_set", lambda: shipped)
        assert chosen(database).sha256 == shipped.sha256
        publish(database, successor(former, "the operator's own"))
        assert chosen(database).source.count(b"the operator's own") == 1


@pytest.mark.parametrize(
    "other",
    [
        successor(RULES, "another text", RULES.version),
        successor(RULES, "a gap", RULES.version + 2),
        successor(successor(RULES), "another predecessor", RULES.version + 1),
        load_policy_set(TEXTS["policies"], TEXTS["schema"]),
    ],
    ids=["used version", "gap", "predecessor", "older"],
)
def test_a_set_that_does_not_follow_the_newest_is_refused(database: Database, other: PolicySet) -> None:
    publish(database)
    with pytest.raises(NotSuccessor, match=f"needs version {RULES.version + 1}"):
        publish(database, other)
    assert chosen(database).sha256 == RULES.sha256


def test_of_two_sets_published_at_once_one_is_refused(database: Database) -> None:
    publish(database)
    rivals = [successor(RULES, str(number)) for number in range(6)]

    def outcome(rules: PolicySet) -> str:
        try:
            return "published" if publish(database, rules) else "kept"
        except NotSuccessor:
            return "refused"

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(outcome, rivals))
    assert sorted(outcomes) == ["published", *["refused"] * 5]
    assert chosen(database).sha256 == rivals[outcomes.index("published")].sha256


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE policy_set SET source = sha256",
        "UPDATE policy_set SET version = version + 1",
        "DELETE FROM policy_set",
        "INSERT INTO policy_set SELECT substr(source, 1, 32), version, source FROM policy_set",
    ],
)
def test_a_published_set_is_immutable_in_the_database(database: Database, statement: str) -> None:
    publish(database)
    with pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
        session.connection().execute(sqlalchemy.text(statement))


def test_sqlite_replaces_no_published_set(sqlite_database: Database) -> None:
    publish(sqlite_database)
    for columns in ("sha256, version + 1, source", "substr(source, 1, 32), version, source", "sha256, version, sha256"):
        statement = f"INSERT OR REPLACE INTO policy_set SELECT {columns} FROM policy_set"
        with pytest.raises(sqlalchemy.exc.IntegrityError), sqlite_database.transaction() as session:
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
