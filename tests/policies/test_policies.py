"""The shipped rules: golden cases, every rule needed, an independent oracle, an honest manifest."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import cedarpy
import pytest

from tests.policies.cases import CASES, FOLDER
from tests.policies.draw import random_record
from tests.policies.life import NOT_ASKED
from tests.policies.oracle import INFLUENCE, LIVE, SALE, SPECIAL, decide
from vault.answers import ask
from vault.policy.records import without_profile
from vault.policy.review import Case, find_faults
from vault.proof.decision import PolicySet, evaluate, load_policy_set, load_shipped_policy_set
from vault.schema.category import CATEGORIES, MINTED_PURPOSES, parse_purpose
from vault.schema.consent import ConsentEvent

SHIPPED = load_shipped_policy_set()
SCHEMA = (FOLDER / "schema.cedarschema").read_text("utf-8")
TEXTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.cedar")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case: Case) -> None:
    decision = evaluate(case.record(SHIPPED), SHIPPED)
    assert (decision.allowed, decision.reasons, decision.code, decision.fault) == (
        case.allowed,
        case.reasons,
        case.code,
        None,
    )


def test_both_verdicts_of_every_action_have_cases() -> None:
    topics = {path.name for path in (FOLDER / "cases").iterdir()}
    assert {name.rsplit("-", 1)[0] for name in (case.name for case in CASES)} == {
        f"{topic}-{verdict}" for topic in topics for verdict in ("ALLOW", "DENY")
    }


@cache
def without_each_rule() -> dict[str, PolicySet]:
    """Return the shipped set with each rule deleted from its text in turn."""
    return {
        re.match(r'@id\("(.*?)"\)', rule)[1]: load_policy_set(TEXTS | {name: text.replace(rule, "")}, SCHEMA)  # type: ignore[index]  # every match starts with @id
        for name, text in TEXTS.items()
        for rule in re.findall(r"@id\(.*?\n(?:.*\n)*?.*;\n", text)
    }


def with_each_rule_negated() -> Iterator[tuple[str, PolicySet]]:
    """Yield the shipped set with the condition of each rule turned into its opposite."""
    parsed = json.loads(cedarpy.policies_to_json_str("\n".join(TEXTS.values())))
    for policy in parsed["staticPolicies"].values():
        terms = [c["body"] if c["kind"] == "when" else {"!": {"arg": c["body"]}} for c in policy["conditions"]]
        body = terms[0]
        for term in terms[1:]:
            body = {"&&": {"left": body, "right": term}}
        conditions, policy["conditions"] = policy["conditions"], [{"kind": "unless", "body": body}]
        yield (
            policy["annotations"]["id"],
            replace(SHIPPED, _policies=cedarpy.PolicySet.from_json_str(json.dumps(parsed))),
        )
        policy["conditions"] = conditions


def fails(case: Case, mutant: PolicySet) -> bool:
    decision = evaluate(case.record(mutant), mutant)
    return (decision.allowed, decision.reasons) != (case.allowed, case.reasons)


def test_negating_any_rule_fails_cases_on_both_sides() -> None:
    negated = set()
    for rule_id, mutant in with_each_rule_negated():
        about_it = [case for case in CASES if rule_id in case.reasons]
        assert any(fails(case, mutant) for case in about_it), f"no case about {rule_id} fails without its condition"
        others = [case for case in CASES if rule_id not in case.reasons]
        assert any(fails(case, mutant) for case in others), f"{rule_id} could hold for everything else"
        negated.add(rule_id)
    assert negated == set(SHIPPED.rules)


def test_deleting_any_rule_fails_a_case() -> None:
    deleted = set()
    for rule_id, mutant in without_each_rule().items():
        assert mutant.rules.keys() == SHIPPED.rules.keys() - {rule_id}
        about_it = [case for case in CASES if rule_id in case.reasons]
        assert about_it, f"no case is decided by {rule_id}"
        assert any(fails(case, mutant) for case in about_it), f"every case still passes without {rule_id}"
        deleted.add(rule_id)
    assert deleted == set(SHIPPED.rules)


def test_state_and_windows_hold_twice() -> None:
    twice = {"consent-not-active", "outside-window", "outside-data-window", "purpose-not-covered"}
    twice |= {"question-not-covered"}
    mutants = without_each_rule()
    for case in CASES:
        if len(case.reasons) == 1 and case.reasons[0] in twice:
            mutant = mutants[case.reasons[0]]
            assert not evaluate(case.record(mutant), mutant).allowed, case.name


def test_every_other_forbid_alone_keeps_something_from_happening() -> None:
    twice = {"consent-not-active", "outside-window", "outside-data-window", "purpose-not-covered"}
    twice |= {"question-not-covered"}
    for rule_id, mutant in without_each_rule().items():
        if not SHIPPED.rules[rule_id].permits and rule_id not in twice:
            only = [case for case in CASES if case.reasons == (rule_id,)]
            assert any(evaluate(case.record(mutant), mutant).allowed for case in only), rule_id


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_cedar_and_the_oracle_agree_on_random_records(count: int) -> None:
    rng = random.Random(20260105 + count)
    allowed, seen = 0, set()
    for _ in range(count):
        record = random_record(rng, SHIPPED)
        decision = evaluate(record, SHIPPED)
        assert decision.fault is None
        assert (decision.allowed, decision.reasons) == decide(record)
        allowed += decision.allowed
        seen |= set(decision.reasons)
    assert count / 10 < allowed < count * 9 / 10
    assert seen == set(SHIPPED.rules)


def test_what_is_allowed_is_allowed_alike_by_a_record_that_says_nothing_of_the_person() -> None:
    rng, told = random.Random(20261127), 0
    for _ in range(1000):
        record = random_record(rng, SHIPPED)
        decision = evaluate(record, SHIPPED)
        if decision.allowed:
            shown = without_profile(record)
            assert evaluate(shown, SHIPPED) == decision
            assert [one.attrs for one in shown.entities if one.uid.type == "Vault::Person"] == [{"profile": []}]
            told += shown != record
    assert told > 0


def test_the_manifest_is_what_the_rules_say() -> None:
    # `load_policy_folder` compares the address; a test there changes each text.
    manifest = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
    assert manifest.keys() == {"version", "predecessor", "sha256", "changes"}
    assert find_faults(SHIPPED, CASES) == []


def test_the_readme_has_every_sentence() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    lines = [f"- `{rule.id}` ({rule.visibility}): {rule.sentence}" for rule in SHIPPED.rules.values()]
    assert [line for line in readme.splitlines() if line.startswith("- `")] == lines


def test_each_rule_that_no_question_meets_has_a_test_that_shows_why() -> None:
    assert NOT_ASKED.keys() < SHIPPED.rules.keys()
    assert len(NOT_ASKED) == 6
    for test in NOT_ASKED.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (FOLDER.parent / file).read_text("utf-8")


def test_the_rules_are_formatted_and_use_integers_only() -> None:
    for text in TEXTS.values():
        assert cedarpy.format_policies(text, line_width=120).rstrip("\n") + "\n" == text
    words = set(re.findall(r"\b[A-Za-z]+\b", re.sub(r"//.*", "", SCHEMA)))
    assert not words & {"Bool", "decimal", "datetime", "duration", "ipaddr"}


def test_the_rules_use_the_same_words_as_the_consents() -> None:
    assert {rule_id for rule_id in SHIPPED.rules if rule_id.startswith("special-")} == {
        "special" + re.sub(r"([A-Z])", r"-\1", name.removeprefix("pd:")).lower() for name in SPECIAL
    }
    assert {event.state for event in ConsentEvent if event.live} == LIVE
    assert MINTED_PURPOSES < INFLUENCE == ask._STEERING
    assert all(parse_purpose(purpose) for purpose in INFLUENCE | SALE)
    rules = "".join(TEXTS.values())
    assert set(re.findall(r'"(pd:\w+)"', rules)) == SPECIAL < set(CATEGORIES)
    assert {p for p in re.findall(r'"((?:dpv|x):\w+)"', rules) if p not in LIVE} == INFLUENCE | SALE


def test_what_a_company_is_told_never_names_a_rule_about_the_person() -> None:
    about_person = {"minor-without-guardian", "influence-of-minor", "deceased", "vault-frozen"}
    about_person |= {"stimuli-spent", "candidates-spent", "variations-spent"}
    assert about_person <= {rule.id for rule in SHIPPED.rules.values() if rule.visibility == "owner"}
    rng = random.Random(7)
    for _ in range(300):
        record = random_record(rng, SHIPPED)
        decision = evaluate(record, SHIPPED)
        company_rules = [r for r in decision.reasons if SHIPPED.rules[r].visibility == "company"]
        expected = "permitted" if decision.allowed else company_rules[0] if company_rules else "not-permitted"
        assert decision.code == expected
