"""Invariant 1: after a whole story over HTTP no byte of a trace lies in anything the server keeps or writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.client_kit import PURCHASE
from tests.http_kit import QUESTION, House, serving
from twinvault.demo.scan import find_in, find_in_files
from vault.logging import configure_logging
from vault.ops.archive import back_up
from vault.schema.trace import Action, Trace

CANARY = "canary Kanarienvogel 7f3a"


def traces(month: int) -> list[Trace]:
    """Traces that carry the canary wherever a source puts words of its own."""
    start = datetime(2026, month, 5, 8, tzinfo=UTC)
    return [
        Trace(f"{CANARY} {n}", "till", start + timedelta(days=n), PURCHASE, Action.BUY, "completejourney:bacon", CANARY)
        for n in range(5)
    ]


def live(house: House) -> None:
    """Upload, refresh, consent, ask, withdraw; and send a canary where it does not belong."""
    owner = house.owner()
    for month in (1, 2):
        owner.import_traces(traces(month))
    owner.refresh()
    house.work()
    assert owner.twin()["releases"], "the worker opened the traces and made rows of them"
    company = house.company()
    consent = house.consent(owner, company)
    assert company.ask(consent, QUESTION).answer.predictions is not None
    owner.withdraw(consent)
    for path in (f"/v1/slots/{CANARY}", f"/{CANARY}", f"/readyz?who={CANARY}"):
        house.http.get(path, headers={"x-request-id": CANARY})
    house.http.post("/v1/vaults", json={"genesis": CANARY})
    house.http.put(f"/v1/vaults/{CANARY}/ring", content=CANARY.encode())


def test_no_byte_of_a_trace_is_readable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG")
    with serving(tmp_path) as house:
        live(house)
        site = house.service.site
        back_up(site, tmp_path / "backup")
        assert {"vault.sqlite", "vault.sqlite-wal", "shortkeys.sqlite", "log.anchor"} <= {
            path.name for path in site.folder.iterdir()
        }
        assert find_in_files([site.folder, tmp_path / "backup"], CANARY) == {}
        with house.database.transaction() as session:
            session.connection().execute(
                text("INSERT INTO slot (locator_hash, vault_id, slot) VALUES (:n, :n, :c)"),
                {"n": b"n", "c": CANARY.encode("utf-16-le")},
            )
        back_up(site, tmp_path / "second")
        found = {path.name for path in find_in_files([site.folder, tmp_path / "second"], CANARY)}
        assert {"vault.sqlite-wal", "vault.sqlite"} <= found, "a scanner that finds no planted canary shows nothing"
    written = capfd.readouterr()
    assert '"request.done"' in written.err
    assert find_in((written.out + written.err).encode(), CANARY) == []
