"""The command line from an empty machine to a verified answer, against the shipped app and worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.client_kit import PASSPHRASE, Service
from vault.clock import SystemClock
from vault.parties import companies

HEADER = "household_id,basket_id,product_id,transaction_timestamp,product_category,quantity,sales_value\n"
PURPOSE = "dpv:ProvideProductRecommendations"


def test_the_whole_story(
    service: Service,
    work: Callable[[], None],
    run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")

    def owner(command: str, *argv: object, expect: int = 0) -> dict[str, Any]:
        return run("owner", command, *argv, "--passphrase-file", secret, expect=expect)

    made = owner("init", "--trust", service.trust_file, "--kit-file", tmp_path / "kit", "--yes")
    assert (tmp_path / "kit").stat().st_mode & 0o777 == 0o600
    assert "kit" not in made
    months = [f"2026-0{month}" for month in range(1, 7)]
    history = [
        f"1,{i},7,{month}-1{i} 10:00:00,{name},1,2.50\n"
        for month in months
        for i, name in enumerate(("BACON", "APPLES"))
    ]
    file = tmp_path / "household.csv"
    file.write_text(HEADER + "".join(history))
    assert owner("import", file)["sent"] == 12
    assert owner("import", file)["sent"] == 0
    owner("refresh")
    work()
    status = owner("status")
    assert (status["live_consents"], status["waiting"]) == (1, 0)
    assert status["twin"]["releases"]
    told = run("owner", "status", "--passphrase-file", secret, plain=True)
    assert "last_refresh: done\n" in told
    assert "category=pd:Purchase  from=2026-01  to=2026-06  months=6" in told
    assert "release=" not in told, "what a program reads is in --json"

    record, request = tmp_path / "record.jws", tmp_path / "request.jws"
    run("company", "register", "--trust", service.trust_file, "--name", "Acme Groceries", "--contact", "a@acme.example",
        "--record", record, "--profile", "acme")  # fmt: skip
    with service.app.state.database.transaction() as session:
        companies.register(session, record.read_text().strip(), now=SystemClock().now())
    run("company", "request", "--purpose", PURPOSE, "--controller", "Acme, a@acme.example", "--withdrawal", "https://a.example",
        "--rights", "https://b.example", "--from", "2026-01", "--to", "2026-06", "--out", request, "--profile", "acme",
        "--question", "recommend", "--question", "propensity")  # fmt: skip
    owner("give", "--request", request, expect=1)  # nobody agreed
    given = owner("give", "--request", request, "--quota", 3, "--yes")
    consents = {item["consent"]: item for item in owner("consents")["consents"]}
    assert consents[given["consent"]]["quota_left"] == 3

    bundle = tmp_path / "answer.bundle"
    ask = ("company", "ask", given["consent"], "--purpose", PURPOSE, "--candidate", "completejourney:bacon=Bacon",
           "--candidate", "completejourney:apples", "--profile", "acme")  # fmt: skip
    answered = run(*ask, "--bundle", bundle)
    assert answered["verified"]
    assert run("auditor", "verify", bundle, "--trust", service.trust_file)["failures"] == []
    assert run("auditor", "verify", bundle, "--profile", "acme")["failures"] == []
    visit = ("company", "ask", given["consent"], "--purpose", PURPOSE, "--kind", "propensity", "--profile", "acme")
    likely = run(*visit, "--step", "month=11", "--step", "visitor=new", "--step", "product_pages=30", "--step",
                 "page_value_milli=40000", "--bundle", tmp_path / "visit.bundle")  # fmt: skip
    assert [item["code"] for item in likely["predictions"]] == ["purchase"]
    assert run("auditor", "verify", tmp_path / "visit.bundle", "--trust", service.trust_file)["failures"] == []
    for wrong in (["month=11"], ["month=13", "visitor=new"], ["month=1", "visitor=me"], ["month=1", "visitor=new", "x=1"],
                  ["month=1", "visitor=new", "month=1"]):  # fmt: skip
        steps = [part for step in wrong for part in ("--step", step)]
        said = run(*visit, *steps, expect=2 if "13" not in wrong[0] and "visitor=me" not in wrong else 1)
        assert isinstance(said, str), "no answer is printed"
    run(*ask, "--step", "month=11", expect=2)
    run(*ask, "--kind", "propensity", expect=2)
    run(*visit[:-4], "--kind", "recommend", "--profile", "acme", expect=2)
    run(*visit[:-4], "--kind", "forecast", "--profile", "acme", expect=2)
    bundle.write_bytes(bundle.read_bytes().replace(b"A", b"B", 1))
    run("auditor", "verify", bundle, "--trust", service.trust_file, expect=1)
    assert owner("ask", "--top-n", 2)["verified"]
    assert {"consent", "answer"} <= {event["kind"] for event in owner("history")["history"]}

    owner("withdraw", given["consent"])
    run(*ask, expect=1)
    (tmp_path / "home").rename(tmp_path / "lost")
    moved = run("owner", "unlock", "--kit", tmp_path / "kit", "--trust", service.trust_file)
    assert moved["vault"] == made["vault"]
    assert owner("unlock", expect=0)["vault"] == made["vault"]
    secret.write_text("wrong\n")
    owner("status", expect=1)
