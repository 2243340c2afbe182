"""Setting up twice changes nothing, and neither process is told where the other's keys are."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.site_kit import ISSUER, ORIGIN, app_settings, make_site, operate
from vault.ops import serve, worker
from vault.ops.site import DatabaseAway, NoSite, Site
from vault.ops.supervisor import Supervisor
from vault.proof.trust import parse_trust


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o777) for path in files}


def rows(site: Site) -> list[object]:
    from sqlalchemy import text

    database, _ = site.databases()
    with database.snapshot() as session:
        found = session.connection().execute(text("SELECT kind, entry FROM log_entry ORDER BY id")).all()
    database.close()
    return list(found)


def test_setting_up_twice_changes_nothing(site: Site) -> None:
    before, logged = contents(site.folder), rows(site)
    assert {"app.env", "worker.env", "trust.json", "keys/app/log.key"} <= before.keys()
    assert logged, "every key statement is an event of the log"
    make_site(site.folder)
    assert contents(site.folder) == before
    assert rows(site) == logged


def test_setting_up_again_with_other_words_keeps_what_clients_pin(site: Site) -> None:
    """Error messages tell operators to run `init` again, and nobody remembers its options."""
    before = contents(site.folder)
    result = operate(["init", str(site.folder), "--issuer", "https://elsewhere.example"])
    assert result.exit_code == 0, result.output
    assert ISSUER in result.stdout
    assert contents(site.folder) == before


def test_rows_are_daily_unless_said_and_what_exists_keeps_how_its_are_made(site: Site, tmp_path: Path) -> None:
    assert {site.environment(process)["VAULT_CADENCE"] for process in ("app", "worker")} == {"daily"}
    other = tmp_path / "other"
    assert operate(["init", str(other), "--cadence", "monthly"]).exit_code == 0
    (other / "worker.env").unlink()  # who was killed between the two files runs it again, and remembers no option
    assert operate(["init", str(other)]).exit_code == 0
    assert {Site(other).environment(process)["VAULT_CADENCE"] for process in ("app", "worker")} == {"monthly"}


def test_setting_up_again_without_the_operators_key_makes_no_second_one(site: Site, tmp_path: Path) -> None:
    (site.folder / "keys/operator").rename(tmp_path / "offline")
    before = contents(site.folder)
    result = operate(["init", str(site.folder)])
    assert (result.exit_code, "put `keys/operator` back" in result.output) == (1, True)
    assert contents(site.folder) == before
    assert not (site.folder / "keys/operator").exists()


@pytest.mark.parametrize("lost", ["vault.sqlite", "shortkeys.sqlite"])
def test_a_lost_database_is_not_begun_anew(lost: str, site: Site) -> None:
    (site.folder / lost).unlink()
    looked = operate(["doctor", "--site", str(site.folder)])
    assert looked.exit_code == 1
    assert f"FAIL  database: The database {site.folder / lost} is gone." in looked.output
    for command in (serve, worker):
        result = CliRunner().invoke(command, [str(site.folder)])
        assert isinstance(result.exception, NoSite)
        assert f"{lost} is gone" in str(result.exception)
    assert not (site.folder / lost).exists()


@pytest.mark.parametrize("damage", [b"", b"no database, but long enough to look at" * 100])
def test_a_damaged_database_is_one_sentence_for_every_command(damage: bytes, site: Site, tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (site.folder / f"vault.sqlite{suffix}").unlink(missing_ok=True)
    (site.folder / "vault.sqlite").write_bytes(damage)
    folder = ["--site", str(site.folder)]
    for command in (["auditors", "list"], ["train"], ["companies", "list"], ["keys", "show"],
                    ["publish-log", str(tmp_path / "log")]):  # fmt: skip
        result = operate([*command, *folder])
        assert (result.exit_code, isinstance(result.exception, SystemExit)) == (1, True), (command, result.exception)
        assert result.output.startswith("twinvault: The database does not answer as it should ("), command
        assert "SELECT" not in result.output
    if damage:
        assert operate(["backup", str(tmp_path / "copy"), *folder]).exit_code == 1
        assert not (tmp_path / "copy").exists(), "what is no backup keeps nobody from making one of that name"
        for command in (serve, worker):
            assert isinstance(CliRunner().invoke(command, [str(site.folder)]).exception, DatabaseAway)


def test_a_database_that_is_away_is_one_sentence_without_its_password(site: Site) -> None:
    settings = site.folder / "app.env"
    other = "VAULT_DATABASE_URL=postgresql+psycopg://root:geheim@127.0.0.1:1/x"
    lines = [other if line.startswith("VAULT_DATABASE_URL") else line for line in settings.read_text().splitlines()]
    settings.write_text("\n".join(lines))
    result = operate(["auditors", "list", "--site", str(site.folder)])
    assert (result.exit_code, isinstance(result.exception, SystemExit)) == (1, True), result.exception
    assert result.output.startswith("twinvault: The database does not answer as it should (OperationalError).")
    assert "geheim" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "VAULT_ISSUER: Field required."),
        ("VAULT_ISSUER\n", "NAME=VALUE"),
        ("VAULT_DATABASE_URL=garbage\n", "VAULT_DATABASE_URL: must be sqlite:///FILE or "),
    ],
)
def test_settings_that_are_damaged_are_named_in_one_sentence(text: str, said: str, site: Site) -> None:
    (site.folder / "app.env").write_text(text)
    for command in (["doctor", "--site"], ["train", "--site"], ["init"]):
        result = operate([*command, str(site.folder)])
        assert (result.exit_code, isinstance(result.exception, SystemExit)) == (1, True), (command, result.exception)
        assert said in result.output
        assert str(site.folder / "app.env") in result.output


def test_setting_up_that_is_cut_off_at_any_file_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each flush to the disk is where a machine may go down; what was written before it may be cut short."""
    whole, flushed = os.fsync, list[str]()

    def flush(file: int, *, last: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{file}").readlink().name)
        if len(flushed) == last:
            os.ftruncate(file, 0)
            raise KeyboardInterrupt
        whole(file)

    for last in range(1, 30):
        folder = tmp_path / str(last)
        flushed.clear()
        with monkeypatch.context() as cut:
            cut.setattr(os, "fsync", partial(flush, last=last))
            try:
                make_site(folder)
            except KeyboardInterrupt:
                pass
            else:
                break
        make_site(folder)
        assert Site(folder).witnesses.sites == ()
        assert parse_trust(Site(folder).trust_file.read_bytes().strip()).issuer == ISSUER
        for process in ("app", "worker"):
            assert Site(folder).environment(process)["VAULT_DATABASE_URL"]
    for name in ("app.env", "worker.env", "witnesses.json", "trust.json", "operator.key", "log.key"):
        assert [file for file in flushed if file.startswith(name)], f"{name} is on the disk before the next is written"


def test_the_workers_user_reads_nothing_of_the_apps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, dict[str, str]]] = []
    monkeypatch.setattr(Supervisor, "run", lambda supervisor: started.append(supervisor._children) or 0)
    for name in ("app.env", "keys/app", "keys/operator", "trust.json", "witnesses.json"):
        (site.folder / name).rename(site.folder.parent / Path(name).name)
    result = CliRunner().invoke(worker, [str(site.folder)])
    assert (result.exit_code, result.output) == (0, "")
    (children,) = started
    assert children == {"worker": site.environment("worker")}
    (site.folder / "vault.sqlite").unlink()
    assert isinstance(CliRunner().invoke(worker, [str(site.folder)]).exception, NoSite)


def test_neither_environment_names_the_others_keyring(site: Site) -> None:
    app, worker = site.environment("app"), site.environment("worker")
    assert not [value for value in app.values() if "keys/worker" in value or "keys/operator" in value]
    assert not [value for value in worker.values() if "keys/app" in value or "keys/operator" in value]
    assert not [name for name in app if "WORKER" in name]
    assert not [name for name in worker if "APP" in name]
    assert Path(app["VAULT_LOG_ANCHOR"]).parent == site.folder


def test_no_key_lies_in_two_keyrings(site: Site) -> None:
    keyrings = {
        part: {path.read_bytes() for path in (site.folder / "keys" / part).iterdir()}
        for part in ("app", "worker", "operator")
    }
    assert all(keyrings.values())
    assert sum(map(len, keyrings.values())) == len(set.union(*keyrings.values()))
    names = {path.name for path in (site.folder / "keys/app").iterdir()}
    assert not [name for name in names if "processor" in name or "operator" in name]


def test_only_its_owner_may_read_a_site(site: Site) -> None:
    for path in [site.folder, *site.folder.rglob("*")]:
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path
        elif path.suffix in {".key", ".wrapped", ".env"}:
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_keyring_that_others_may_read_is_refused(site: Site) -> None:
    from tests.site_kit import running_app
    from vault.keys.kms import UnsafeKeyring

    (site.folder / "keys/app").chmod(0o750)
    with pytest.raises(UnsafeKeyring, match="0700"), running_app(site):
        pass
    (site.folder / "keys/app").chmod(0o700)
    (site.folder / "keys/app/log.key").chmod(0o644)
    with pytest.raises(UnsafeKeyring, match="0600"), running_app(site):
        pass


def test_the_trust_file_pins_what_the_settings_say(site: Site) -> None:
    trust = parse_trust(site.trust_file.read_bytes().strip())
    assert (trust.issuer, trust.origin) == (ISSUER, ORIGIN)
    settings = app_settings(site)
    assert settings.log_origin == trust.log.name == ORIGIN


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--issuer", "garbage", "VAULT_ISSUER: "),
        ("--issuer", "http://vault.example", "use https"),
        ("--log-origin", "", "VAULT_LOG_ORIGIN: "),
        ("--log-origin", "my log", "key name"),
        ("--database-url", "garbage", "VAULT_DATABASE_URL: must be sqlite:///FILE or "),
        ("--database-url", "mysql://root:geheim@db.example/x", "VAULT_DATABASE_URL: "),
        ("--database-url", "postgresql://db.example:x/y", "VAULT_DATABASE_URL: "),
        ("--database-url", "sqlite:////no/such/folder/x", "does not answer"),
        ("--shortkeys-url", "postgresql://root:geheim@127.0.0.1:1/x", "does not answer"),
    ],
)
def test_what_no_process_could_start_with_is_refused_before_anything_is_made(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    result = operate(["init", str(tmp_path / "new"), option, value])
    assert (result.exit_code, isinstance(result.exception, SystemExit)) == (1, True), result.exception
    assert said in result.output
    assert "geheim" not in result.output
    assert not (tmp_path / "new").exists()


def test_init_tells_what_to_hand_out_and_what_to_take_offline(tmp_path: Path) -> None:
    result = operate(["init", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert "trust.json" in result.stdout
    assert "not online" in result.stdout


def test_a_folder_that_was_never_set_up_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoSite):
        Site(tmp_path).environment("app")
    result = operate(["doctor", "--site", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.count("operator init") == 1, "once, not for each check"
    assert "Traceback" not in result.output
