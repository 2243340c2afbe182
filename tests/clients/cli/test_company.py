"""A company's commands: it asks, another process waits, and requests are printed for any HTTP client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.client_kit import Service, purchases
from twinvault.cli import main
from twinvault.owner import Owner
from vault.clock import SystemClock
from vault.encoding import b64u
from vault.parties import companies

PURPOSE = "dpv:ProvideProductRecommendations"
ASK = (
    "request", "--purpose", PURPOSE, "--controller", "Acme", "--withdrawal", "https://a.example", "--rights",
    "https://b.example", "--from", "2026-01", "--to", "2026-01",
)  # fmt: skip
Run = Callable[..., Any]


@pytest.fixture
def acme(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The commands of a company that the operator registered."""
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))

    def run(*argv: object, expect: int = 0, plain: bool = False) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["company", *map(str, argv), "--profile", "acme", *([] if plain else ["--json"])])
        said = capsys.readouterr()
        assert (end.value.code or 0) == expect, said.err
        assert "Traceback" not in said.err
        if plain:
            return said.out
        lines = [line for line in said.out.splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else said.err

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


def test_a_renewal_is_asked_and_waited_for_by_two_processes(owner: Owner, acme: Run, tmp_path: Path) -> None:
    consent = given(owner, acme, tmp_path)
    first = acme(*ASK, "--renew", consent, "--quota", 7)
    assert "not decided yet" in acme("wait", "--seconds", 0, expect=1)
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
