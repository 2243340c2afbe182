"""An operator decides on companies that registered themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.company_kit import REDIRECT, CompanyKit, public
from tests.site_kit import ISSUER, ORIGIN, operate
from vault.clock import SystemClock
from vault.db import Database
from vault.oauth import registration
from vault.ops.site import Site, set_up


def test_an_operator_approves_one_and_rejects_another(database: Database, tmp_path: Path) -> None:
    site, now = Site(tmp_path / "site"), SystemClock().now()
    url = database.url.render_as_string(hide_password=False)
    set_up(site, issuer=ISSUER, log_origin=ORIGIN, database_url=url, shortkeys_url=None, now=now)
    good, bad = CompanyKit(name="Good Shop"), CompanyKit(name="Bad Shop")
    with database.transaction() as session:
        for kit in (good, bad):
            sent = {
                "redirect_uris": [REDIRECT],
                "jwks": {"keys": [public(kit.auth)]},
                "company_record": kit.record(now),
            }
            registration.file(session, sent, sandbox=False, now=now)

    def run(*args: str, status: int = 0) -> dict[str, Any]:
        result = operate(["companies", *args, "--site", str(site.folder), "--json"])
        assert result.exit_code == status, result.output
        return dict(json.loads(result.stdout)) if status == 0 else {}

    waiting = run("waiting")["waiting"]
    assert [item["invited"] for item in waiting] == [False, False]
    assert {item["name"]: item["contact"] for item in waiting} == {
        "Good Shop": "privacy@acme.example",
        "Bad Shop": "privacy@acme.example",
    }
    run("approve", good.company_id)
    run("reject", bad.company_id)
    assert run("waiting")["waiting"] == []
    assert [item["name"] for item in run("list")["companies"]] == ["Good Shop"]
    run("approve", bad.company_id, status=1)
    renamed = tmp_path / "renamed.jws"
    renamed.write_text(good.record(now, version=2, name="Better Shop"))
    assert run("update", str(renamed))["version"] == 2
    assert [item["name"] for item in run("list")["companies"]] == ["Better Shop"]
    run("update", str(renamed), status=1)


def test_an_operator_invites_one_and_forgets_whom_nobody_invited(database: Database, tmp_path: Path) -> None:
    site, now = Site(tmp_path / "site"), SystemClock().now()
    url = database.url.render_as_string(hide_password=False)
    set_up(site, issuer=ISSUER, log_origin=ORIGIN, database_url=url, shortkeys_url=None, now=now)
    where = ["--site", str(site.folder), "--json"]
    invitation = json.loads(operate(["companies", "invite", *where]).stdout)
    assert invitation["until"] > f"{now:%Y-%m-%d}"
    for kit, used in ((CompanyKit(name="Guest"), invitation["invitation"]), (CompanyKit(name="Flood"), None)):
        sent = {"redirect_uris": [REDIRECT], "jwks": {"keys": [public(kit.auth)]}, "company_record": kit.record(now)}
        with database.transaction() as session:
            registration.file(session, sent, sandbox=False, now=now, invitation=used)
    assert operate(["companies", "reject", *where]).exit_code == 2, "one of the two must be said"
    assert operate(["companies", "reject", "A" * 22, "--uninvited", *where]).exit_code == 2
    assert json.loads(operate(["companies", "reject", "--uninvited", *where]).stdout) == {"rejected": 1}
    assert [item["name"] for item in json.loads(operate(["companies", "waiting", *where]).stdout)["waiting"]] == [
        "Guest"
    ]
