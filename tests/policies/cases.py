"""The golden cases in `policies/cases` and the records they describe."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vault.encoding import JsonObject, b64u
from vault.proof.decision import ENGINE, PolicySet
from vault.proof.decision_record import DecisionRecord, parse_decision

FOLDER = Path(__file__).parents[2] / "policies"


@dataclass(frozen=True)
class Case:
    """One golden case: a base record, what differs from it, and what must come out."""

    name: str
    base: JsonObject
    changes: Mapping[str, Any]
    allowed: bool
    reasons: tuple[str, ...]
    code: str

    def record(self, policy_set: PolicySet) -> DecisionRecord:
        return record_of(self.base, self.changes, policy_set)


def base_of(name: str) -> JsonObject:
    base: JsonObject = json.loads((FOLDER / "cases" / name / "base.json").read_text("utf-8"))
    return base


def load_cases() -> list[Case]:
    cases = []
    for path in sorted(FOLDER.glob("cases/*/*/*.json")):
        spec = json.loads(path.read_text("utf-8"))
        assert spec.keys() == {"set", "reasons", "code"}
        verdict, topic = path.parent.name, path.parent.parent.name
        name = f"{topic}-{verdict}-{path.stem}"
        cases.append(Case(name, base_of(topic), spec["set"], verdict == "ALLOW", tuple(spec["reasons"]), spec["code"]))
    return cases


def record_of(base: JsonObject, changes: Mapping[str, Any], policy_set: PolicySet) -> DecisionRecord:
    """Apply changes such as `context.now` or `Consent.state` (null removes) to a base record."""
    raw: Any = copy.deepcopy(base)
    for place, value in changes.items():
        owner, name = place.split(".")
        target = raw["context"] if owner == "context" else _attrs(raw, owner)
        assert value is None or name in target, f"{place} is no field of the base record"
        if value is None:
            del target[name]
        else:
            target[name] = value
    return parse_decision(raw | {"policy_set_sha256": b64u(policy_set.sha256), "engine": ENGINE})


def _attrs(raw: Any, entity_type: str) -> Any:
    (entity,) = (item for item in raw["entities"] if item["uid"]["type"] == f"Vault::{entity_type}")
    return entity["attrs"]
