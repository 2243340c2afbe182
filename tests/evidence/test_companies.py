"""A company's keys are replaced by the company alone: every record from its first on is shown, each signed by the key before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit_kit import Audited, failed, kind_of, leaf_of, verify
from tests.company_kit import new_key, public
from tests.proof.forge import Forge, Told
from tests.verifying import verify_both
from vault.encoding import parse_b64u, parse_json
from vault.parties import companies
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.established import Carried
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.seal.ids import new_id


def rotated(site: Audited, version: int = 2, **changed: Any) -> str:
    """Let the company sign its next record, with a new question key; return that record."""
    company, now = site.service.company, site.service.clock.at
    signer, company.question = company.question, new_key()
    record = company.record(now, version=version, signer=signer, **changed)
    with site.service.database.transaction() as session:
        companies.rotate(session, record, now=now)
    return record


def changed_keys(site: Audited) -> tuple[Bundle, Bundle]:
    """Ask, change keys twice, ask again; return what the company is shown of its last answer, and the auditor of all."""
    consent = site.service.consent()
    assert site.service.ask(consent).status_code == 200
    rotated(site)
    rotated(site, 3)
    question = new_id()
    given = site.service.ask(consent, question_id=question)
    assert given.status_code == 200, given.text
    site.settle()
    return parse_bundle(given.content), site.bundle()


def signed_anew(site: Audited, bundle: Bundle, change: Any) -> tuple[Forge, Bundle]:
    forge = Forge.of(site.service, bundle)
    change(forge)
    return forge, replace(forge.bundle(whole=True), withheld=bundle.withheld)


def versions(bundle: Bundle) -> list[int]:
    """Return which of a company's records are shown beside their leaves."""
    said = [parse_json(leaf.public.body) for leaf in bundle.leaves if kind_of(leaf) == LeafKind.COMPANY]
    return [int(str(one["version"])) for one in said if parse_b64u(one["record_sha256"]) in bundle.records]


def test_every_record_of_a_company_is_shown_to_who_verifies_its_questions(quick: Audited) -> None:
    answer, month = changed_keys(quick)
    assert versions(answer) == versions(month) == [1, 2, 3]
    assert failed(verify(quick, answer)) == failed(verify(quick, month)) == set()
    last = leaf_of(month, LeafKind.COMPANY, 2).index
    later = quick.bundle(last + 1)  # a range after all of them
    assert versions(later) == [1, 2, 3]
    assert failed(verify(quick, later)) == set()
    only = quick.bundle(last, last)  # nobody asked in it
    assert versions(only) == [1, 2, 3]
    assert failed(verify(quick, only)) == set()


def test_a_record_that_the_key_before_did_not_sign_fails(quick: Audited) -> None:
    """The service puts its own key in the company's place: with it, it could ask what the company never asked."""
    _, month = changed_keys(quick)
    company, thief = quick.service.company, new_key()
    record = company.record(quick.service.clock.at, version=4, signer=thief, question_key=public(thief)).encode()

    def put(forge: Forge) -> None:
        said = {"company": company.company_id, "version": 4, "record_sha256": ""}
        forge.events.append(Told(LeafKind.COMPANY, said, {}, opened=False))
        forge.swap(said, "record_sha256", record)

    forge, bundle = signed_anew(quick, month, put)
    assert failed(verify_both(bundle, quick.service.trust)) == {(Step.RECORDS, len(forge.events) - 1)}


def test_a_record_that_is_not_shown_fails_with_what_rests_on_it(quick: Audited) -> None:
    _, month = changed_keys(quick)
    second = leaf_of(month, LeafKind.COMPANY, 1)
    digest = parse_b64u(parse_json(second.public.body)["record_sha256"])
    kept = {name: data for name, data in month.records.items() if name != digest}
    later = leaf_of(month, LeafKind.COMPANY, 2).index
    found = failed(verify(quick, replace(month, records=kept)))
    assert {(Step.RECORDS, second.index), (Step.RECORDS, later)} <= found


def test_a_leaf_of_a_company_that_is_left_out_before_the_range_fails(quick: Audited) -> None:
    changed_keys(quick)
    month = quick.bundle()
    first, last = leaf_of(month, LeafKind.COMPANY, 0), leaf_of(month, LeafKind.COMPANY, 2)
    later = quick.bundle(last.index + 1)
    gone = tuple(leaf for leaf in later.leaves if leaf.index != first.index)
    record = parse_b64u(parse_json(first.public.body)["record_sha256"])
    kept = {name: data for name, data in later.records.items() if name != record}
    found = failed(verify(quick, replace(later, leaves=gone, records=kept)))
    assert (Step.RECORDS, leaf_of(month, LeafKind.COMPANY, 1).index) in found


def test_a_part_that_hides_a_later_record_than_the_one_before_fails(quick: Audited) -> None:
    _, month = changed_keys(quick)
    last = leaf_of(month, LeafKind.COMPANY, 2)
    before, after = quick.bundle(0, last.index), quick.bundle(last.index + 1)
    record = parse_b64u(parse_json(last.public.body)["record_sha256"])
    hidden = replace(
        after,
        leaves=tuple(leaf for leaf in after.leaves if leaf.index != last.index),
        records={name: data for name, data in after.records.items() if name != record},
    )
    for shown, expected in ((after, set()), (hidden, {(Step.RECORDS, None)})):
        carried = Carried()
        assert failed(verify_both(before, quick.service.trust, carried)) == set()
        assert failed(verify_both(shown, quick.service.trust, carried)) == expected


@pytest.mark.parametrize("agent", [0, 1])
def test_an_agent_that_registered_as_one_later_is_told_as_one(quick: Audited, agent: int) -> None:
    consent = quick.service.consent(agent_allowed=True)
    for version in (2, 3):
        rotated(quick, version, agent=1)
    assert quick.service.ask(consent).status_code == 200
    quick.settle()
    month = quick.bundle()

    def tell(forge: Forge) -> None:
        event = forge.event(LeafKind.ANSWER)
        context = parse_json(forge.named(event.personal, "decision"))["context"]
        forge.swap_json(event.personal, "decision", context={**context, "agent": agent})  # type: ignore[dict-item]

    forge, bundle = signed_anew(quick, month, tell)
    found = failed(verify_both(bundle, quick.service.trust))
    assert ((Step.DECISION, forge.index(LeafKind.ANSWER)) in found) == (not agent)
