"""Decisions fail closed: each way in which Cedar alone would say yes, and every field tampered with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest

import vault.proof.decision
from tests.policies.cases import base_of
from tests.proof.small_policies import FORBID, PERMIT, SCHEMA, SHIPPED, SOURCE, TOPICS, bare, small_record
from vault.policy.review import record_of
from vault.proof.decision import NOT_PERMITTED, Decision, Fault, evaluate, load_policy_set
from vault.proof.decision_record import Action, BadDecision, Entity, Uid, dump_decision, parse_decision


def denied(fault: Fault) -> Decision:
    return Decision(allowed=False, reasons=(), code=NOT_PERMITTED, fault=fault)


# --- The ways in which Cedar alone fails open ---


def test_a_missing_person_is_a_denial_where_cedar_alone_allows() -> None:
    record = record_of(base_of("ask_company"), {}, SHIPPED)
    record = replace(record, entities=tuple(e for e in record.entities if e.uid.type != "Vault::Person"))
    alone = bare(record, "\n".join(SOURCE["policies"].values()), SOURCE["schema"], SOURCE["schema"])
    assert alone.decision is cedarpy.Decision.Allow
    assert alone.diagnostics.errors
    assert evaluate(record, SHIPPED) == denied(Fault.ENTITY_MISSING)


def test_a_missing_entity_is_a_denial_where_cedar_alone_sees_no_attribute_and_no_error() -> None:
    forbid = FORBID.format("banned", "action", "principal has banned && principal.banned != 0")
    policy_set = load_policy_set({"a.cedar": PERMIT + forbid}, SCHEMA)
    record = small_record(policy_set.sha256)
    record = replace(record, entities=record.entities[1:])
    alone = bare(record, PERMIT + forbid, SCHEMA, SCHEMA)
    assert alone.decision is cedarpy.Decision.Allow
    assert not alone.diagnostics.errors
    assert evaluate(record, policy_set) == denied(Fault.ENTITY_MISSING)


def test_the_schema_is_always_passed_where_cedar_alone_forgets_the_action_group() -> None:
    forbid = FORBID.format("frozen", 'action in Vault::Action::"any"', "resource.frozen != 0")
    policy_set = load_policy_set({"a.cedar": PERMIT + forbid}, SCHEMA)
    record = small_record(policy_set.sha256)
    alone = bare(record, PERMIT + forbid, None, None)
    assert alone.decision is cedarpy.Decision.Allow
    assert not alone.diagnostics.errors
    assert evaluate(record, policy_set) == Decision(allowed=False, reasons=("frozen",), code=NOT_PERMITTED)


def test_entities_are_checked_against_the_schema_where_cedar_alone_takes_any() -> None:
    policy_set = load_policy_set({"a.cedar": PERMIT}, SCHEMA)
    record = small_record(policy_set.sha256)
    company = Entity(record.principal, {"status": "active", "secret_extra": 1})
    record = replace(record, entities=(company, record.entities[1]))
    alone = bare(record, PERMIT, SCHEMA, None)
    assert alone.decision is cedarpy.Decision.Allow
    assert not alone.diagnostics.errors
    assert evaluate(record, policy_set) == denied(Fault.NOT_EVALUABLE)


def test_a_forbid_that_errors_is_a_denial_where_cedar_alone_allows() -> None:
    forbid = FORBID.format("late", "action", "context.now + 9223372036854775807 > 0")
    policy_set = load_policy_set({"a.cedar": PERMIT + forbid}, SCHEMA)
    record = small_record(policy_set.sha256)
    alone = bare(record, PERMIT + forbid, SCHEMA, SCHEMA)
    assert alone.decision is cedarpy.Decision.Allow
    assert evaluate(record, policy_set).fault is Fault.NOT_EVALUABLE
    assert not evaluate(record, policy_set).allowed


def test_nothing_else_calls_the_engine() -> None:
    package = Path(vault.proof.decision.__file__).parents[1]
    callers = {path.name for path in package.rglob("*.py") if "import cedarpy" in path.read_text("utf-8")}
    assert callers == {"decision.py"}


# --- Every field of every kind of record ---


def fields() -> list[tuple[str, str]]:
    found = []
    for topic in TOPICS:
        base: Any = base_of(topic)
        found += [(topic, f"context.{name}") for name in base["context"]]
        found += [(topic, f"{e['uid']['type'][7:]}.{name}") for e in base["entities"] for name in e["attrs"]]
    return found


@pytest.mark.parametrize(("topic", "place"), fields(), ids="-".join)
def test_a_missing_field_is_a_denial(topic: str, place: str) -> None:
    decision = evaluate(record_of(base_of(topic), {place: None}, SHIPPED), SHIPPED)
    assert not decision.allowed
    assert decision.code == NOT_PERMITTED
    # The one optional field is a fact: a consent that names no company permits none.
    assert decision.fault is (None if place == "Consent.grantee" else Fault.NOT_EVALUABLE)


@pytest.mark.parametrize(("topic", "place"), fields(), ids="-".join)
@pytest.mark.parametrize("wrong", [True, 1.0, {}, [[]], [1], {"__extn": {"fn": "decimal", "arg": "1.0"}}, 2**63])
def test_a_field_of_the_wrong_type_is_a_denial(topic: str, place: str, wrong: object) -> None:
    decision = evaluate(record_of(base_of(topic), {place: wrong}, SHIPPED), SHIPPED)
    assert not decision.allowed
    assert decision.fault is Fault.NOT_EVALUABLE


@pytest.mark.parametrize("topic", TOPICS)
def test_an_unknown_field_is_a_denial(topic: str) -> None:
    base: Any = base_of(topic)
    base["context"]["more"] = 1
    assert evaluate(record_of(base, {}, SHIPPED), SHIPPED) == denied(Fault.NOT_EVALUABLE)
    for index in range(len(base["entities"])):
        base = base_of(topic)
        base["entities"][index]["attrs"]["more"] = 1
        assert evaluate(record_of(base, {}, SHIPPED), SHIPPED) == denied(Fault.NOT_EVALUABLE)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_entity_is_needed(topic: str) -> None:
    record = record_of(base_of(topic), {}, SHIPPED)
    for entity in record.entities:
        rest = tuple(other for other in record.entities if other is not entity)
        assert evaluate(replace(record, entities=rest), SHIPPED) == denied(Fault.ENTITY_MISSING)


def test_a_reference_in_its_bare_spelling_is_followed_too() -> None:
    record = record_of(base_of("ask_company"), {"context.model": {"type": "Vault::Model", "id": "other"}}, SHIPPED)
    assert evaluate(record, SHIPPED) == denied(Fault.ENTITY_MISSING)


def test_two_versions_of_one_entity_are_a_denial() -> None:
    record = record_of(base_of("ask_company"), {}, SHIPPED)
    twice = (*record.entities, replace(record.entities[0], attrs=record.entities[0].attrs | {"version": 9}))
    assert evaluate(replace(record, entities=twice), SHIPPED) == denied(Fault.NOT_EVALUABLE)
    with pytest.raises(BadDecision, match="twice"):
        parse_decision(dump_decision(replace(record, entities=twice)))


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("action", Action)
def test_a_record_for_one_action_permits_no_other(topic: str, action: Action) -> None:
    record = record_of(base_of(topic), {}, SHIPPED)
    assert evaluate(replace(record, action=action), SHIPPED).allowed is (record.action is action)


def test_another_companys_consent_permits_nothing() -> None:
    record = record_of(base_of("ask_company"), {}, SHIPPED)
    rival = Entity(Uid("Vault::Company", "rival"), {"status": "active"})
    decision = evaluate(replace(record, principal=rival.uid, entities=(*record.entities, rival)), SHIPPED)
    assert decision == Decision(allowed=False, reasons=(), code=NOT_PERMITTED)


def test_another_persons_consent_or_twin_permits_nothing() -> None:
    for topic in TOPICS:
        record = record_of(base_of(topic), {}, SHIPPED)
        other = Entity(Uid("Vault::Person", "other"), {"profile": []})
        twin = Entity(Uid("Vault::Twin", "other"), {"owner": other.uid.reference, "frozen": 0})
        entities = (*record.entities, other, twin)
        assert not evaluate(replace(record, resource=twin.uid, entities=entities), SHIPPED).allowed
        if topic == "ask_owner":
            assert not evaluate(replace(record, principal=other.uid, entities=entities), SHIPPED).allowed


def test_a_record_is_evaluated_only_under_the_set_it_names() -> None:
    record = record_of(base_of("refresh"), {}, SHIPPED)
    weaker = SOURCE["policies"] | {"person.cedar": ""}
    with pytest.raises(BadDecision, match="another policy set"):
        evaluate(record, load_policy_set(weaker, SOURCE["schema"]))
