"""The shipped rules, and a set so small that one sees what Cedar alone would decide."""

from __future__ import annotations

import json
from typing import Any

import cedarpy

from vault.encoding import JsonValue, parse_json
from vault.proof.decision import load_shipped_policy_set
from vault.proof.decision_record import Action, DecisionRecord, Entity, Uid

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
    return DecisionRecord(Action.ASK, company, twin, {"now": 1} | context, entities, sha256)
