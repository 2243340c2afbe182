"""A company that is denied too often makes the log grow by a leaf a minute, and still nothing of it can be hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy
from starlette.datastructures import State

from tests.audit_kit import Audited, failed, verify
from tests.consent_kit import NOW
from tests.evidence.test_tombstones import erase_all
from tests.proof.forge import Forge
from tests.vault_kit import meet_after
from tests.waiting import together
from vault import app
from vault.answers.floods import ALONE
from vault.clock import unix_s
from vault.encoding import JsonObject, b64u, parse_json
from vault.evidence import auditors
from vault.notices.feed import notices
from vault.proof.bound import bind
from vault.proof.bundle import Bundle, records_by_hash
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind, make_entry
from vault.proof.member import Member, dump_member, is_member, parse_member, verify_group
from vault.proof.merkle import Edge, leaf_hash
from vault.proof.tombstone import is_tombstone
from vault.proof.verify import Step
from vault.schema.consent import ConsentVersion
from vault.seal.ids import ConsentId, SubjectId, new_id
from vault.tlog import groups, log
from vault.tlog.log import PendingId

MORE = 4
MINUTE = timedelta(seconds=60)


def denied(site: Audited, consent: ConsentVersion | bytes, times: int) -> None:
    for _ in range(times):
        assert site.service.ask(consent).status_code == 403


def publish(site: Audited) -> list[PendingId]:
    """Let the minute end."""
    with site.service.database.transaction() as session:
        found = groups.publish(session, LeafKind.DENIALS, unix_s(site.service.clock.at) + 60)
    site.settle()
    return found


def grown(site: Audited, ask: Callable[[], None]) -> int:
    """Return by how many leaves the log grew, and let a minute pass."""
    before = site.settle()
    ask()
    publish(site)
    site.service.clock.at += MINUTE
    return site.settle() - before


def flooded(site: Audited) -> tuple[ConsentVersion, Bundle]:
    """Withdraw a consent, flood under it and under one that does not exist; return the consent and the whole log."""
    consent = site.service.consent()
    site.service.withdraw(consent)
    denied(site, consent, ALONE + MORE)
    denied(site, new_id(), 1)
    publish(site)
    return consent, site.bundle()


def members_in(bundle: Bundle) -> list[Member]:
    return [parse_member(record) for record in bundle.records.values() if is_member(record)]


def test_beyond_a_few_a_minute_denials_share_one_leaf_that_verifies(site: Audited) -> None:
    consent, bundle = flooded(site)
    report = verify(site, bundle)
    assert report.failures == ()
    assert report.checked[Step.GROUPS] == 1 + MORE + 1
    alone = [kind for kind in _kinds(site) if kind == "denial"]
    assert (len(alone), _kinds(site).count("denials")) == (ALONE, 1)
    assert report.checked[Step.DECISION] == ALONE + MORE  # each is decided again; nothing was under no consent
    site.service.clock.at += MINUTE
    denied(site, consent, 1)
    site.settle()
    assert _kinds(site).count("denial") == ALONE + 1, "the next minute counts anew"
    assert verify(site, site.bundle()).failures == ()


def _kinds(site: Audited) -> list[str]:
    with site.service.database.snapshot() as session:
        return [leaf.kind.value for leaf in log.find(session, limit=10_000)]


def test_nothing_waits_for_ever_and_nothing_is_grouped_before_its_minute_is_over(site: Audited) -> None:
    consent = site.service.consent()
    site.service.withdraw(consent)
    denied(site, consent, ALONE + 1)
    now_s = unix_s(site.service.clock.at)
    begins_s = now_s - now_s % 60
    for at_s, due in ((begins_s + 59, False), (begins_s + 60, True)):
        with site.service.database.transaction() as session:
            assert groups.is_due(session, at_s) is due
            assert len(groups.publish(session, LeafKind.DENIALS, at_s)) == due
    with site.service.database.snapshot() as session:
        assert not groups.is_due(session, begins_s + 600)


def test_the_app_logs_a_minute_that_is_over(quick: Audited) -> None:
    consent = quick.service.consent()
    quick.service.withdraw(consent)
    denied(quick, consent, ALONE + MORE)
    state = State({"database": quick.service.database, "clock": quick.service.clock})
    for groups_logged in (0, 1, 1):
        app._publish_denied(state)
        quick.settle()
        assert _kinds(quick).count("denials") == groups_logged
        quick.service.clock.at += MINUTE
    quick.service.clock.at = NOW
    assert len(members_in(quick.bundle())) == MORE


def test_two_processes_that_publish_at_once_log_each_denial_once(
    site: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = site.service.consent()
    site.service.withdraw(consent)
    denied(site, consent, ALONE + MORE)
    meet_after(monkeypatch, groups, "append", site.service.database)
    together(lambda: publish(site), lambda: publish(site))
    assert _kinds(site).count("denials") == 1
    assert len(members_in(site.bundle())) == MORE


def test_the_log_grows_alike_for_a_consent_that_does_not_exist(quick: Audited) -> None:
    """Otherwise anybody who watches the log could tell one from a person who may not be asked about."""
    consents = [quick.service.consent() for _ in range(ALONE + MORE)]
    for consent in consents:
        quick.service.withdraw(consent)
    there = grown(quick, lambda: [denied(quick, consent, 1) for consent in consents] and None)
    nowhere = grown(quick, lambda: [denied(quick, new_id(), 1) for _ in consents] and None)
    assert there == nowhere


def test_the_owner_is_told_how_often_and_why(site: Audited) -> None:
    stranger = site.stranger()
    flooded(site)
    with site.service.database.snapshot() as session:
        told = notices(session, site.service.owner.vault, after=-1, limit=100)
        others = notices(session, stranger.vault, after=-1, limit=100)
    assert LeafKind.DENIALS not in {notice.leaf.kind for notice in others}
    [shared] = [notice for notice in told if notice.leaf.kind is LeafKind.DENIALS]
    assert shared.sentence.endswith(f"was refused within one minute this often: {MORE}.")
    assert shared.rules.keys() == {"consent-not-active"}
    assert [notice.leaf.index for notice in told] == sorted({notice.leaf.index for notice in told})
    with site.service.database.snapshot() as session:
        rest = notices(session, site.service.owner.vault, after=shared.leaf.index, limit=100)
    assert LeafKind.DENIALS not in {notice.leaf.kind for notice in rest}


def test_a_person_who_is_erased_leaves_only_entries_and_tombstones(site: Audited) -> None:
    _, before = flooded(site)
    erase_all(site)
    bundle = site.bundle()
    assert verify(site, bundle).failures == ()
    entries = {member.entry for member in members_in(before)}
    assert {member.entry for member in members_in(bundle)} == entries
    assert [member.personal is None for member in members_in(bundle)].count(True) == MORE
    stones = replace(
        bundle, records={name: record for name, record in bundle.records.items() if not is_tombstone(record)}
    )
    [group] = {member.group for member in members_in(bundle)}
    assert (Step.GROUPS, group) in failed(verify(site, stones))


def test_what_waits_for_its_group_is_erased_with_its_person(quick: Audited) -> None:
    consent = quick.service.consent()
    quick.service.withdraw(consent)
    denied(quick, consent, ALONE + MORE)
    erase_all(quick)
    publish(quick)
    bundle = quick.bundle()
    assert [member.personal for member in members_in(bundle)] == [None] * MORE
    assert verify(quick, bundle).failures == ()


def _change(bundle: Bundle, change: Callable[[list[Member]], list[Member]]) -> Bundle:
    others = [record for record in bundle.records.values() if not is_member(record)]
    return replace(bundle, records=records_by_hash([*others, *map(dump_member, change(members_in(bundle)))]))


LIES: dict[str, Callable[[list[Member]], list[Member]]] = {
    "one left out": lambda some: [member for member in some if member.position != 1],
    "the last left out": lambda some: [member for member in some if member.position != len(some) - 1],
    "all left out": lambda _: [],
    "one twice": lambda some: [*some, replace(some[0], position=len(some))],
    "two moved": lambda some: [replace(m, position={0: 1, 1: 0}.get(m.position, m.position)) for m in some],
    "one exchanged": lambda some: [replace(m, entry=some[0].entry) for m in some],
    "one shut": lambda some: [replace(m, personal=None) if m.position == 0 else m for m in some],
    "another opening": lambda some: [replace(m, public=some[0].public) for m in some],
    "of no leaf": lambda some: [*some, replace(some[0], group=0)],
}


@pytest.mark.parametrize("name", LIES)
def test_a_group_that_is_not_shown_whole_is_named(quick: Audited, name: str) -> None:
    _, bundle = flooded(quick)
    assert failed(verify(quick, bundle)) == set()
    assert {step for step, _ in failed(verify(quick, _change(bundle, LIES[name])))} >= {Step.GROUPS}


def told_anew(site: Audited, bundle: Bundle, change: Callable[[JsonObject, JsonObject], object]) -> Bundle:
    """Let the denials that share a leaf have said something else, in a log signed anew."""
    [at] = {member.group for member in members_in(bundle)}
    forge, made = Forge.of(site.service, bundle), []
    for member in sorted(members_in(bundle), key=lambda member: member.position):
        assert member.personal is not None
        public, personal = parse_json(member.public.body), parse_json(member.personal.body)
        change(public, personal)
        entry, opened = make_entry(public, personal)
        made.append(replace(member, entry=entry, public=opened.public, personal=opened.personal))
    forge.events[at].public["root"] = b64u(Edge().extend(leaf_hash(member.entry) for member in made).root)
    others = [record for record in forge.records.values() if not is_member(record)]
    lie = replace(forge.bundle(whole=True), withheld=bundle.withheld)
    return replace(lie, records=records_by_hash([*others, *map(dump_member, made)]))


def as_anothers(public: JsonObject, personal: JsonObject) -> None:
    """Bind a denial to a subject that the service made up."""
    if "consent" in personal:
        own = SubjectId(bytes(range(16)))
        bound, opens = bind(own)
        public.update(bound)
        personal.update({**opens, "subject": b64u(own)})


def test_a_denial_of_a_group_that_another_key_could_have_erased_is_named(quick: Audited) -> None:
    _, bundle = flooded(quick)
    [at] = {member.group for member in members_in(bundle)}
    assert failed(verify(quick, told_anew(quick, bundle, lambda _public, _personal: None))) == set()
    elsewhere = bind(SubjectId(bytes(16)))[0]
    lie = told_anew(quick, bundle, lambda public, _: public.update(elsewhere))
    assert failed(verify(quick, lie)) == {(Step.GROUPS, at)}


def test_a_denial_of_a_group_that_is_bound_to_the_services_own_key_is_named(quick: Audited) -> None:
    """It holds together, and its subject could order that it goes: but the consent is somebody else's."""
    _, bundle = flooded(quick)
    [at] = {member.group for member in members_in(bundle)}
    assert failed(verify(quick, told_anew(quick, bundle, as_anothers))) == {(Step.GROUPS, at)}


def test_a_stretch_shows_under_which_consents_its_shared_denials_were_asked(quick: Audited) -> None:
    """Where a consent has no other event in it, the denials could not be decided again: an honest service looked false."""
    consent, other = quick.service.consent(), quick.service.consent()
    for one in (consent, other):
        quick.service.withdraw(one)
    before = quick.settle()
    denied(quick, consent, ALONE)
    denied(quick, other, 1)
    publish(quick)
    report = verify(quick, quick.bundle(before))
    assert report.failures == ()
    assert report.checked[Step.DECISION] == ALONE + 1
    [group] = {member.group for member in members_in(quick.bundle())}
    assert verify(quick, quick.bundle(group, group)).failures == ()


@pytest.mark.parametrize("junk", [b"", b',"more":1', b',"place":"x"', b',"public":0', b',"group":-1'])
def test_a_malformed_event_of_a_group_is_a_missing_one(quick: Audited, junk: bytes) -> None:
    _, bundle = flooded(quick)
    [first, *_] = [record for record in bundle.records.values() if is_member(record)]
    kept = [record for record in bundle.records.values() if record != first]
    broken = first[:-1] + junk if not junk else b'{"format":"twinvault-member/1"' + junk + b"}"
    found = replace(bundle, records=records_by_hash([*kept, broken]))
    assert {step for step, _ in failed(verify(quick, found))} >= {Step.GROUPS}


def test_a_range_with_too_many_shared_denials_is_asked_for_in_smaller_parts(
    quick: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bundle = flooded(quick)
    [group] = {member.group for member in members_in(bundle)}
    monkeypatch.setattr(auditors, "MAX_LEAVES", MORE)
    refused = quick.send(quick.request(group - 1, group))
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/audit-range-too-full")
    assert quick.send(quick.request(group - 2, group - 1)).status_code == 200
    assert len(members_in(quick.bundle(group, group))) == MORE + 1, "one leaf is always shown, and whole"


def test_a_flood_takes_no_place_in_the_consents_chain(quick: Audited) -> None:
    consent, bundle = flooded(quick)
    bodies = [member.personal.body for member in members_in(bundle) if member.personal is not None]
    assert not any(b"consent_seq" in body for body in bodies)
    query = "SELECT consent_seq FROM consent WHERE consent_id = :c"
    with quick.service.database.snapshot() as session:
        found = session.connection().execute(sqlalchemy.text(query), {"c": ConsentId(consent.consent_id)})
        assert found.scalar_one() == 2 + ALONE


def test_a_group_that_claims_to_be_endless_costs_nothing() -> None:
    for count in (2**53 - 1, -1, 0, "2", [], [[]]):
        with pytest.raises(InvalidProof):
            verify_group([], {"count": count, "root": ""})
