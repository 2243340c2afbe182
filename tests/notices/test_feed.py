"""The owner's feed: everything about the own vault in plain words, checkable, and nothing about another's."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

import pytest

from tests.audit_kit import Audited
from vault.encoding import b64u, dump_json, parse_b64u
from vault.notices.sentences import WORDS, sentence
from vault.proof.leaf import LeafKind, Opening, Part, verify_opening
from vault.proof.tiles import parse_bundle
from vault.schema.consent import ConsentEvent
from vault.seal.ids import VaultId
from vault.tlog import log


def feed(site: Audited, vault: VaultId | None = None, **params: int | str) -> dict[str, Any]:
    service = site.service
    path = f"/v1/vaults/{b64u(vault or service.owner.vault)}/history"
    headers = {"authorization": f"Bearer {service.session_token()}"}
    response = service.client.get(path, params=params, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == kind]


def test_the_owner_reads_consents_answers_and_denials_in_plain_words(site: Audited) -> None:
    consent = site.live()
    events = feed(site)["events"]
    assert [event["index"] for event in events] == sorted(event["index"] for event in events)
    kinds = {event["kind"] for event in events}
    assert {"vault-genesis", "account", "ring-head", "consent", "handover", "answer", "denial"} <= kinds
    mine = [event for event in events if event["personal"].get("consent") == b64u(consent.consent_id)]
    chained = [event["personal"]["consent_seq"] for event in mine if event["kind"] != "handover"]
    assert chained == [1, 2, 3, 4, 5, 6, 7]
    said = [event["sentence"] for event in events]
    assert "Acme Groceries: version 1 of your consent is in force." in said
    assert "Acme Groceries: version 3 of your consent was withdrawn by you." in said
    assert "You: version 1 of your consent is in force." in said
    first, own, second = of_kind(events, "answer")
    asked = "asked what you will probably choose next (for: Provide Product Recommendations)"
    assert first["sentence"] == f"Acme Groceries {asked} and got an answer; 1 left this month."
    assert own["sentence"].startswith("You asked what you will probably choose next (for: ")
    assert second["personal"]["quota_left"] == 0
    spent, withdrawn = of_kind(events, "denial")
    assert {"rule": "quota-spent", "sentence": "The consent's quota of this month is spent."} in spent["rules"]
    told = [item["sentence"] for item in withdrawn["rules"]]
    assert "The consent was withdrawn, revoked, expired or invalidated." in told
    assert all(event["at"] for event in events)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([(LeafKind.LEGACY_PLAN, 1)], 1),
        ([], 0),
        ([(LeafKind.LEGACY_PLAN, 0)], 0),
        ([(LeafKind.LEGACY_PLAN, 1), (LeafKind.LEGACY_PLAN, 0)], 0),
        ([(LeafKind.LEGACY_PLAN, 1), (LeafKind.LEGACY_VETO, 0)], 0),
    ],
    ids=["spent", "no plan", "nothing sealed", "replaced", "over"],
)
def test_a_new_serving_key_is_told_where_it_spends_something(
    quick: Audited, steps: list[tuple[LeafKind, int]], told: int
) -> None:
    vault = quick.service.owner.vault
    with quick.service.database.transaction() as session:
        for kind, sealed in steps:
            log.append(session, kind, {}, {"version": 1, "sealed": sealed, "at": 0}, about=vault)
        for name, epoch in (("serving", 1), ("serving", 2), ("processor", 2)):
            log.append(session, LeafKind.KEY, {"name": name, "epoch": epoch}, {})
    quick.settle()
    said = of_kind(feed(quick)["events"], "key")
    assert [event["public"]["epoch"] for event in said] == [2] * told
    assert all("your executors can give none of them any more" in event["sentence"] for event in said)
    assert of_kind(feed(quick, after=quick.size())["events"], "key") == []


def test_a_client_checks_every_event_against_the_log(site: Audited) -> None:
    site.live()
    service = site.service
    events = feed(site)["events"]
    with service.database.snapshot() as session:
        entries = parse_bundle(log.entries(session, 0, log.head(session)[0]))
    for event in events:
        entry = parse_b64u(event["entry"])
        assert entries[event["index"]] == entry
        for part in Part:
            opening = Opening(parse_b64u(event[f"{part}_salt"]), dump_json(event[part]))
            assert verify_opening(entry, part, opening) == event[part]


def test_nothing_of_another_vault_is_shown(site: Audited) -> None:
    site.live()
    stranger = site.stranger()
    service = site.service
    ours = {event["index"] for event in feed(site)["events"]}
    service.owner = stranger
    theirs = feed(site, stranger.vault)["events"]
    assert [event["kind"] for event in theirs] == ["vault-genesis", "account", "ring-head"]
    assert ours.isdisjoint(event["index"] for event in theirs)


def test_another_vaults_feed_is_refused(quick: Audited) -> None:
    stranger = quick.stranger()
    headers = {"authorization": f"Bearer {quick.service.session_token()}"}
    path = f"/v1/vaults/{b64u(stranger.vault)}/history"
    assert quick.service.client.get(path, headers=headers).status_code == 404
    assert quick.service.client.get(path).status_code == 401


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_join_to_the_whole(quick: Audited, limit: int) -> None:
    quick.live()
    quick.bundle()
    quick.bundle(0, 0)
    quick.settle()
    whole = feed(quick)
    after, joined = -1, []
    while page := feed(quick, after=after, limit=limit):
        assert len(page["events"]) <= limit
        if not page["events"]:
            assert page["next"] == after
            break
        joined += page["events"]
        after = page["next"]
    assert joined == whole["events"]
    assert after == whole["next"]


def test_an_auditors_access_is_shown_to_those_whose_events_it_opened(quick: Audited) -> None:
    quick.live()
    size = quick.size()
    stranger = quick.stranger()
    quick.bundle(0, size - 1)
    quick.settle()
    (shown,) = of_kind(feed(quick)["events"], "auditor-access")
    assert f"leaves 0 to {size - 1} of the log" in shown["sentence"]
    assert shown["personal"] == {}
    quick.service.owner = stranger
    assert of_kind(feed(quick, stranger.vault)["events"], "auditor-access") == []


@pytest.mark.parametrize("params", [{"after": -2}, {"limit": 0}, {"limit": 257}])
def test_pages_beyond_the_bounds_are_refused(quick: Audited, params: dict[str, int]) -> None:
    headers = {"authorization": f"Bearer {quick.service.session_token()}"}
    path = f"/v1/vaults/{b64u(quick.service.owner.vault)}/history"
    assert quick.service.client.get(path, params=params, headers=headers).status_code == 422


def test_every_kind_of_event_and_end_has_its_sentence_in_both_languages() -> None:
    english, french = WORDS.values()
    assert english.events.keys() == french.events.keys()
    assert set(english.states) == set(french.states) == set(ConsentEvent)
    assert english.not_rules.keys() == french.not_rules.keys()
    for kind, said in english.events.items():
        fields = {name for _, name, _, _ in Formatter().parse(said) if name}
        assert {name for _, name, _, _ in Formatter().parse(french.events[kind]) if name} == fields


def test_an_owner_reads_french(site: Audited) -> None:
    site.live()
    events = feed(site, language="fr")["events"]
    assert [event["index"] for event in events] == [event["index"] for event in feed(site)["events"]]
    said = [event["sentence"] for event in events]
    assert "Acme Groceries : la version 1 de votre consentement est en vigueur." in said
    assert "Vous : la version 1 de votre consentement est en vigueur." in said
    assert any(sentence.startswith("L'exploitant : la version 1") for sentence in said)
    asked = "question posée : ce que vous choisirez probablement ensuite (finalité : Recommandation de produits)"
    assert f"Acme Groceries, {asked}. Réponse reçue ; il en reste 1 ce mois-ci." in said
    assert [one for one in said if re.search(r"(next_choice|dpv:|pd:|Vous a )", one)] == []
    spent, withdrawn = of_kind(events, "denial")
    assert {"rule": "quota-spent", "sentence": "Le quota du consentement pour ce mois est épuisé."} in spent["rules"]
    assert all(item["sentence"].startswith(("Le ", "La ")) for item in withdrawn["rules"])


def test_a_language_that_nobody_speaks_here_is_refused(quick: Audited) -> None:
    headers = {"authorization": f"Bearer {quick.service.session_token()}"}
    path = f"/v1/vaults/{b64u(quick.service.owner.vault)}/history"
    assert quick.service.client.get(path, params={"language": "tlh"}, headers=headers).status_code == 422


def test_a_company_name_cannot_write_the_sentence() -> None:
    party = "{quota_left} {0} Acme"
    public = {"question_kind": "next_choice"}
    assert (
        sentence(LeafKind.DENIAL, {**public}, {"quota_left": 9}, party)
        == f"{party} asked what you will probably choose next and was refused."
    )
