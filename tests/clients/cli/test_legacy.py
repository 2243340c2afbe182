"""The commands of a legacy: the owner's plan, the executors' shares, and what they tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.client_kit import Service, company_terms
from twinvault.api import ClientError
from twinvault.cli import common, main
from twinvault.company import Company
from twinvault.destinations import Destination, Destinations
from twinvault.owner import Owner
from vault.encoding import b64u
from vault.parties import sessions
from vault.schema.category import Purpose
from vault.seal.person import Role


class Typed:
    """Runs commands as typed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: object, expect: int = 0) -> Any:
        with pytest.raises(SystemExit) as end:
            main([*map(str, argv), "--json"])
        said = self._capsys.readouterr()
        assert (end.value.code or 0) == expect, said.err
        return json.loads(said.out) if said.out else said.err


@pytest.fixture
def run(owner: Owner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.setattr(common, "unlock_owner", lambda *_: owner)
    return Typed(capsys)


def leave(service: Service, owner: Owner) -> None:
    """End the owner's sessions: the minutes pass in which an owner counts as here."""
    with service.app.state.database.transaction() as session:
        sessions.end_sessions(session, owner.vault)


def test_plan_look_declare_prove_and_stop(run: Typed, service: Service, owner: Owner, tmp_path: Path) -> None:
    out = tmp_path / "shares"
    made = ("owner", "legacy", "plan", "--out", out, "--executors", 3, "--threshold", 2)
    assert run("owner", "legacy", "show") == {"state": "none"}
    assert "repeat with --yes" in run(*made, expect=1)
    assert not out.exists()
    told = run(*made, "--inactive-days", 365, "--yes")
    assert told["inactive_days"] == 365
    assert (told["state"], told["version"], told["waiting_days"], told["choice"]) == ("ready", 1, 30, "freeze")
    shares = [Path(name) for name in told["shares"]]
    assert [share.stat().st_mode & 0o777 for share in shares] == [0o600] * 3
    assert "exists already" in run(*made, "--yes", expect=1)
    assert run("executor", "status", "--share", shares[1])["state"] == "ready"
    assert "It takes 2 shares" in run("executor", "declare", "--share", shares[1], expect=1)
    two = ("--share", shares[1], "--share", shares[2])
    assert "signed in" in run("executor", "declare", *two, expect=1)
    leave(service, owner)
    waiting = run("executor", "declare", *two, "--reason", "We buried her on Monday.")
    assert (waiting["state"], waiting["vault"]) == ("waiting", b64u(owner.vault))
    assert waiting["takes_effect"].endswith("UTC")
    assert run("executor", "bundle", "--share", shares[0], "--out", tmp_path / "proof")["failures"] == []
    shown = run("owner", "legacy", "show")
    assert (shown["state"], shown["version"]) == ("ended", 1)
    assert "is ended" in run("executor", "declare", *two, expect=1)
    assert run("owner", "legacy", "withdraw")["state"] == "withdrawn"
    assert "changed or withdrew" in run("executor", "status", *two, expect=1)


def test_a_consent_is_sealed_in_advance_and_asked_about_first(
    run: Typed, service: Service, owner: Owner, company: Company, tmp_path: Path
) -> None:
    purpose = frozenset({Purpose("dpv:ProvideProductRecommendations")})
    request, out = tmp_path / "request", tmp_path / "shares"
    request.write_text(company.sign_request(company_terms(company, owner, post_mortem=purpose)))
    plan = ("owner", "legacy", "plan", "--out", out, "--executors", 2, "--threshold", 2, "--request", request, "--yes")
    run(*plan, expect=2)
    told = run(*plan, "--choice", "answer")
    assert (told["choice"], told["sealed"]) == ("answer", 1)
    files = [part for name in told["shares"] for part in ("--share", name)]
    assert "in force" in run("executor", "open", *files, expect=1)
    assert "Nothing was erased" in run(
        "executor", "erase", *files, "--certificate", out / "c", "--confirm", "x", expect=1
    )
    for unwritable in (tmp_path / "none" / "c", out):
        confirmed = ("--certificate", unwritable, "--confirm", b64u(owner.vault))
        assert "cannot be written" in run("executor", "erase", *files, *confirmed, expect=1)
    request.write_text(company.sign_request(company_terms(company, owner)))
    again = [*plan[:4], tmp_path / "more", *plan[5:], "--choice", "answer"]
    assert "nothing after your death" in run(*again, expect=1)


def test_wrong_numbers_and_damaged_shares_are_refused(run: Typed, tmp_path: Path) -> None:
    plan = ("owner", "legacy", "plan", "--out", tmp_path / "shares", "--yes")
    for wrong in (("--executors", 2, "--threshold", 3), ("--executors", 3, "--threshold", 1)):
        run(*plan, *wrong, expect=2)
    run(*plan, "--executors", 3, "--threshold", 2, "--waiting-days", 6, expect=2)
    run(*plan, "--executors", 3, "--threshold", 2, "--choice", "sell", expect=2)
    (tmp_path / "file").touch()
    nowhere = ("--out", tmp_path / "file" / "shares", "--executors", 2, "--threshold", 2, "--yes")
    assert "Not a directory" in run("owner", "legacy", "plan", *nowhere, expect=1)
    assert run("owner", "legacy", "show") == {"state": "none"}, "no plan whose shares nobody got"
    damaged = tmp_path / "share"
    damaged.write_bytes(b"{}")
    assert "cannot be read" in run("executor", "status", "--share", damaged, expect=1)
    assert "No such file" in run("executor", "status", "--share", tmp_path / "none", expect=1)


@pytest.mark.parametrize(
    ("command", "role"),
    [(("deliver",), Role.WATCHER), (("notices", "--follow"), Role.WATCHER), (("notices",), Role.OWNER)],
)
def test_what_goes_on_by_itself_signs_in_as_a_watcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...], role: Role
) -> None:
    asked: list[Role] = []

    def unlock(*_: object, **how: Role) -> Owner:
        asked.append(how["role"])
        raise ClientError("enough")

    monkeypatch.setattr(common, "unlock_owner", unlock)
    monkeypatch.setattr(Destinations, "read", lambda _: [Destination("json://localhost", details=False, after=-1)])
    with pytest.raises(SystemExit):
        main(["owner", *command])
    assert asked == [role]
