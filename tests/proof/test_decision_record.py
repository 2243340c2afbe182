"""A decision's record: other shapes are refused, its bytes replay, and a consent in it says what was signed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.cases import base_of
from tests.proof.small_policies import SHIPPED, TOPICS
from vault.encoding import JsonValue, dump_json, parse_json
from vault.policy.review import record_of
from vault.proof.decision import Decision, evaluate, parse_policy_set
from vault.proof.decision_record import BadDecision, consent_entity, dump_decision, parse_decision
from vault.schema.category import Category, Purpose
from vault.schema.consent import ConsentEvent, ConsentVersion, Notice
from vault.schema.question import QuestionKind
from vault.schema.terms import ConsentKind, Handling, Terms
from vault.schema.trace import Period

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
        {"more": 1},
    ],
)
def test_a_record_of_another_shape_is_refused(changes: Mapping[str, JsonValue]) -> None:
    with pytest.raises(BadDecision):
        parse_decision(RECORD | dict(changes))


@given(
    st.sampled_from(sorted(RECORD)),
    st.none() | st.text() | st.integers() | st.lists(st.none()) | st.dictionaries(st.text(), st.none() | st.text()),
)
def test_arbitrary_values_are_refused_or_denied(name: str, value: Any) -> None:
    try:
        record = parse_decision(copy.deepcopy(RECORD) | {name: value})
    except BadDecision:
        return
    assert not evaluate(record, SHIPPED).allowed


@pytest.mark.parametrize("topic", TOPICS)
def test_a_record_replays_from_its_bytes_under_a_set_from_its_bytes(topic: str) -> None:
    record = record_of(base_of(topic), {"context.reveals": ["pd:Health"], "Twin.frozen": 1}, SHIPPED)
    data = dump_json(dump_decision(record))
    replayed = parse_decision(parse_json(data))
    assert dump_json(dump_decision(replayed)) == data
    assert evaluate(replayed, parse_policy_set(SHIPPED.source)) == evaluate(record, SHIPPED)
    assert evaluate(record, SHIPPED).reasons == ("special-health", "vault-frozen")


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
