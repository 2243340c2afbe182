"""Deciding from the command line: small by default, narrowed, renewed, frozen, withdrawn, with receipts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from tests.client_kit import PASSPHRASE, REDIRECT, Service, code_on, company_terms, open_page, push
from twinvault.api import ApiError
from twinvault.approvals import Approvals
from twinvault.cli import app
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.clock import SystemClock
from vault.encoding import b64u
from vault.parties import companies
from vault.seal.person import Profile as Person

PURPOSE = "dpv:ProvideProductRecommendations"
HEADER = "household_id,basket_id,product_id,transaction_timestamp,product_category,quantity,sales_value\n"
Run = Callable[..., Any]


@pytest.fixture
def owner(run: Run, service: Service, tmp_path: Path) -> Run:
    """An owner's commands, on a vault with a few purchases."""
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")

    def owner(command: str, *argv: object, **how: Any) -> Any:
        return run("owner", command, *argv, "--passphrase-file", secret, **how)

    owner("init", "--trust", service.trust_file, "--kit-file", tmp_path / "kit", "--yes")
    file = tmp_path / "household.csv"
    file.write_text(HEADER + "1,1,7,2026-01-15 10:00:00,BACON,1,2.50\n")
    owner("import", file)
    return owner


@pytest.fixture
def request_file(run: Run, service: Service, tmp_path: Path) -> Path:
    """What a company asks for: long, with optional data and agents."""
    record, request = tmp_path / "record.jws", tmp_path / "request.jws"
    run("company", "register", "--trust", service.trust_file, "--name", "Acme", "--contact", "a@acme.example",
        "--record", record, "--profile", "acme")  # fmt: skip
    with service.app.state.database.transaction() as session:
        companies.register(session, record.read_text().strip(), now=SystemClock().now())
    run("company", "request", "--purpose", PURPOSE, "--purpose", "dpv:ServicePersonalisation",
        "--controller", "Acme, a@acme.example", "--withdrawal", "https://a.example", "--rights", "https://b.example",
        "--from", "2026-01", "--to", "2026-06", "--optional", "pd:Location", "--agent", "--out", request,
        "--profile", "acme")  # fmt: skip
    return request


def commands_of(group: str) -> Any:
    return typer.main.get_command(app).commands[group]  # type: ignore[attr-defined]  # a group of groups


def in_days(days: int) -> set[str]:
    now = datetime.now(UTC)
    return {f"{now + timedelta(days=days, minutes=minutes):%Y-%m-%d}" for minutes in (-30, 0)}


def shown(owner: Run, consent: str) -> dict[str, Any]:
    (found,) = [item for item in owner("consents")["consents"] if item["consent"] == consent]
    return dict(found)


def test_what_is_given_is_small_unless_more_is_said(owner: Run, request_file: Path) -> None:
    given = owner("give", "--request", request_file, "--yes")
    assert given["until"] in in_days(30)
    item = shown(owner, given["consent"])
    assert item["categories"] == ["pd:Purchase"]
    assert (item["renew_now"], item["state"], item["special"]) == (False, "dpv:ConsentGiven", [])
    more = owner("give", "--request", request_file, "--yes", "--category", "pd:Purchase", "--category", "pd:Location",
                 "--days", 400)  # fmt: skip
    assert shown(owner, more["consent"])["categories"] == ["pd:Location", "pd:Purchase"]
    assert more["until"] in in_days(365)  # never longer than asked


def test_what_was_not_asked_cannot_be_added(owner: Run, request_file: Path) -> None:
    given = owner("give", "--request", request_file, "--yes")
    assert "more than was asked" in owner("give", "--request", request_file, "--influence", "--yes", expect=1)
    assert "narrow" in owner("narrow", given["consent"], "--quota", 101, "--yes", expect=1).lower()
    assert shown(owner, given["consent"])["changes"][0].removeprefix("1 given ") in in_days(0)


def test_what_takes_an_explicit_word_can_be_asked_for_and_is_given_by_that_word_alone(
    owner: Run, run: Run, request_file: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "sensitive.jws"
    run("company", "request", "--purpose", PURPOSE, "--purpose", "x:InfluenceBehaviour", "--controller", "Acme",
        "--withdrawal", "https://a.example", "--rights", "https://b.example", "--from", "2026-01", "--to", "2026-06",
        "--special", "pd:Health", "--influence", "--after-death", PURPOSE, "--out", asked, "--profile", "acme")  # fmt: skip
    small = shown(owner, owner("give", "--request", asked, "--yes")["consent"])
    assert small["special"] == []
    said = ("--special", "pd:Health", "--influence", "--after-death", PURPOSE)
    given = owner("give", "--request", asked, "--yes", *said)["consent"]
    assert shown(owner, given)["special"] == ["pd:Health"]
    assert "allowed special categories: Health; influence: yes" in owner("receipt", given, plain=True)
    for word in (said[:2], said[2:3], said[3:]):
        assert "more than was asked" in owner("give", "--request", request_file, "--yes", *word, expect=1)


def test_anything_is_narrowed_then_renewed_then_withdrawn(
    owner: Run, run: Run, request_file: Path, tmp_path: Path, service: Service
) -> None:
    wide = ("--category", "pd:Purchase", "--category", "pd:Location", "--agents")
    consent = owner("give", "--request", request_file, "--yes", *wide)["consent"]
    owner("narrow", consent, "--quota", 5, expect=1)  # nobody agreed
    owner("narrow", consent, "--yes", "--quota", 5, "--only-purpose", PURPOSE, "--only-question", "recommend",
          "--category", "pd:Purchase", "--from", "2026-01", "--to", "2026-01", "--days", 3, "--no-agents")  # fmt: skip
    item = shown(owner, consent)
    assert item["purposes"] == [PURPOSE]
    assert item["questions"] == ["recommend"]
    assert item["categories"] == ["pd:Purchase"]
    assert (item["data_from"], item["data_to"], item["quota_left"]) == ("2026-01", "2026-01", 5)
    assert item["renew_now"]
    assert item["until"] in in_days(3)
    assert consent in {notice["consent"] for notice in owner("history")["ending"]}
    renewed = owner("renew", consent, "--yes")
    assert consent not in {notice["consent"] for notice in owner("history")["ending"]}
    assert renewed["until"] in in_days(30)
    item = shown(owner, consent)
    assert (item["state"], item["renew_now"], item["purposes"]) == ("dpv:RenewedConsentGiven", False, [PURPOSE])
    ended = owner("withdraw", consent)
    assert ended["event"] == "withdrawn"
    only = owner("history", "--consent", consent)
    events = [event for event in owner("history")["history"] if event["personal"].get("consent") == consent]
    assert (only["history"], only["ending"]) == (events, [])
    assert {event["kind"] for event in events} >= {"consent", "handover"}
    item = shown(owner, consent)
    assert (item["state"], item["live"]) == ("dpv:ConsentWithdrawn", False)
    assert [change.split()[1] for change in item["changes"]] == ["given", "narrowed", "renewed", "withdrawn"]
    assert consent not in {item["consent"] for item in owner("consents", "--live")["consents"]}
    assert {item["consent"] for item in owner("consents", "--grantee", item["grantee"])["consents"]} == {consent}

    kept = tmp_path / "receipt.json"
    assert "withdrawn by you" in owner("receipt", consent, "--out", kept, plain=True)
    assert "donné par vous" in owner("receipt", consent, "--version", 1, "--language", "fr", plain=True)
    owner("receipt", consent, "--language", "xx", expect=2)
    trust = ("--trust", service.trust_file)
    assert run("owner", "verify-receipt", kept, *trust)["verified"]
    kept.write_text(kept.read_text().replace('"index": ', '"index": 1'))
    run("owner", "verify-receipt", kept, *trust, expect=1)
    kept.write_text("[" * 100_000)
    run("owner", "verify-receipt", kept, *trust, expect=1)


def test_a_company_is_asked_to_delete_what_it_was_told(
    owner: Run, run: Run, request_file: Path, tmp_path: Path, work: Callable[[], None]
) -> None:
    consent = owner("give", "--request", request_file, "--yes")["consent"]
    owner("refresh")
    work()
    run("company", "ask", consent, "--purpose", PURPOSE, "--profile", "acme")
    assert "in force; end it first" in owner("ask-erasure", consent, expect=1)
    own = next(item["consent"] for item in owner("consents")["consents"] if item["kind"] == "self")
    owner("withdraw", consent)
    kept = tmp_path / "enclosed.json"
    letter = owner("ask-erasure", consent, "--out", kept)
    answered = [event["personal"] for event in owner("history")["history"] if event["kind"] == "answer"]
    assert (letter["answers"], len(answered)) == (1, 1)
    item = shown(owner, consent)
    for said in (consent, answered[0]["question_id"], "which I withdrew on", item["rights"], "Article 17"):
        assert said in letter["letter"]
    assert letter["to"] == item["rights"]
    assert json.loads(kept.read_text())["envelope"], "the receipt to enclose"
    french = owner("ask-erasure", consent, "--language", "fr", plain=True)
    assert "que j'ai retiré le" in french
    assert answered[0]["question_id"] in french
    owner("withdraw", own)
    assert "Nobody else was told" in owner("ask-erasure", own, expect=1)


def test_consents_are_searched_and_sorted(owner: Run, request_file: Path) -> None:
    soon = owner("give", "--request", request_file, "--yes", "--days", 3)["consent"]
    later = owner("give", "--request", request_file, "--yes", "--days", 9)["consent"]
    owner("withdraw", soon)

    def listed(*how: str) -> list[str]:
        return [item["consent"] for item in owner("consents", *how)["consents"]]

    assert listed("--search", "WITHDRAWN") == [soon]
    assert set(listed("--search", "productrecommendations")) >= {soon, later}
    assert listed("--search", "nothing of the kind") == []
    assert listed("--search", "acme") == [soon, later], "a company is found by the name in its own record"
    assert set(listed("--search", "probably choose next")) >= {soon, later}, "what people read is found too"
    read = owner("consents", "--search", "acme", plain=True)
    assert "purposes=Provide Product Recommendations" in read
    assert "what you will probably choose next" in read
    assert "pd:Purchase" not in read
    assert listed("--sort", "until", "--search", PURPOSE)[:2] == [soon, later]
    assert len(listed("--sort", "used")) == 3
    owner("consents", "--sort", "colour", expect=2)


def test_a_list_of_consents_says_to_whom_one_may_complain(owner: Run, run: Run, request_file: Path) -> None:
    owner("give", "--request", request_file, "--yes")
    listed = owner("consents", "--search", "acme")
    assert (listed["consents"][0]["complain_to"], len(listed["authorities"])) == (["any"], 32), (
        "the company said EU only"
    )
    mine = run("owner", "authorities", "--country", "uk")
    assert (mine["country"], [one["web"] for one in mine["authorities"]]) == ("GB", ["https://ico.org.uk"])
    assert run("owner", "authorities")["country"] == "GB", "kept in the profile"
    listed = owner("consents", "--search", "acme")
    assert listed["consents"][0]["complain_to"] == ["GB"]
    assert [one["country"] for one in listed["authorities"]] == ["GB"]
    assert listed["authorities_as_of"] in owner("consents", plain=True)
    assert "one of: AT, BE" in run("owner", "authorities", "--country", "XX", expect=1)


def test_a_person_reads_and_signs_in_the_own_language(
    owner: Run, run: Run, request_file: Path, tmp_path: Path, service: Service
) -> None:
    consent = owner("give", "--request", request_file, "--yes", "--language", "fr")["consent"]
    kept = tmp_path / "receipt.json"
    owner("receipt", consent, "--out", kept)
    checked = run("owner", "verify-receipt", kept, "--trust", service.trust_file, "--language", "fr")
    assert checked["notice"].startswith("Vous autorisez Acme à interroger votre jumeau.")
    assert "Avis : montré en fr, reconstitué mot pour mot" in checked["text"]
    secret = tmp_path / "passphrase"
    begin = ("--trust", service.trust_file, "--kit-file", tmp_path / "kit2", "--passphrase-file", secret, "--yes")
    made = run("owner", "init", *begin, "--language", "fr", "--profile", "fr")
    receipt = owner("receipt", made["consent"], "--profile", "fr", plain=True)
    assert "Reçu du consentement" in receipt
    assert "montré en fr" in receipt


def test_withdrawing_takes_no_more_steps_than_giving(owner: Run, request_file: Path) -> None:
    given = owner("give", "--request", request_file, "--yes")["consent"]
    ended = owner("withdraw", given)
    assert ended["event"] == "withdrawn", "one command, one id, and no question in between"
    assert "stays with the company" in ended["then"]
    assert f"owner ask-erasure {given}" in ended["then"]
    parts = {name: commands_of("owner").commands[name].params for name in ("give", "withdraw")}
    needed = {name: [part.name for part in items if part.required] for name, items in parts.items()}
    assert needed["withdraw"] == ["consent"]
    assert not any(part.name == "yes" for part in parts["withdraw"]), "giving asks for agreement; withdrawing must not"


def test_a_frozen_vault_answers_nobody(owner: Run, run: Run, request_file: Path, work: Callable[[], None]) -> None:
    consent = owner("give", "--request", request_file, "--yes")["consent"]
    owner("refresh")
    work()
    ask = ("company", "ask", consent, "--purpose", PURPOSE, "--profile", "acme")
    run(*ask)
    assert owner("freeze")["frozen"]
    assert owner("status")["frozen"]
    run(*ask, expect=1)
    owner("ask", expect=1)
    denied = [event for event in owner("history")["history"] if event["kind"] == "denial"]
    assert "vault-frozen" in {rule["rule"] for rule in denied[0]["rules"]}
    item = shown(owner, consent)
    assert (item["answers"], item["denials"]) == (1, 1)
    assert item["last_answer"] in in_days(0)
    assert not owner("unfreeze")["frozen"]
    run(*ask)


def test_what_the_rules_go_by_is_shown_and_changed(
    owner: Run, run: Run, request_file: Path, work: Callable[[], None]
) -> None:
    consent = owner("give", "--request", request_file, "--yes")["consent"]
    owner("refresh")
    work()
    ask = ("company", "ask", consent, "--purpose", PURPOSE, "--profile", "acme")
    run(*ask)
    told = {"minor": False, "guardian_ok": False, "deceased": False}
    assert owner("person").items() >= told.items()
    assert owner("person", "--minor")["minor"]
    run(*ask, expect=1)
    rules = {
        rule["rule"] for event in owner("history")["history"] if event["kind"] == "denial" for rule in event["rules"]
    }
    assert "minor-without-guardian" in rules
    assert owner("person", "--minor", "--guardian").items() >= {"minor": True, "guardian_ok": True}.items()
    run(*ask)
    assert owner("person", "--adult", "--no-guardian").items() >= told.items()
    assert [event["kind"] for event in owner("history")["history"]].count("profile") == 3


def test_an_owner_signs_what_they_said_of_themselves_whatever_the_service_says(
    owner: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"minor": True, "guardian_ok": False, "deceased": False}
    with monkeypatch.context() as lying:
        lying.setattr(Owner, "person", lambda _: Person(minor=True, guardian_ok=True, deceased=True))
        assert owner("person", "--minor").items() >= said.items()
        assert "Say --minor or --adult" in owner("person", "--guardian", expect=2)
    assert owner("person").items() >= said.items()


def test_a_lost_device_is_revoked(owner: Run) -> None:
    (device,) = owner("devices")["devices"]
    assert (device["role"], device["revoked"], device["this_machine"]) == ("owner", False, True)
    assert owner("revoke-device", device["device"])["chains_kept"] == 1
    assert owner("devices")["devices"][0]["revoked"]
    assert "revoked already" in owner("revoke-device", device["device"], expect=1)
    assert "lists no such device" in owner("revoke-device", "A" * 22, expect=1)


@pytest.fixture
def code(service: Service, owner: Run, tmp_path: Path) -> Iterator[tuple[str, Callable[[], httpx.Response]]]:
    """The code of a pushed request that a browser shows, and a way to look at that page again."""
    shop, record = Company.register(
        tmp_path / "home" / "shop", service.trust, name="Shop", contact="s@shop.example", redirect_uris=[REDIRECT]
    )
    with service.app.state.database.transaction() as session:
        companies.register(session, record, now=SystemClock().now())
    profile = Profile.load(tmp_path / "home" / "default")
    opened = Owner.unlock(profile, passphrase=PASSPHRASE)
    uri = push(service, shop, company_terms(shop, opened))
    opened.close()
    with httpx.Client(base_url=service.url) as browser:
        yield code_on(open_page(browser, shop, uri)), lambda: open_page(browser, shop, uri)
    shop.close()


def test_a_browsers_code_is_shown_and_approved(owner: Run, code: tuple[str, Callable[[], httpx.Response]]) -> None:
    letters, page = code
    asked = owner("requests", letters)
    assert (asked["company"], asked["renews"]) == ("Shop", None)
    assert "Shop" in asked["notice"]
    owner("approve", letters, expect=1)  # nobody agreed
    given = owner("approve", letters, "--quota", 1, "--yes")
    assert shown(owner, given["consent"])["quota_left"] == 1
    assert "code=" in page().headers["location"]
    owner("approve", letters, "--yes", expect=1)  # answered already
    assert len(owner("consents", "--live")["consents"]) == 2  # and nothing was given for it


def test_a_consent_whose_approval_is_refused_does_not_stay_open(
    owner: Run, code: tuple[str, Callable[[], httpx.Response]], monkeypatch: pytest.MonkeyPatch
) -> None:
    letters, _ = code
    before = {item["consent"] for item in owner("consents", "--live")["consents"]}

    def late(*_: object) -> None:
        raise ApiError("unknown-authorization", 404, "No authorization waits under this code.")

    monkeypatch.setattr(Approvals, "approve", late)
    owner("approve", letters, "--yes", expect=1)
    after = owner("consents")["consents"]
    assert {item["consent"] for item in after if item["live"]} == before
    assert len(after) == len(before) + 1  # it was given, and withdrawn


def test_a_browsers_code_is_denied(owner: Run, code: tuple[str, Callable[[], httpx.Response]]) -> None:
    letters, page = code
    assert owner("deny", letters)["denied"]
    assert "error=access_denied" in page().headers["location"]
    assert len(owner("consents")["consents"]) == 1


def test_a_renewal_is_listed_shown_approved_and_denied_by_its_name(
    owner: Run, service: Service, tmp_path: Path
) -> None:
    shop, record = Company.register(
        tmp_path / "home" / "shop", service.trust, name="Shop", contact="s@shop.example", redirect_uris=[REDIRECT]
    )
    with service.app.state.database.transaction() as session:
        companies.register(session, record, now=SystemClock().now())
    opened = Owner.unlock(Profile.load(tmp_path / "home" / "default"), passphrase=PASSPHRASE)
    wanted = company_terms(shop, opened)
    given = opened.give_company(opened.read_request(shop.sign_request(wanted))).version
    opened.close()
    renewal = {"grant_management_action": "replace", "grant_id": b64u(given.consent_id)}
    assert owner("requests") == {"requests": []}
    push(service, shop, wanted, **renewal)
    (asked,) = owner("requests")["requests"]
    assert (asked["company"], asked["renews"]) == ("Shop", b64u(given.consent_id))
    assert "Vous autorisez Shop" in owner("requests", asked["name"], "--language", "fr")["notice"]
    assert owner("deny", asked["name"])["denied"]
    assert owner("requests") == {"requests": []}
    push(service, shop, wanted, **renewal)
    (asked,) = owner("requests")["requests"]
    done = owner("approve", asked["name"], "--quota", 2, "--yes")
    assert (done["event"], done["consent"]) == ("renewed", b64u(given.consent_id))
    assert shown(owner, done["consent"])["quota_left"] == 2
    shop.close()
