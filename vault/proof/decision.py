"""May this happen? One pure function that the service asks once and an auditor can replay for ever.

Consent is data, rules are policies: the rules are Cedar text, a consent becomes one entity.
This module is the only caller of the Cedar engine, because Cedar alone fails open: it skips a
`forbid` that errors, forgets action groups without a schema, and never checks entities that
were parsed without one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, Final

import cedarpy

from vault.encoding import JsonObject, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.decision_record import BadDecision, DecisionRecord, dump_entity, named_entities

NOT_PERMITTED: Final = "not-permitted"
PERMITTED: Final = "permitted"


class BadPolicySet(VaultError):
    """Policy text that cannot be relied on."""

    slug = "bad-policy-set"
    title = "Policy set is not acceptable"
    status = 422


class Visibility(StrEnum):
    """Who may learn that a rule applied: `company` rules speak only of its token, request, quota and consent."""

    COMPANY = "company"
    OWNER = "owner"


class Fault(StrEnum):
    """Why a record could not be evaluated; always a denial, and a defect of whoever built the record."""

    ENTITY_MISSING = "entity-missing"
    NOT_EVALUABLE = "not-evaluable"


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy, in words.

    Args:
        id: Its `@id`.
        permits: Whether it permits; otherwise it forbids, and one forbid outweighs every permit.
        sentence: Its `@sentence`, shown to the owner.
        sentence_fr: Its `@sentence_fr`, the same in French; empty in sets older than version 2.
        visibility: Its `@visibility`.
        definition: The whole rule in the engine's JSON, to compare two sets; layout and comments are gone from it.
    """

    id: str
    permits: bool
    sentence: str
    sentence_fr: str
    visibility: Visibility
    definition: str


@dataclass(frozen=True, slots=True, eq=False)
class PolicySet:
    """Rules that were checked against their schema and are ready to evaluate.

    Args:
        source: The bytes that the set is addressed by: fixed JSON of schema, policy texts, version and
            predecessor. Text, not the engine's parse tree, so that no engine release changes the address.
        sha256: The set's address, 32 bytes.
        version: 1, 2, 3...; each version of one installation has one text.
        predecessor: Address of the version before, 32 bytes; empty for version 1.
        schema: Cedar schema text.
        rules: Every rule by id.
    """

    source: bytes
    sha256: bytes
    version: int
    predecessor: bytes
    schema: str
    rules: Mapping[str, Rule]
    _policies: cedarpy.PolicySet = field(repr=False)
    _schema: cedarpy.Schema = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why.

    Args:
        allowed: Whether it may happen.
        reasons: Ids of the rules that decided, sorted: for the owner and the auditor, never for a company.
        code: What a company is told.
        fault: Set when the record could not be evaluated.

    Guarantees:
        `code` names a rule only if that rule's visibility is `company`, and then whether or not rules about
        the person applied as well; everything about the person gives the one `not-permitted`.
    """

    allowed: bool
    reasons: tuple[str, ...]
    code: str
    fault: Fault | None = None


def load_policy_set(
    policies: Mapping[str, str], schema: str, *, version: int = 1, predecessor: bytes = b""
) -> PolicySet:
    """Check policy texts against their schema and make them ready.

    Args:
        policies: Cedar text by file name.
        schema: Cedar schema text.
        version: 1 or higher.
        predecessor: Address of the version before, 32 bytes; empty for version 1 only.

    Raises:
        BadPolicySet: A text does not parse or validate; a rule lacks a unique `@id`, a `@sentence` or a
            `@visibility`; a rule depends on a hierarchy, which Cedar skips silently when it is incomplete; or
            one reads a person's `profile` otherwise than to forbid.

    Guarantees: a record that is allowed is allowed by the same permits without what it says of a profile.
    """
    if (version, len(predecessor)) != (1, 0) and (version < 2 or len(predecessor) != 32):
        raise BadPolicySet("Version 1 has no predecessor; every later version names its predecessor's address.")
    text = "\n".join(policies[name] for name in sorted(policies))
    record: JsonObject = {"schema": schema, "policies": dict(policies)}
    if predecessor:  # version 1 keeps the spelling that was published before versions were part of it
        record |= {"version": version, "predecessor": b64u(predecessor)}
    try:
        source = dump_json(record)
        schema_handle = cedarpy.Schema.from_str(schema)
        handle = cedarpy.PolicySet.from_str(text)
        parsed = json.loads(cedarpy.policies_to_json_str(text))
        report = cedarpy.validate_policies(text, schema_handle)
    except (ValueError, MalformedInput) as error:
        raise BadPolicySet("The policies or their schema do not parse.") from error
    if not report.validation_passed:
        raise BadPolicySet(f"The policies do not fit their schema: {report.errors[0]}")
    if parsed["templates"]:
        raise BadPolicySet("A policy set holds no templates: a consent is data, not a rule.")
    rules: dict[str, Rule] = {}
    for policy in parsed["staticPolicies"].values():
        rule = _rule(policy)
        if rule.id in rules:
            raise BadPolicySet(f"Two rules have the id {rule.id!r}.")
        rules[rule.id] = rule
    if not any(rule.permits for rule in rules.values()):
        raise BadPolicySet("A policy set needs at least one permit.")
    return PolicySet(
        source=source,
        sha256=hashlib.sha256(source).digest(),
        version=version,
        predecessor=predecessor,
        schema=schema,
        rules=MappingProxyType(dict(sorted(rules.items()))),
        _policies=handle,
        _schema=schema_handle,
    )


# Keyed by the bytes that the set is addressed by, so an entry can never be stale.
@lru_cache(maxsize=8)
def parse_policy_set(source: bytes) -> PolicySet:
    """Make a set ready from the bytes that it is addressed by, such as an auditor's bundle holds.

    Raises:
        BadPolicySet: The bytes are no acceptable policy set in its one spelling.
    """
    try:
        record = parse_json(source)
        predecessor = parse_b64u(record.get("predecessor", ""))
    except MalformedInput as error:
        raise BadPolicySet("A policy set is not one JSON object of texts.") from error
    schema, policies, version = record.get("schema"), record.get("policies"), record.get("version", 1)
    if not isinstance(schema, str) or not isinstance(policies, dict) or not isinstance(version, int):
        raise BadPolicySet("A policy set is a schema, policies, a version and a predecessor.")
    texts = {name: str(text) for name, text in policies.items()}
    policy_set = load_policy_set(texts, schema, version=version, predecessor=predecessor)
    if policy_set.source != source:
        raise BadPolicySet("A policy set is not in the one spelling that its address is made from.")
    return policy_set


def load_policy_folder(folder: Traversable) -> PolicySet:
    """Read a policy set from the folder that people edit: `*.cedar`, `schema.cedarschema`, `manifest.json`.

    Raises:
        BadPolicySet: A file is missing or unacceptable, or the texts are not those whose address the
            manifest states: a changed text needs a new version.
    """
    try:
        texts = {item.name: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".cedar")}
        schema = (folder / "schema.cedarschema").read_text("utf-8")
        manifest = parse_json((folder / "manifest.json").read_bytes())
        predecessor, stated = parse_b64u(manifest.get("predecessor")), parse_b64u(manifest.get("sha256"))
    except (OSError, UnicodeDecodeError, MalformedInput) as error:
        raise BadPolicySet("The folder holds no readable *.cedar, schema.cedarschema and manifest.json.") from error
    version = manifest.get("version")
    if not isinstance(version, int):
        raise BadPolicySet("manifest.json states no version.")
    policy_set = load_policy_set(texts, schema, version=version, predecessor=predecessor)
    if policy_set.sha256 != stated:
        raise BadPolicySet(
            f"The texts have the address {b64u(policy_set.sha256)}, which manifest.json does not state. If you changed "
            "a rule, first raise `version` and put the former `sha256` into `predecessor`; both are part of the address."
        )
    return policy_set


@cache
def load_shipped_policy_set() -> PolicySet:
    """Return the policy set that this release ships.

    Raises:
        BadPolicySet: The installed files were changed into something unacceptable.
    """
    return load_policy_folder(files("vault") / "_policies")


def evaluate(record: DecisionRecord, policy_set: PolicySet) -> Decision:
    """Decide, failing closed.

    Allowed is only what the engine allows for a named reason, without a single error, over entities
    that are all present and were checked against the schema.

    Args:
        record: What the decision depends on.
        policy_set: The set that the record names.

    Raises:
        BadDecision: The record names another policy set.
    """
    if record.policy_set_sha256 != policy_set.sha256:
        raise BadDecision("The decision was made under another policy set; evaluate it under the one it names.")
    if not named_entities(record) <= {entity.uid for entity in record.entities}:
        return Decision(allowed=False, reasons=(), code=NOT_PERMITTED, fault=Fault.ENTITY_MISSING)
    request = {
        "principal": record.principal.spelled,
        "action": {"type": "Vault::Action", "id": record.action.value},
        "resource": record.resource.spelled,
        "context": json.dumps(record.context),
    }
    snapshot = json.dumps([dump_entity(entity) for entity in record.entities])
    try:
        # Both are hidden in the set so that nobody else asks the engine, without the checks around this call.
        entities = cedarpy.Entities.from_json_str(snapshot, policy_set._schema)  # noqa: SLF001
        result = cedarpy.is_authorized(request, policy_set._policies, entities, policy_set._schema)  # noqa: SLF001
    except ValueError:
        return Decision(allowed=False, reasons=(), code=NOT_PERMITTED, fault=Fault.NOT_EVALUABLE)
    reasons = tuple(sorted(result.diagnostics.id_annotations_by_reason.values()))
    if result.decision is cedarpy.Decision.NoDecision or result.diagnostics.errors:
        return Decision(allowed=False, reasons=reasons, code=NOT_PERMITTED, fault=Fault.NOT_EVALUABLE)
    if result.decision is cedarpy.Decision.Allow and reasons:
        return Decision(allowed=True, reasons=reasons, code=PERMITTED)
    told = (rule for rule in reasons if policy_set.rules[rule].visibility is Visibility.COMPANY)
    return Decision(allowed=False, reasons=reasons, code=next(told, NOT_PERMITTED))


def _rule(policy: Mapping[str, Any]) -> Rule:
    notes = policy["annotations"]
    name, sentence = notes.get("id"), notes.get("sentence")
    if not name or not sentence or notes.get("visibility") not in set(Visibility):
        raise BadPolicySet(f"Rule {name!r} needs an @id, a @sentence and a @visibility (company or owner).")
    scopes = (policy["principal"], policy["resource"])
    if any("in" in (scope["op"], *scope) for scope in scopes) or _uses_in(policy["conditions"]):
        raise BadPolicySet(f"Rule {name!r} depends on a hierarchy; rules read attributes only.")
    if not _only_forbids(policy):
        raise BadPolicySet(
            f"Rule {name!r} reads a person's profile otherwise than to forbid. Name a fact in the `when` of a `forbid`, "
            'as `profile.contains("fact")`, joined by && only; nothing may be allowed because of it.'
        )
    return Rule(
        id=name,
        permits=policy["effect"] == "permit",
        sentence=sentence,
        sentence_fr=notes.get("sentence_fr") or "",
        visibility=Visibility(notes["visibility"]),
        definition=json.dumps(policy, sort_keys=True),
    )


def _uses_in(tree: object) -> bool:
    return any(key == "in" for key, _ in _parts(tree))


def _reads_profile(tree: object) -> bool:
    return ("attr", "profile") in _parts(tree)


def _only_forbids(policy: Mapping[str, Any]) -> bool:
    """Say whether a profile that says less can make the rule forbid nothing more, and permit nothing less."""
    if policy["effect"] == "permit":
        return not _reads_profile(policy["conditions"])
    return all(
        _needs_facts(condition["body"]) if condition["kind"] == "when" else not _reads_profile(condition["body"])
        for condition in policy["conditions"]
    )


def _needs_facts(condition: object) -> bool:
    """Say whether a condition names facts of a profile only as `profile.contains("fact")` that must hold too.

    No `||`: where its first side no longer holds, its other side is evaluated, and may be an error.
    """
    match condition:
        case {"&&": {"left": left, "right": right}}:
            return _needs_facts(left) and _needs_facts(right)
        case {"contains": {"left": {".": {"attr": "profile"}}, "right": {"Value": str()}}}:
            return True
        case _:
            return not _reads_profile(condition)


def _parts(tree: object) -> Iterator[tuple[object, object]]:
    """Yield every key or position in a parsed rule with what stands there."""
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield key, item
        yield from _parts(item)
