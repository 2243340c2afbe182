"""What an operator looks at before rules are published: does the set keep its promises, and what would change?"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from vault.encoding import JsonObject, b64u
from vault.proof.decision import BadPolicySet, Decision, PolicySet, evaluate
from vault.proof.decision_record import BadDecision, DecisionRecord, parse_decision


@dataclass(frozen=True)
class Case:
    """One golden case: a base record, what differs from it, and what must come out.

    Args:
        name: Topic, verdict and file.
        base: The decision record of the topic's `base.json`, without policy set and engine.
        changes: New values by place, such as `context.now` or `Consent.state`; null removes.
        allowed: Whether it must be allowed.
        reasons: Ids of the rules that must decide, sorted.
        code: What a company must be told.
    """

    name: str
    base: JsonObject
    changes: Mapping[str, Any]
    allowed: bool
    reasons: tuple[str, ...]
    code: str

    def record(self, policy_set: PolicySet) -> DecisionRecord:
        """Return the case's decision record under one policy set."""
        return record_of(self.base, self.changes, policy_set)

    def holds(self, policy_set: PolicySet) -> bool:
        """Say whether what must come out comes out."""
        expected = Decision(allowed=self.allowed, reasons=self.reasons, code=self.code)
        return evaluate(self.record(policy_set), policy_set) == expected


@dataclass(frozen=True)
class Difference:
    """What one policy set does that another does not.

    Args:
        added: Ids of rules that only the new set has.
        removed: Ids of rules that only the old set has.
        changed: Ids of rules with another text, sentence or visibility.
        schema: Whether the schema's text differs.
        decisions: The cases that come out otherwise, with the decision under the old and under the new set.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    schema: bool
    decisions: tuple[tuple[str, Decision, Decision], ...]


def read_cases(folder: Traversable) -> tuple[Case, ...]:
    """Read the golden cases of a policy folder: `cases/<topic>/base.json` and `{ALLOW,DENY}/*.json` beside it.

    Raises:
        BadPolicySet: A file is missing or is no case.
    """
    try:
        return tuple(
            case
            for topic in _sorted(folder / "cases")
            for verdict in ("ALLOW", "DENY")
            for case in _read(topic, verdict)
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise BadPolicySet("A case is not a JSON object of `set`, `reasons` and `code` beside a base.json.") from error


def record_of(base: JsonObject, changes: Mapping[str, Any], policy_set: PolicySet) -> DecisionRecord:
    """Apply changes to a base record.

    Args:
        base: As a topic's `base.json` holds it.
        changes: New values by place, such as `context.now` or `Consent.state`; null removes.
        policy_set: The set that the record shall name.

    Raises:
        BadPolicySet: A place is no field of the base record, or the result is no decision record.
    """
    raw: Any = copy.deepcopy(base)
    try:
        for place, value in changes.items():
            owner, name = place.split(".")
            target = raw["context"] if owner == "context" else _attrs(raw, owner)
            if value is None:
                del target[name]
            elif name in target:
                target[name] = value
            else:
                raise BadPolicySet(f"{place} is no field of the base record.")
        return parse_decision(raw | {"policy_set_sha256": b64u(policy_set.sha256)})
    except (ValueError, KeyError, TypeError, BadDecision) as error:
        raise BadPolicySet(f"The changes {sorted(changes)} make no decision record.") from error


def find_faults(policy_set: PolicySet, cases: Sequence[Case]) -> list[str]:
    """Return a sentence for each promise that a set does not keep; none means that it may be published."""
    rules = policy_set.rules.values()
    faults = [f"Rule {rule.id!r} has no @sentence_fr." for rule in rules if not rule.sentence_fr]
    faults += [
        f"No {'ALLOW' if rule.permits else 'DENY'} case is decided by {rule.id!r}."
        for rule in rules
        if not any(case.allowed == rule.permits and rule.id in case.reasons for case in cases)
    ]
    faults += [f"Case {case.name} does not come out as it says." for case in cases if not case.holds(policy_set)]
    return faults


def compare(old: PolicySet, new: PolicySet, cases: Sequence[Case]) -> Difference:
    """Return what the new set does that the old one does not.

    Args:
        old: Such as the set in force.
        new: Such as the set to publish.
        cases: Evaluated under both.
    """
    decisions = [
        (case.name, evaluate(case.record(old), old), evaluate(case.record(new), new))
        for case in cases
    ]  # fmt: skip
    both = old.rules.keys() & new.rules.keys()
    return Difference(
        added=tuple(sorted(new.rules.keys() - both)),
        removed=tuple(sorted(old.rules.keys() - both)),
        changed=tuple(sorted(rule for rule in both if old.rules[rule] != new.rules[rule])),
        schema=old.schema != new.schema,
        decisions=tuple(item for item in decisions if item[1] != item[2]),
    )


def _read(topic: Traversable, verdict: str) -> Iterator[Case]:
    base = json.loads((topic / "base.json").read_text("utf-8"))
    for file in _sorted(topic / verdict):
        spec = json.loads(file.read_text("utf-8"))
        if spec.keys() != {"set", "reasons", "code"}:
            raise KeyError(file.name)
        name = f"{topic.name}-{verdict}-{file.name.removesuffix('.json')}"
        yield Case(name, base, spec["set"], verdict == "ALLOW", tuple(spec["reasons"]), spec["code"])


def _sorted(folder: Traversable) -> list[Traversable]:
    return sorted(folder.iterdir(), key=lambda item: item.name)


def _attrs(raw: Any, entity_type: str) -> Any:
    (entity,) = (item for item in raw["entities"] if item["uid"]["type"] == f"Vault::{entity_type}")
    return entity["attrs"]
