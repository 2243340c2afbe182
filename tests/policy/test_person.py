"""What a company learns of the person: over every attribute of the schema, nothing but that the answer was permitted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from tests.consent_kit import NOW, PURPOSE, World
from tests.policy_kit import RULES, ask
from tests.vault_kit import PURCHASE
from vault.consent.exposure import CANDIDATES_PER_MONTH, STIMULI_PER_MONTH, VARIATIONS_PER_MONTH, Exposure
from vault.db import Database
from vault.encoding import dump_json, parse_json
from vault.parties.people import Person, VaultState
from vault.policy.permits import NOTHING_TOLD, Forbidden, decide_ask
from vault.policy.records import Ask
from vault.proof.decision import NOT_PERMITTED
from vault.schema.category import Purpose
from vault.schema.freshness import Freshness
from vault.schema.question import Candidate, QuestionKind, Recommend
from vault.seal.ids import VaultId
from vault.seal.person import Profile

RANKING = Recommend(PURCHASE, PURPOSE, (Candidate("acme:1", ""), Candidate("acme:2", "")), 1)
OF_THE_PERSON = {"Person.profile", "Twin.frozen", "Ask.exceeds"}
KEY = b"k" * 32


@pytest.fixture
def facts(sqlite_database: Database, shortkeys: Database) -> Ask:
    world = World(sqlite_database, shortkeys)
    terms = {"post_mortem": frozenset({PURPOSE}), "questions": frozenset(QuestionKind)}
    return ask(world, world.give(**terms), question=RANKING)


def persons(like: Person) -> Iterator[Person]:
    """Return people who differ in everything but the vault that the consent is of."""
    others = {
        "owner_key": b"o" * 32,
        "former_owner_keys": (b"f" * 32,),
        "next_owner_key_hash": b"n" * 32,
        "identity_digest": b"i" * 32,
        "time_zone": "Asia/Tokyo",
        "created_at": like.created_at - timedelta(days=900),
        "sequence": like.sequence + 7,
        "freshness": Freshness.DAY,
    }
    assert {field.name for field in fields(Person)} == {"vault_id", "state", "profile", *others}
    flags = [field.name for field in fields(Profile)]
    profiles = [Profile(**dict(zip(flags, said, strict=True))) for said in product([False, True], repeat=len(flags))]
    for profile, state, changed in product(profiles, VaultState, ({}, others)):
        yield replace(like, profile=profile, state=state, **changed)


def exposures() -> list[Exposure]:
    tag = "t" * 64
    full = Exposure(0, 0, tag * CANDIDATES_PER_MONTH, KEY)
    return [
        Exposure(0, 0, "", KEY),
        Exposure(STIMULI_PER_MONTH - 1, 3, tag * 3, KEY),
        Exposure(STIMULI_PER_MONTH, 0, "", KEY),
        Exposure(0, VARIATIONS_PER_MONTH, "", KEY),
        full,
    ]


def attributes(record: Any) -> Iterator[tuple[str, bytes]]:
    """Return every attribute of a record by its name in the schema; what the record says besides, by its field."""
    for name, value in record["context"].items():
        yield f"Ask.{name}", dump_json({"is": value})
    for one in record["entities"]:
        kind = one["uid"]["type"].removeprefix("Vault::")
        yield f"{kind}.uid", dump_json(one["uid"])
        for name, value in one["attrs"].items():
            yield f"{kind}.{name}", dump_json({"is": value})
    for name in record.keys() - {"context", "entities"}:
        yield name, dump_json({"is": record[name]})


def schema_attributes() -> set[str]:
    """Return every attribute that a question of a company is decided on, from the shipped schema itself."""
    schema = re.sub(r"//.*", "", RULES.schema)
    blocks = re.findall(r"(?:entity|type) (\w+) = \{(.*?)\};", schema, re.DOTALL)
    return {
        f"{kind}.{name}"
        for kind, body in blocks
        if kind not in {"Use", "Count"}
        for name in re.findall(r"(\w+)\??:", body)
    }


def test_no_attribute_of_an_answers_record_changes_with_the_person(facts: Ask) -> None:
    told: defaultdict[str, set[bytes]] = defaultdict(set)
    known: defaultdict[str, set[bytes]] = defaultdict(set)
    allowed = 0
    for person, exposure in product(persons(facts.person), exposures()):
        try:
            record = decide_ask(replace(facts, person=person, exposure=exposure), RULES).decision
            allowed += 1
            for name, value in attributes(parse_json(record)):
                told[name].add(value)
        except Forbidden as refusal:
            record = refusal.record
        for name, value in attributes(parse_json(record)):
            known[name].add(value)
    assert allowed > 10
    assert told.keys() >= schema_attributes()
    assert {name for name, values in told.items() if len(values) > 1} == set()
    assert {name for name, values in known.items() if len(values) > 1} == OF_THE_PERSON


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, NOT_PERMITTED),
        ({"now": NOW + timedelta(days=900)}, "outside-window"),
        ({"question": replace(RANKING, purpose=Purpose("dpv:Marketing"))}, "not-covered"),
        ({"reveals": frozenset({"pd:Health"})}, "not-covered"),
    ],
)
def test_no_refusal_changes_with_the_person(facts: Ask, changed: dict[str, Any], code: str) -> None:
    facts = replace(facts, **changed)
    refusals = set()
    for person, exposure in product(persons(facts.person), exposures()):
        try:
            decide_ask(replace(facts, person=person, exposure=exposure), RULES)
        except Forbidden as refusal:
            refusals.add((refusal.slug, refusal.title, refusal.status, refusal.detail, refusal.retry_after_s))
    assert len(refusals) == 1
    ((slug, _, status, detail, _),) = refusals
    assert (slug, status) == (code, 403)
    assert (detail == NOTHING_TOLD) is (code == NOT_PERMITTED)


def test_another_persons_facts_make_no_permit(facts: Ask) -> None:
    with pytest.raises(Forbidden, match=NOTHING_TOLD):
        decide_ask(replace(facts, person=replace(facts.person, vault_id=VaultId(b"v" * 16))), RULES)
