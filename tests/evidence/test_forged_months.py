"""A service that signs a month anew, with one field of one event changed: the event is named at the step that reads it.

These came out of a search: every field of every event and record of an honest month was set to each of twenty values.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.audit_kit import Audited, audited, failed
from tests.proof.forge import Forge, Told
from tests.verifying import verify_both
from vault.db import Database
from vault.encoding import b64u, dump_json, parse_json
from vault.proof.bound import bind
from vault.proof.bundle import Bundle
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.seal.ids import SubjectId, sha256
from vault.store.shortkeys import create_table


@pytest.fixture(scope="module")
def month(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Audited, Bundle]]:
    """A month in which a consent was given, narrowed and withdrawn, and what an auditor is shown of it."""
    folder = tmp_path_factory.mktemp("month")
    shutil.copy(sqlite_template, folder / "vault.sqlite")
    database, shortkeys = Database(f"sqlite:///{folder}/vault.sqlite"), Database(f"sqlite:///{folder}/short.sqlite")
    create_table(shortkeys)
    with audited(database, shortkeys, folder) as site:
        site.live()
        yield site, site.bundle()
    database.close()
    shortkeys.close()


def told(forge: Forge, kind: LeafKind, place: int = -1) -> Told:
    """Return an event of a kind that is about a consent."""
    return [event for event in forge.events if event.kind is kind and "consent" in event.personal][place]


def personal(kind: LeafKind, place: int = -1, **said: Any) -> Callable[[Forge], Told]:
    def change(forge: Forge) -> Told:
        event = told(forge, kind, place)
        event.personal.update(said)
        return event

    return change


def public(kind: LeafKind, place: int = -1, **said: Any) -> Callable[[Forge], Told]:
    def change(forge: Forge) -> Told:
        event = told(forge, kind, place)
        event.public.update(said)
        return event

    return change


def about_another(kind: LeafKind) -> Callable[[Forge], Told]:
    """Name another person, and bind the event to that one."""

    def change(forge: Forge) -> Told:
        event, other = told(forge, kind), SubjectId(bytes(16))
        bound, opens = bind(other)
        event.public.update(bound)
        event.personal.update({**opens, "subject": b64u(other)})
        return event

    return change


def nameless(kind: LeafKind) -> Callable[[Forge], Told]:
    def change(forge: Forge) -> Told:
        event = told(forge, kind)
        del event.personal["consent"]
        return event

    return change


def hide_the_first(forge: Forge) -> Told:
    """Let the consent's chain begin with its second number, as if one event were older than the log shows."""
    first = told(forge, LeafKind.CONSENT, 2)
    chain = [event for event in forge.events if event.personal.get("consent") == first.personal["consent"]]
    prev = bytes(32)
    for event in chain:
        event.personal |= {"consent_seq": event.personal["consent_seq"] + 1, "prev": b64u(prev)}
        prev = sha256(dump_json(event.personal))
    return first


def deny_on_other_terms(forge: Forge) -> Told:
    event = told(forge, LeafKind.DENIAL)
    record = parse_json(forge.named(event.personal, "decision"))
    entities: Any = record["entities"]
    attrs = next(entity["attrs"] for entity in entities if entity["uid"]["type"] == "Vault::Consent")
    attrs["version"] += 1
    forge.swap(event.personal, "decision", dump_json(record))
    return event


def decided(kind: LeafKind, place: int = -1, **said: Any) -> Callable[[Forge], Told]:
    """Let the record of a decision say otherwise what was known."""

    def change(forge: Forge) -> Told:
        event = told(forge, kind, place)
        context = parse_json(forge.named(event.personal, "decision"))["context"]
        forge.swap_json(event.personal, "decision", context={**context, **said})  # type: ignore[dict-item]  # a dict
        return event

    return change


def rules_after(**said: Any) -> Callable[[Forge], Told]:
    """Publish other rules that say to follow those in force, but do not."""

    def change(forge: Forge) -> Told:
        first = forge.event(LeafKind.POLICY_SET)
        record = parse_json(forge.named(first.public, "policy_set"))
        follows = {"version": first.public["version"] + 1, "predecessor": first.public["policy_set"]} | said
        event = Told(LeafKind.POLICY_SET, dict(follows), {}, opened=False)
        event.public["policy_set"] = ""
        forge.swap(event.public, "policy_set", dump_json(record | follows))
        forge.events.append(event)
        return event

    return change


def record_left_out(forge: Forge) -> Told:
    """Log a company's third record without its second."""
    first = forge.event(LeafKind.COMPANY)
    event = Told(LeafKind.COMPANY, {**first.public, "version": 3, "record_sha256": b64u(bytes(32))}, {}, opened=False)
    forge.events.append(event)
    return event


def told_of(kind: LeafKind, **said: Any) -> Callable[[Forge], Told]:
    def change(forge: Forge) -> Told:
        event = forge.event(kind)
        event.public.update(said)
        return event

    return change


def key_not_logged(forge: Forge) -> Told:
    """Leave out the leaf of the key that signs models; its statement stays."""
    gone = [event for event in forge.events if event.kind is LeafKind.KEY and event.public["name"] == "processor-sign"]
    forge.events = [event for event in forge.events if event not in gone]
    return told(forge, LeafKind.ANSWER)


LIES: dict[str, tuple[Step, Callable[[Forge], Told]]] = {
    "a withdrawal that names no consent": (Step.ORDER, nameless(LeafKind.CONSENT)),
    "an answer that names no consent": (Step.ORDER, nameless(LeafKind.ANSWER)),
    "a denial under a consent that there is not": (Step.ORDER, personal(LeafKind.DENIAL, consent="A" * 22)),
    "the first event of a consent withheld": (Step.ORDER, hide_the_first),
    "an event without a number": (Step.ORDER, personal(LeafKind.CONSENT, 0, consent_seq="")),
    "an event before the first": (Step.ORDER, personal(LeafKind.CONSENT, 0, consent_seq=0)),
    "a first event that follows another": (Step.ORDER, personal(LeafKind.CONSENT, 0, prev=b64u(bytes(32)))),
    "a later event that follows none": (Step.ORDER, personal(LeafKind.DENIAL, prev="")),
    "an event that follows nonsense": (Step.ORDER, personal(LeafKind.CONSENT, 0, prev=["x"])),
    "an answer about another person": (Step.ORDER, about_another(LeafKind.ANSWER)),
    "a denial about another person": (Step.ORDER, about_another(LeafKind.DENIAL)),
    "a denial bound to somebody else": (Step.ORDER, personal(LeafKind.DENIAL, subject="A" * 22)),
    "a withdrawal told as another event": (Step.CONSENT, personal(LeafKind.CONSENT, event="narrowed")),
    "a withdrawal told as of another time": (Step.CONSENT, personal(LeafKind.CONSENT, at=1)),
    "a withdrawal in another state": (Step.CONSENT, public(LeafKind.CONSENT, event_state="dpv:ConsentGiven")),
    "a consent of another kind": (Step.CONSENT, public(LeafKind.CONSENT, consent_kind="cohort")),
    "a denial on other terms": (Step.DECISION, deny_on_other_terms),
    "a denial of another company": (Step.DECISION, personal(LeafKind.DENIAL, requester="B" * 22)),
    "a key of another epoch": (Step.RECORDS, told_of(LeafKind.KEY, epoch=9)),
    "a key that nobody stated": (Step.RECORDS, told_of(LeafKind.KEY, record=b64u(bytes(32)))),
    "a key that was never logged": (Step.CERTIFICATE, key_not_logged),
    "another model than its manifest": (Step.RECORDS, told_of(LeafKind.MANIFEST, model=b64u(bytes(32)))),
    "another company than its record": (Step.RECORDS, told_of(LeafKind.COMPANY, company="A" * 22)),
    "rules told as another version": (Step.RECORDS, told_of(LeafKind.POLICY_SET, version=9)),
    "rules told to follow others": (Step.RECORDS, told_of(LeafKind.POLICY_SET, predecessor=b64u(bytes(32)))),
    "rules of a version too far": (Step.RECORDS, rules_after(version=9)),
    "rules that follow others": (Step.RECORDS, rules_after(predecessor=b64u(bytes(32)))),
    "a company's record told as another version": (Step.RECORDS, told_of(LeafKind.COMPANY, version=2)),
    "a company's record left out": (Step.RECORDS, record_left_out),
    "an answer of a classifier that there is not": (Step.CERTIFICATE, public(LeafKind.ANSWER, classifier="reveals-9")),
    "an answer whose texts were read by other words": (Step.CERTIFICATE, public(LeafKind.ANSWER, words="")),
    "a denial told of more answers than were given": (
        Step.DECISION,
        decided(LeafKind.DENIAL, 0, quota_left=-1, agent_quota_left=-1),
    ),
    "a denial told more than the quota": (Step.DECISION, decided(LeafKind.DENIAL, quota_left=3, agent_quota_left=3)),
    "a denial told two counts": (Step.DECISION, decided(LeafKind.DENIAL, agent_quota_left=1)),
    "an answer told an earlier count": (Step.DECISION, decided(LeafKind.ANSWER, quota_left=9, agent_quota_left=9)),
    "an answer from other months": (Step.DECISION, decided(LeafKind.ANSWER, data_from=202610)),
    "a denial counted in another month": (Step.DECISION, public(LeafKind.DENIAL, period="2026-10")),
    "an answer dated before all time": (Step.TIME, personal(LeafKind.ANSWER, at=-1)),
    "a denial dated after all time": (Step.TIME, personal(LeafKind.DENIAL, at=2**53 - 1)),
}


def test_an_honest_month_signed_anew_verifies(month: tuple[Audited, Bundle]) -> None:
    site, bundle = month
    assert failed(verify_both(_signed(Forge.of(site.service, bundle), bundle), site.service.trust)) == set()


@pytest.mark.parametrize("name", LIES)
def test_one_changed_field_of_a_month_is_named(month: tuple[Audited, Bundle], name: str) -> None:
    site, bundle = month
    forge = Forge.of(site.service, bundle)
    step, lie = LIES[name]
    event = lie(forge)
    report = verify_both(_signed(forge, bundle), site.service.trust)
    assert (step, forge.events.index(event)) in failed(report), report.failures


def _signed(forge: Forge, bundle: Bundle) -> Bundle:
    return replace(forge.bundle(whole=True), withheld=bundle.withheld)
