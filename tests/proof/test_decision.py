"""Decisions fail closed: each way in which Cedar alone would say yes, and every field tampered with."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vault.proof.decision
from tests.policies.cases import FOLDER, base_of
from vault.encoding import JsonValue, dump_json, parse_json
from vault.policy.review import record_of
from vault.proof.decision import (
    NOT_PERMITTED,
    BadPolicySet,
    Decision,
    Fault,
    evaluate,
    load_policy_folder,
    load_policy_set,
    load_shipped_policy_set,
    parse_policy_set,
)
from vault.proof.decision_record import (
    Action,
    BadDecision,
    DecisionRecord,
    Entity,
    Uid,
    consent_entity,
    dump_decision,
    parse_decision,
)
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent, ConsentVersion, Notice
from vault.schema.question import QuestionKind
from vault.schema.terms import ConsentKind, Handling, Terms
from vault.schema.trace import Period

SHIPPED = load_shipped_policy_set()
SOURCE: Any = parse_json(SHIPPED.source)
TOPICS = ["ask_company", "ask_owner", "refresh", "train", "population_map"]

SCHEMA = """
namespace Vault {
  entity Team;
  entity Company in [Team] = { status: String, banned?: Long };
  entity Twin = { frozen: Long };
  action any;
  action ask in [any] appliesTo { principal: Company, resource: Twin, context: { now: Long } };
}
"""
PERMIT = '@id("permit-ask") @visibility("owner") @sentence("Yes.") permit(principal, action, resource);'
FORBID = '@id("{}") @visibility("owner") @sentence("No.") forbid(principal, {}, resource) when {{ {} }};'


def bare(record: DecisionRecord, policies: str, schema: str | None, checked: str | None) -> cedarpy.AuthzResult:
    """Ask Cedar alone, with or without a schema."""
    request = {
        "principal": record.principal._asdict(),
        "action": {"type": "Vault::Action", "id": record.action.value},
        "resource": record.resource._asdict(),
        "context": record.context,
    }
    snapshot = [{"uid": e.uid._asdict(), "attrs": e.attrs, "parents": []} for e in record.entities]
    entities = cedarpy.Entities.from_json_str(json.dumps(snapshot), checked)
    return cedarpy.is_authorized(request, policies, entities, schema)


def small_record(sha256: bytes, **context: JsonValue) -> DecisionRecord:
    company, twin = Uid("Vault::Company", "acme"), Uid("Vault::Twin", "t")
    entities = (Entity(company, {"status": "active"}), Entity(twin, {"frozen": 1}))
    return DecisionRecord(Action.ASK, company, twin, {"now": 1} | context, entities, sha256, "any")


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


@pytest.mark.parametrize(
    "forbid",
    [
        FORBID.format("team", "action", 'principal in Vault::Team::"banned"'),
        FORBID.format("team", "action", 'principal is Vault::Company in Vault::Team::"banned"'),
        FORBID.format("team", "action", "true").replace("principal", 'principal in Vault::Team::"banned"', 1),
        FORBID.format("team", "action", "true").replace(
            "principal", 'principal is Vault::Company in Vault::Team::"banned"', 1
        ),
    ],
)
def test_rules_on_a_hierarchy_cannot_be_loaded_where_cedar_alone_skips_them(forbid: str) -> None:
    alone = bare(small_record(b""), PERMIT + forbid, SCHEMA, SCHEMA)
    assert alone.decision is cedarpy.Decision.Allow
    assert not alone.diagnostics.errors
    with pytest.raises(BadPolicySet, match="hierarchy"):
        load_policy_set({"a.cedar": PERMIT + forbid}, SCHEMA)


GROWN_UP = """@id("{}") @visibility("owner") @sentence("More.")
{} (principal, action, resource is Vault::Twin) {};
"""


@pytest.mark.parametrize(
    ("effect", "conditions"),
    [
        ("permit", 'when { resource.owner.profile.contains("minor") }'),
        ("permit", 'unless { resource.owner.profile.contains("minor") }'),
        ("forbid", 'when { !resource.owner.profile.contains("adult") }'),
        ("forbid", 'unless { resource.owner.profile.contains("adult") }'),
        ("forbid", "when { resource.owner.profile.isEmpty() }"),
        ("forbid", 'when { resource.owner.profile == ["minor"] }'),
        ("forbid", 'when { resource.owner.profile.contains("minor") || context.now + 9223372036854775807 > 0 }'),
        ("forbid", 'when { if resource.owner.profile.contains("minor") then false else context.now > 0 }'),
        ("forbid", 'when { ["minor"].containsAll(resource.owner.profile) && context.now > 0 }'),
        ("forbid", "when { resource.owner.profile.contains(context.purpose) && resource.owner.profile.isEmpty() }"),
    ],
)
def test_a_rule_in_which_a_profile_does_more_than_forbid_cannot_be_loaded(effect: str, conditions: str) -> None:
    texts = SOURCE["policies"] | {"more.cedar": GROWN_UP.format("more", effect, conditions)}
    with pytest.raises(BadPolicySet, match="'more' reads a person's profile otherwise than to forbid"):
        load_policy_set(texts, SOURCE["schema"])


def test_a_rule_may_forbid_for_what_a_profile_says() -> None:
    conditions = 'when { context.now > 0 && (resource.owner.profile.contains("minor") && context.now > 1) }'
    texts = SOURCE["policies"] | {"more.cedar": GROWN_UP.format("more", "forbid", conditions)}
    policy_set = load_policy_set(texts, SOURCE["schema"])
    minor = record_of(base_of("ask_company"), {"Person.profile": ["minor"]}, policy_set)
    assert evaluate(minor, policy_set).reasons == ("more",)
    assert evaluate(record_of(base_of("ask_company"), {}, policy_set), policy_set).allowed


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


# --- Replay ---


@pytest.mark.parametrize("topic", TOPICS)
def test_a_record_replays_from_its_bytes_under_a_set_from_its_bytes(topic: str) -> None:
    record = record_of(base_of(topic), {"context.reveals": ["pd:Health"], "Twin.frozen": 1}, SHIPPED)
    data = dump_json(dump_decision(record))
    replayed = parse_decision(parse_json(data))
    assert dump_json(dump_decision(replayed)) == data
    assert evaluate(replayed, parse_policy_set(SHIPPED.source)) == evaluate(record, SHIPPED)
    assert evaluate(record, SHIPPED).reasons == ("special-health", "vault-frozen")


def test_a_record_is_evaluated_only_under_the_set_it_names() -> None:
    record = record_of(base_of("refresh"), {}, SHIPPED)
    weaker = SOURCE["policies"] | {"person.cedar": ""}
    with pytest.raises(BadDecision, match="another policy set"):
        evaluate(record, load_policy_set(weaker, SOURCE["schema"]))


def test_any_change_of_text_is_another_address() -> None:
    texts, schema = SOURCE["policies"], SOURCE["schema"]
    changed = texts | {"asker.cedar": texts["asker.cedar"] + "// \n"}
    chain = {"version": SHIPPED.version, "predecessor": SHIPPED.predecessor}
    assert load_policy_set(dict(reversed(texts.items())), schema, **chain).sha256 == SHIPPED.sha256
    others = [
        load_policy_set(changed, schema, **chain),
        load_policy_set(texts, schema + "// \n", **chain),
        load_policy_set(texts, schema),
        load_policy_set(texts, schema, **chain | {"version": SHIPPED.version + 1}),
        load_policy_set(texts, schema, **chain | {"predecessor": SHIPPED.sha256}),
    ]
    assert len({SHIPPED.sha256, *(other.sha256 for other in others)}) == 6


def test_a_set_published_before_versions_were_part_of_the_address_keeps_its_address() -> None:
    source = dump_json({"schema": SCHEMA, "policies": {"a.cedar": PERMIT}})
    first = parse_policy_set(source)
    assert (first.version, first.predecessor, first.sha256) == (1, b"", hashlib.sha256(source).digest())
    assert first.rules["permit-ask"].sentence_fr == ""
    assert evaluate(small_record(first.sha256), first).reasons == ("permit-ask",)


@pytest.mark.parametrize("broken", ["asker.cedar", "schema.cedarschema", "manifest.json"])
def test_a_folder_whose_texts_are_not_those_of_its_manifest_is_refused(tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(FOLDER, folder)
    assert load_policy_folder(folder).sha256 == SHIPPED.sha256
    text = (folder / broken).read_text("utf-8")
    changed = (
        text.replace(f'"version": {SHIPPED.version}', '"version": 9') if broken == "manifest.json" else f"{text}// \n"
    )
    (folder / broken).write_text(changed, "utf-8")
    with pytest.raises(BadPolicySet, match="does not state"):
        load_policy_folder(folder)
    (folder / broken).unlink()
    with pytest.raises(BadPolicySet):
        load_policy_folder(folder)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"{}",
        b"\xff",
        SHIPPED.source[:-1],
        b" " + SHIPPED.source,
        dump_json({"schema": 1, "policies": {}}),
        dump_json({"schema": SCHEMA, "policies": {"a": 1}}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "more": 1}),
        dump_json({"schema": SCHEMA, "policies": {}}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "version": 1, "predecessor": ""}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "version": 2}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "version": "2", "predecessor": "A" * 43}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "version": 1, "predecessor": "A" * 43}),
        dump_json({"schema": SCHEMA, "policies": {"a": PERMIT}, "version": 2, "predecessor": "AAAA"}),
    ],
    ids=lambda source: str(source[:40]),
)
def test_bytes_that_are_no_policy_set_are_refused(source: bytes) -> None:
    with pytest.raises(BadPolicySet):
        parse_policy_set(source)


@pytest.mark.parametrize(
    "text",
    [
        "permit(",
        PERMIT.replace('@id("permit-ask")', ""),
        PERMIT.replace('@id("permit-ask")', "@id"),
        PERMIT.replace('@sentence("Yes.")', ""),
        PERMIT.replace('@visibility("owner")', '@visibility("everyone")'),
        PERMIT.replace('@visibility("owner")', ""),
        PERMIT + FORBID.format("permit-ask", "action", "true"),
        PERMIT + FORBID.format("typo", "action", "resource.frozne != 0"),
        PERMIT + FORBID.format("type", "action", 'resource.frozen != ""'),
        PERMIT + FORBID.format("template", "action", "true").replace("principal", "principal == ?principal"),
        FORBID.format("alone", "action", "true"),
        PERMIT + "\ud800",
    ],
)
def test_policies_that_cannot_be_relied_on_are_refused(text: str) -> None:
    with pytest.raises(BadPolicySet):
        load_policy_set({"a.cedar": text}, SCHEMA)


def test_a_schema_that_does_not_parse_is_refused() -> None:
    with pytest.raises(BadPolicySet):
        load_policy_set({"a.cedar": PERMIT}, "namespace Vault { entity")


# --- The record's own bytes ---

RECORD = dump_decision(record_of(base_of("ask_company"), {}, SHIPPED))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "erase"},
        {"principal": {"type": "Company", "id": "acme"}},
        {"principal": {"type": "Vault::Company", "id": ""}},
        {"principal": {"type": "Vault::Company", "id": "a", "parents": []}},
        {"resource": "Vault::Twin"},
        {"context": []},
        {"entities": {}},
        {"entities": [{"uid": {"type": "Vault::Twin", "id": "t"}, "attrs": {}}]},
        {"entities": [{"uid": {"type": "Vault::Twin", "id": "t"}, "attrs": {}, "parents": ["x"]}]},
        {"entities": [{"uid": {"type": "Vault::Twin", "id": "t"}, "attrs": {}, "parents": [], "tags": {}}]},
        {"policy_set_sha256": ""},
        {"engine": ""},
        {"more": 1},
    ],
)
def test_a_record_of_another_shape_is_refused(changes: Mapping[str, JsonValue]) -> None:
    with pytest.raises(BadDecision):
        parse_decision(RECORD | dict(changes))


@given(
    st.sampled_from(sorted(RECORD.keys() - {"engine"})),
    st.none() | st.text() | st.integers() | st.lists(st.none()) | st.dictionaries(st.text(), st.none() | st.text()),
)
def test_arbitrary_values_are_refused_or_denied(name: str, value: Any) -> None:
    try:
        record = parse_decision(copy.deepcopy(RECORD) | {name: value})
    except BadDecision:
        return
    assert not evaluate(record, SHIPPED).allowed


# --- From a signed consent to its entity ---


def test_a_consents_entity_says_what_was_signed_and_fits_the_rules() -> None:
    base: Any = base_of("ask_company")
    context, purpose = base["context"], Purpose(base["context"]["purpose"])
    terms = Terms(
        kind=ConsentKind.COMPANY,
        grantee="acme",
        purposes=frozenset({purpose}),
        questions=frozenset({QuestionKind.RECOMMEND}),
        necessary=frozenset({Category("pd:Purchase")}),
        optional=frozenset({Category("pd:Health")}),
        data_from=Period("2026-03"),
        data_to=Period("2026-08"),
        not_before=context["now"],
        not_after=context["now"] + 1,
        quota_per_month=1,
        explicit_special=frozenset({Category("pd:Health")}),
        influence_opt_in=False,
        agent_allowed=False,
        post_mortem=frozenset({purpose}),
        handling=Handling("Acme", "EU", ("EU",), "P30D", "https://a.example", "https://b.example"),
    )
    version = ConsentVersion(
        b"c" * 16, 1, 1, b"", ConsentEvent.GIVEN, 1, b"k" * 32, terms, Notice(b"n" * 32, "en"), b"r" * 32
    )
    record = record_of(base, {}, SHIPPED)

    def decide(consent: ConsentVersion, **changes: JsonValue) -> Decision:
        entity = consent_entity(consent, record.resource)
        asked = record.context | {"consent": entity.uid.reference} | changes
        return evaluate(replace(record, context=asked, entities=(entity, *record.entities[1:])), SHIPPED)

    assert decide(version).allowed
    assert decide(version, reveals=["pd:Health"], categories=["pd:Health", "pd:Purchase"]).allowed
    assert decide(version, data_to=202609).reasons == ("outside-data-window",)
    assert decide(version, data_from=202602).reasons == ("outside-data-window",)
    assert decide(version, now=context["now"] + 1).reasons == ("outside-window",)
    assert decide(version, now=context["now"] - 1).reasons == ("outside-window",)
    assert decide(version, question="next_choice").reasons == ("question-not-covered",)
    assert decide(version, agent=1).code == "agent-not-allowed"
    withdrawn = replace(version, version=2, prev=b"p" * 32, event=ConsentEvent.WITHDRAWN)
    assert decide(withdrawn).reasons == ("consent-not-active",)
    own = replace(version, terms=replace(terms, kind=ConsentKind.SELF, grantee="owner"))
    assert "grantee" not in consent_entity(own, record.resource).attrs
    assert not decide(own).allowed
