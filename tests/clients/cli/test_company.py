"""A company's commands: it asks, another process waits, and requests are printed for any HTTP client."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.client_kit import Service, purchases
from twinvault.api import Api, Unreachable
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.profile import Profile
from vault.clock import SystemClock
from vault.encoding import b64u, parse_b64u
from vault.oauth import registration
from vault.parties import companies
from vault.schema.category import Category
from vault.schema.terms import ConsentKind, Terms
from vault.seal.ids import ConsentId

PURPOSE = "dpv:ProvideProductRecommendations"
ASK = (
    "request", "--purpose", PURPOSE, "--controller", "Acme", "--withdrawal", "https://a.example", "--rights",
    "https://b.example", "--from", "2026-01", "--to", "2026-01",
)  # fmt: skip
Run = Callable[..., Any]


@pytest.fixture
def run(run: Run) -> Run:
    """The commands of a company."""

    def company(*argv: object, **how: Any) -> Any:
        return run("company", *argv, "--profile", "acme", **how)

    return company


@pytest.fixture
def acme(service: Service, run: Run, tmp_path: Path) -> Run:
    """The commands of a company that the operator registered."""
    record = tmp_path / "record.jws"
    run("register", "--trust", service.trust_file, "--name", "Acme", "--contact", "a@acme.example", "--record", record,
        "--redirect-uri", "https://acme.example/back")  # fmt: skip
    with service.app.state.database.transaction() as session:
        companies.register(session, record.read_text().strip(), now=SystemClock().now())
    return run


def given(owner: Owner, acme: Run, tmp_path: Path) -> str:
    """Give what the company asks for on paper; return the consent's id."""
    owner.import_traces(purchases())
    acme(*ASK, "--out", tmp_path / "request.jws")
    asked = owner.read_request((tmp_path / "request.jws").read_text().strip())
    return b64u(owner.give_company(asked).version.consent_id)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--name", "", "name must have 2 to 80"),
        ("--name", "Ac\u202eme", "name must have 2 to 80"),
        ("--contact", "x", "contact must have 2 to 200"),
        ("--redirect-uri", "garbage", "redirect URI must be an https URL"),
    ],
)
def test_what_the_operator_would_have_to_refuse_is_not_signed(
    run: Run, service: Service, tmp_path: Path, *, option: str, value: str, said: str
) -> None:
    record = tmp_path / "record.jws"
    named = ("--trust", service.trust_file, "--record", record, "--name", "Acme", "--contact", "a@acme.example")
    assert said in run("register", *named, option, value, expect=1)
    assert not record.exists()
    assert run("register", *named)["record"] == str(record), "the profile's name is not used up"


def test_filing_is_repeated_after_the_service_was_down(
    run: Run, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("--trust", service.trust_file, "--record", tmp_path / "r", "--contact", "a@acme.example")
    run("register", *named, "--name", "Acme", "--sandbox", expect=2)
    with monkeypatch.context() as down:
        down.setattr(Api, "request", lambda *_, **__: (_ for _ in ()).throw(Unreachable("down")))
        run("register", *named, "--name", "Acme", "--apply", expect=3)
    assert "says something else" in run("register", *named, "--name", "Other", "--apply", expect=1)
    done = [run("register", *named, "--name", "Acme", "--apply") for _ in range(2)]
    assert [(one["status"], one["company_id"]) for one in done] == [("pending", done[0]["company_id"])] * 2
    assert "lies in" in run("register", *named, "--name", "Acme", expect=1), "new keys need a new profile"


def test_an_invitation_is_read_from_a_file_and_taken_once(
    run: Run, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "MAX_WAITING", 0)
    named = ("--trust", service.trust_file, "--record", tmp_path / "r", "--contact", "a@acme.example", "--name", "Acme")
    with service.app.state.database.transaction() as session:
        (tmp_path / "invitation").write_text(registration.invite(session, now=SystemClock().now()) + "\n")
    (tmp_path / "other").write_text("A" * 43)
    run("register", *named, "--invitation", tmp_path / "other", expect=2)  # nothing is filed with it
    assert "invite" in run("register", *named, "--apply", expect=1)
    assert "invitation" in run("register", *named, "--apply", "--invitation", tmp_path / "other", expect=1)
    done = [run("register", *named, "--apply", "--invitation", tmp_path / "invitation") for _ in range(2)]
    assert [one["status"] for one in done] == ["pending", "pending"]


@pytest.mark.parametrize("option", ["--controller", "--withdrawal", "--rights", "--jurisdiction", "--retention"])
def test_a_request_that_no_owner_could_take_is_not_signed(acme: Run, tmp_path: Path, option: str) -> None:
    said = acme(*ASK, option, "", "--out", tmp_path / "request.jws", expect=1)
    assert "one line of 1 to 300 characters" in said or "a duration such as P30D" in said
    assert not (tmp_path / "request.jws").exists()


def test_a_renewal_is_asked_and_waited_for_by_two_processes(owner: Owner, acme: Run, tmp_path: Path) -> None:
    consent = given(owner, acme, tmp_path)
    first = acme(*ASK, "--renew", consent, "--quota", 7)
    assert "not decided yet" in acme("wait", "--timeout-s", 0, expect=1)
    second = acme(*ASK, "--renew", consent, "--quota", 8)
    assert first["asked"] in acme("wait", expect=1), "several wait: it says which"
    owner.answer(owner.requests()[0])
    done = acme("wait", second["asked"])
    assert (done["consent"], done["granted"]["quota"]) == (consent, {"n": 8, "per": "P1M"})
    assert "Ask again" in acme("wait", expect=1)
    kept = list((tmp_path / "home" / "acme" / "asked").iterdir())
    assert [path.name for path in kept] == [first["asked"]]
    assert kept[0].stat().st_mode & 0o777 == 0o600
    acme(*ASK, "--renew", "A" * 22, expect=1)
    acme(*ASK, "--renew", "x", expect=2)


def test_a_browser_that_lands_elsewhere_is_handed_on(owner: Owner, acme: Run) -> None:
    assert "Waiting: none" in acme("wait", expect=1)
    asked = acme(*ASK)
    assert asked["url"].startswith(owner.profile.trust.issuer + "/authorize?")
    assert "landed" in acme("wait", expect=1)
    for wrong in ("x", "https://acme.example/back?state=x&code=y", ""):
        acme("wait", asked["asked"], "--landed", wrong, expect=1)
    assert "Waiting: " + asked["asked"] in acme("wait", "../../profile.json", expect=1)


def test_printed_requests_are_complete(acme: Run, service: Service, tmp_path: Path) -> None:
    prepared = acme("proof", "token", "--nonce=-n")
    assert (prepared["method"], prepared["url"]) == ("POST", f"{service.url}/v1/token")
    assert parse_qs(prepared["body"]).keys() == {"grant_type", "client_assertion_type", "client_assertion"}
    assert acme("proof", "token", "--nonce=n", plain=True).startswith("curl -sS -X POST -H 'DPoP: ey")
    token = tmp_path / "token.json"
    ask = ("proof", "ask", "A" * 22, "--purpose", PURPOSE, "--nonce=n", "--token-file", token)
    token.write_text('{"access_token": "T", "expires_in": 600}')
    question = acme(*ask)
    assert question["headers"].keys() == {"Authorization", "DPoP", "Question-Signature", "Content-Type"}
    assert json.loads(question["body"])["kind"] == "next_choice"
    for wrong in ("", "[]", '{"error": "invalid_client"}', '{"access_token": 1}', "\x00"):
        token.write_text(wrong)
        acme(*ask, expect=1)
    token.unlink()
    acme(*ask, expect=1)


def test_a_company_replaces_its_keys_and_goes_on_asking(
    owner: Owner, acme: Run, tmp_path: Path, work: Callable[[], None]
) -> None:
    consent = given(owner, acme, tmp_path)
    owner.give(owner.terms_for(ConsentKind.SELF, [Category("pd:Purchase")]))
    owner.refresh()
    work()
    folder = tmp_path / "home" / "acme"
    before = Profile.load(folder).record
    assert acme("rotate-keys")["version"] == 2
    after = Profile.load(folder).record
    kept = {name for name in before if before[name] == after.get(name)}
    assert kept == {"kind", "company_id", "name", "redirect_uris"}
    assert acme("ask", consent, "--purpose", PURPOSE)["verified"]
    assert acme("rotate-keys")["version"] == 3
    assert acme("ask", consent, "--purpose", PURPOSE)["verified"]
    with closing(Company.load(folder)) as company:
        owner.read_request(company.sign_request(asked_again(owner, consent)))


def asked_again(owner: Owner, consent: str) -> Terms:
    return owner.consent(ConsentId(parse_b64u(consent))).current.terms


@pytest.mark.parametrize("lost", ["the question", "the answer"])
def test_a_change_of_keys_that_was_cut_off_is_made_good_by_the_next(
    acme: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    sent, folder = Api.request, tmp_path / "home" / "acme"

    def cut_off(self: Api, method: str, path: str, **how: Any) -> Any:
        if method == "PUT" and lost == "the answer":
            sent(self, method, path, **how)
        if method == "PUT":
            raise Unreachable("The service did not answer.")
        return sent(self, method, path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Api, "request", cut_off)
        acme("rotate-keys", expect=3)
    waiting = Profile.load(folder).record["next"]
    assert isinstance(waiting, dict)
    assert acme("rotate-keys")["version"] == 2
    assert Profile.load(folder).text("auth_seed") == waiting["auth_seed"], "the same keys, not a second pair"
    assert acme(*ASK)["url"]


def test_a_refused_change_keeps_the_keys(acme: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MAX_CHANGES", 0)
    before = Profile.load(tmp_path / "home" / "acme").text("auth_seed")
    assert "send the record to the operator" in acme("rotate-keys", expect=1)
    record = Profile.load(tmp_path / "home" / "acme").record
    assert (record["auth_seed"], record["next"]) == (before, "")
    assert acme(*ASK)["url"]
