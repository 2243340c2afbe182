"""Each process reads only what it may hold; what would undo a guarantee is refused at start."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vault.settings import AppSettings, Settings, WorkerSettings, own_settings

KEY = "A" * 43
SHARED = {
    "VAULT_DATABASE_URL": "sqlite:////srv/vault.sqlite",
    "VAULT_SHORTKEYS_URL": "sqlite:////srv/shortkeys.sqlite",
    "VAULT_OPERATOR_PUBLIC_KEY": KEY,
}
APP = {
    **SHARED,
    "VAULT_APP_KEYRING": "/srv/keys/app",
    "VAULT_ISSUER": "https://vault.example",
    "VAULT_LOG_ORIGIN": "vault.example/log",
}


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("VAULT_")]:
        monkeypatch.delenv(name)


def setenv(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_the_app_has_no_place_for_the_workers_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, "VAULT_WORKER_KEYRING": "/srv/keys/worker"})
    settings = AppSettings()
    assert not [name for name in AppSettings.model_fields if "worker" in name or "processor" in name]
    assert "/srv/keys/worker" not in repr(settings)
    assert set(WorkerSettings.model_fields) - set(Settings.model_fields) == {"worker_keyring", "poll_s"}


def test_the_worker_has_no_place_for_the_apps_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, "VAULT_WORKER_KEYRING": "/srv/keys/worker"})
    assert "/srv/keys/app" not in repr(WorkerSettings())


@pytest.mark.parametrize("missing", sorted(APP))
def test_nothing_that_matters_has_a_default(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {name: value for name, value in APP.items() if name != missing})
    with pytest.raises(ValidationError, match="Field required"):
        AppSettings()


def test_rows_are_daily_where_nothing_else_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, APP)
    assert AppSettings().cadence == "daily"
    monkeypatch.setenv("VAULT_CADENCE", "monthly")
    assert AppSettings().cadence == "monthly"


def test_short_keys_in_the_main_database_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://vault:geheim@db.example/vault"
    setenv(monkeypatch, {**APP, "VAULT_DATABASE_URL": url, "VAULT_SHORTKEYS_URL": url})
    with pytest.raises(ValidationError, match="a database of their own") as refusal:
        AppSettings()
    assert "geheim" not in str(refusal.value)


@pytest.mark.parametrize(
    "issuer", ["http://vault.example", "http://10.0.0.1", "http://127.0.0.1.example", "ftp://x.example", "vault"]
)
def test_an_issuer_that_anyone_on_the_way_can_read_is_refused(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, "VAULT_ISSUER": issuer})
    with pytest.raises(ValidationError):
        AppSettings()


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:8400", "http://localhost", "http://[::1]:9", "https://vault.example/x"]
)
def test_https_or_loopback_is_accepted(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, "VAULT_ISSUER": issuer})
    assert str(AppSettings().issuer).startswith(issuer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VAULT_OPERATOR_PUBLIC_KEY", "A" * 42),
        ("VAULT_OPERATOR_PUBLIC_KEY", "A" * 42 + "="),
        ("VAULT_OPERATOR_PUBLIC_KEY", KEY + "\n"),
        ("VAULT_LOG_ORIGIN", ""),
        ("VAULT_PORT", "65536"),
        ("VAULT_PORT", "-1"),
        ("VAULT_MAX_BODY_BYTES", "0"),
        ("VAULT_CHECKPOINT_WAIT_S", "0"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, name: value})
    with pytest.raises(ValidationError):
        AppSettings()


def test_a_process_says_in_words_what_is_wrong_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**APP, "VAULT_DATABASE_URL": "geheim", "VAULT_PORT": "x"} | {"VAULT_ISSUER": "garbage"})
    with pytest.raises(SystemExit) as end:
        own_settings(AppSettings)
    said = str(end.value.code)
    assert all(name in said for name in ("VAULT_DATABASE_URL: must be", "VAULT_PORT: ", "VAULT_ISSUER: "))
    assert "geheim" not in said


def test_settings_do_not_change_while_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, APP)
    settings = AppSettings()
    with pytest.raises(ValidationError):
        settings.log_origin = "other"
