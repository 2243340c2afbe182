"""A policy set is loaded only if it can be relied on, and has an address that says all of it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cedarpy
import pytest

from tests.policies.cases import FOLDER, base_of
from tests.proof.small_policies import FORBID, PERMIT, SCHEMA, SHIPPED, SOURCE, bare, small_record
from vault.encoding import dump_json
from vault.policy.review import record_of
from vault.proof.decision import BadPolicySet, evaluate, load_policy_folder, load_policy_set, parse_policy_set


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
