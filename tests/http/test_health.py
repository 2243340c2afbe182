"""The app as installed tells how it is, and explains each of its problems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opentelemetry.trace
import pytest
import sqlalchemy
from fastapi.testclient import TestClient
from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider

from tests.site_kit import make_site, running_app
from vault.db import Database
from vault.errors import VaultError
from vault.ops.site import Site
from vault.tlog import log
from vault.tlog.errors import NotInLog


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with running_app(site) as running:
        yield running


def test_a_fresh_installation_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert client.get("/version").json()["version"].count(".") == 2


def test_without_its_schema_it_is_alive_but_not_ready(site: Site, client: TestClient) -> None:
    database, _ = site.databases()
    with database.transaction() as session:
        session.connection().execute(sqlalchemy.text("DROP TABLE alembic_version"))
    database.close()
    assert client.get("/readyz").status_code >= 500
    assert client.get("/livez").status_code == 200


def test_metrics_name_nobody(site: Site, client: TestClient) -> None:
    client.get("/v1/slots/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    assert "process_cpu_seconds_total" in found.text
    assert "AAAAAA" not in found.text
    assert site.environment("app")["VAULT_OPERATOR_PUBLIC_KEY"] not in found.text


def test_every_problem_type_can_be_looked_up(client: TestClient) -> None:
    pending, slugs = [VaultError], set()
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__.startswith("vault."):
            slugs.add(error.slug)
    assert len(slugs) > 20
    for slug in slugs:
        found = client.get(f"/problems/{slug}").json()
        assert found["type"] == f"/problems/{slug}"
        assert found["meaning"], slug
    unknown = client.get("/problems/no-such-thing")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-problem")


def test_nothing_is_served_over_a_damaged_log(site: Site) -> None:
    with running_app(site):
        pass
    database, _ = site.databases()
    with database.transaction() as session:
        session.connection().execute(sqlalchemy.text("UPDATE log_entry SET entry = zeroblob(65) WHERE leaf_index = 1"))
    database.close()
    _serves_nothing(site)


@pytest.mark.parametrize("lost", ["nothing", "anchor", "files"])
def test_nothing_is_served_over_a_database_set_back(lost: str, site: Site, tmp_path: Path) -> None:
    older = tmp_path / "older.sqlite"
    database, _ = site.databases()
    _copy(database, older)  # before the app's first start: the log is empty
    with running_app(site):
        pass
    target = Path(str(database.url.database))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    older.replace(target)
    if lost == "anchor":
        site.anchor.delete()  # type: ignore[union-attr]
    if lost == "files":
        site.log_files.set_aside()  # type: ignore[union-attr]
    assert "restore --replace" in _serves_nothing(site)
    with database.snapshot() as session, pytest.raises(NotInLog):
        log.head(session)  # nothing was signed
    database.close()


def _serves_nothing(site: Site) -> str:
    with running_app(site) as client:
        assert client.get("/livez").status_code == 200
        answers = [client.get(path) for path in ("/readyz", "/v1/keys", "/v1/log/checkpoint")]
        answers.append(client.post("/v1/vaults", json={}))
        assert [(answer.status_code, answer.json()["type"]) for answer in answers] == [
            (503, "/problems/log-damaged")
        ] * 4
        return str(answers[0].json()["detail"])


def _copy(database: Database, to: Path) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql(f"VACUUM INTO '{to}'")
    database.close()


def test_the_frameworks_telemetry_is_told_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Provider(TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
            asked.append("tracer")
            return NoOpTracer()

    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", Provider())
    with running_app(site) as client:
        assert client.get("/livez").status_code == 200
    assert asked == []
