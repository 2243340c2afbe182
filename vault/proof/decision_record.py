"""The decision record: everything that one decision depends on, so that anyone can decide it again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from vault.encoding import JsonObject, JsonValue, b64u
from vault.errors import VaultError
from vault.schema.consent import ConsentVersion
from vault.schema.reader import Reader
from vault.schema.terms import ConsentKind

_MAX_ENTITIES = 16
_TYPE = re.compile(r"Vault::[A-Za-z]{1,40}")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NESTED = (dict, list)


class BadDecision(VaultError):
    """A decision record that has another shape, or was made under another policy set."""

    slug = "bad-decision"
    title = "Decision record is not acceptable"
    status = 422


class Action(StrEnum):
    """What may be permitted."""

    REFRESH = "refresh"
    TRAIN = "train"
    ASK = "ask"
    POPULATION_MAP = "population_map"


class Uid(NamedTuple):
    """An entity's name, such as `Vault::Twin` and the subject's text."""

    type: str
    id: str

    @property
    def spelled(self) -> JsonObject:
        """The name in Cedar's JSON form; `_asdict` takes three times as long."""
        return {"type": self.type, "id": self.id}

    @property
    def reference(self) -> JsonObject:
        """How attributes and contexts point to the entity."""
        return {"__entity": self.spelled}


@dataclass(frozen=True, slots=True)
class Entity:
    """One snapshot of a fact at the moment of the decision.

    It has no parents: Cedar skips a rule silently when an ancestor is missing.
    """

    uid: Uid
    attrs: JsonObject


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """All that a decision depends on; evaluating it again gives the same decision.

    Args:
        action: What is to happen.
        principal: Who does it.
        resource: The twin it happens to.
        context: The request's own facts, as the schema's context type of the action.
        entities: Snapshots of everything that principal, resource, context and other entities name.
        policy_set_sha256: Address of the policy set, 32 bytes.
    """

    action: Action
    principal: Uid
    resource: Uid
    context: JsonObject
    entities: tuple[Entity, ...]
    policy_set_sha256: bytes


def consent_entity(consent: ConsentVersion, twin: Uid) -> Entity:
    """Return the consent as the rules see it; an auditor compares it with the signed version.

    Args:
        consent: The version in force.
        twin: The twin of the person who signed it.
    """
    terms = consent.terms
    attrs: JsonObject = {
        "kind": terms.kind.value,
        "twin": twin.reference,
        "version": consent.version,
        "state": consent.event.state,
        "purposes": [*sorted(terms.purposes)],
        "questions": [*sorted(terms.questions)],
        "categories": [*sorted(terms.categories)],
        "data_from": month_number(terms.data_from),
        "data_to": month_number(terms.data_to),
        "not_before": terms.not_before,
        "not_after": terms.not_after,
        "explicit_special": [*sorted(terms.explicit_special)],
        "influence_opt_in": int(terms.influence_opt_in),
        "agent_allowed": int(terms.agent_allowed),
        "post_mortem": [*sorted(terms.post_mortem)],
    }
    if terms.kind is ConsentKind.COMPANY:
        attrs["grantee"] = Uid("Vault::Company", terms.grantee).reference
    return Entity(Uid("Vault::Consent", b64u(consent.consent_id)), attrs)


def month_number(period: str) -> int:
    """Return a period `YYYY-MM` as the integer YYYYMM that the rules compare."""
    return int(period.replace("-", ""))


def dump_decision(record: DecisionRecord) -> JsonObject:
    """Return the record as JSON that replays to the same decision."""
    return {
        "action": record.action.value,
        "principal": record.principal.spelled,
        "resource": record.resource.spelled,
        "context": record.context,
        "entities": [dump_entity(entity) for entity in record.entities],
        "policy_set_sha256": b64u(record.policy_set_sha256),
    }


def parse_decision(record: JsonObject) -> DecisionRecord:
    """Read a decision record.

    Raises:
        BadDecision: It has another shape, an unknown field or an entity twice.
    """
    r = Reader(record, BadDecision, "decision")
    decision = DecisionRecord(
        action=r.word("action", Action),
        principal=_parse_uid(r.object("principal")),
        resource=_parse_uid(r.object("resource")),
        context=r.mapping("context"),
        entities=tuple(_parse_entity(item) for item in r.objects("entities", at_most=_MAX_ENTITIES)),
        policy_set_sha256=r.binary("policy_set_sha256", 32),
    )
    r.end()
    if len({entity.uid for entity in decision.entities}) != len(decision.entities):
        raise BadDecision("A decision record describes the same entity twice.")
    return decision


def named_entities(record: DecisionRecord) -> set[Uid]:
    """Return every entity that the record points to, and that it must therefore describe."""
    found = {record.principal, record.resource}
    _find_references(record.context, found)
    for entity in record.entities:
        _find_references(entity.attrs, found)
    return found


def _find_references(value: JsonObject | list[JsonValue], found: set[Uid]) -> None:
    """Add both spellings of a reference: the engine takes a bare type and id for one as well."""
    if isinstance(value, dict):
        if len(value) == 2 and "type" in value and "id" in value:
            found.add(Uid(str(value["type"]), str(value["id"])))
        value = list(value.values())
    for item in value:
        if isinstance(item, _NESTED):
            _find_references(item, found)


def dump_entity(entity: Entity) -> JsonObject:
    """Return the entity in Cedar's JSON form."""
    return {"uid": entity.uid.spelled, "attrs": entity.attrs, "parents": []}


def _parse_uid(r: Reader) -> Uid:
    uid = Uid(r.text("type", _TYPE), r.text("id", _ID))
    r.end()
    return uid


def _parse_entity(r: Reader) -> Entity:
    entity = Entity(_parse_uid(r.object("uid")), r.mapping("attrs"))
    r.words("parents", str, at_most=0)
    r.end()
    return entity
