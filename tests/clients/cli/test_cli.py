from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import typer

from twinvault.api import problem
from twinvault.cli import app, common, main
from twinvault.cli import server as server_commands
from twinvault.profile import Profile
from vault.ops import operator, serve, worker
from vault.proof.note import VerifierKey
from vault.proof.trust import TrustedRoot, dump_trust
from vault.seal.signing import SigningKey

KEY = SigningKey(bytes(32)).public_key
REQUEST = (
    "--purpose dpv:Marketing --controller Acme --withdrawal https://a.example --rights https://a.example"
    " --from 2026-01 --to 2026-01"
)
ROW = "1,10,100,2017-01-01 11:53:26,SOFT DRINKS,1,0.99\n"
HEADER = "household_id,basket_id,product_id,transaction_timestamp,product_category,quantity,sales_value\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TWINVAULT_PROFILE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    path = tmp_path / "trust.json"
    key = VerifierKey("vault.example/log", KEY)
    path.write_bytes(dump_trust(TrustedRoot("http://127.0.0.1:9", "vault.example/log", key, KEY)))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*argv: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(part) for part in argv])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


COMMANDS = {
    "owner": {
        "init",
        "unlock",
        "import",
        "status",
        "refresh",
        "consents",
        "give",
        "withdraw",
        "ask",
        "history",
        "narrow",
        "renew",
        "freeze",
        "unfreeze",
        "person",
        "devices",
        "succeed",
        "revoke-device",
        "receipt",
        "verify-receipt",
        "requests",
        "approve",
        "deny",
        "budget",
        "erase",
        "ask-erasure",
        "mirror",
    },
    "company": {"register", "request", "ask"},
    "auditor": {"register", "bundle", "verify"},
}


@pytest.mark.parametrize("noun", COMMANDS)
def test_every_command_has_help(run: Any, noun: str) -> None:
    code, out, _ = run(noun, "--help")
    assert code == 0
    assert all(command in out for command in COMMANDS[noun])
    for command in COMMANDS[noun]:
        code, out, err = run(noun, command, "--help")
        assert (code, err) == (0, "")
        assert "--json" in out
        assert "passphrase " not in out.lower() or "--passphrase-file" in out


@pytest.mark.parametrize("told", [app, operator, serve, worker], ids=["twinvault", "operator", "serve", "worker"])
def test_every_argument_and_option_is_explained(told: typer.Typer) -> None:
    def unexplained(command: Any, path: str = "") -> list[str]:
        names = [f"{path} {part.name}" for part in command.params if not part.help]
        below = [unexplained(one, f"{path} {name}") for name, one in getattr(command, "commands", {}).items()]
        return sum(below, names)

    assert unexplained(typer.main.get_command(told)) == []


def test_dry_run_needs_no_vault_and_prints_the_stable_keys(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "household.csv"
    path.write_text(HEADER + ROW + ROW.replace("0.99", "x") + ROW.replace("01-01", "03-31"))
    code, out, _ = run("owner", "import", path, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {
        "format": "completejourney",
        "rows_read": 3,
        "traces": 2,
        "rejected": 1,
        "reasons": {"time, quantity or sales value is not one": 1},
        "from": "2017-01-01",
        "to": "2017-03-31",
        "categories": {"pd:Purchase": 2},
    }
    code, out, _ = run("owner", "import", path, "--dry-run")
    assert code == 0
    assert "traces: 2" in out


def test_dry_run_of_an_unknown_file_is_one_sentence(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\0\1\2")
    code, out, err = run("owner", "import", path, "--dry-run", "--json")
    assert (code, out) == (1, "")
    assert "not known" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"not a bundle\n", b"\xff\xfe\n", b'{"format":"twinvault-bundle/v1"}\n', b"[" * 100_000 + b"\n"],
)
def test_a_broken_bundle_is_one_clear_error(run: Any, tmp_path: Path, trust: Path, content: bytes) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(content)
    code, out, err = run("auditor", "verify", bundle, "--trust", trust, "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert (found["leaves"], found["checked"]) == (0, {})
    assert [(failure["step"], failure["leaf"]) for failure in found["failures"]] == [(0, None)]
    assert found["failures"][0]["detail"]


def test_without_pinned_keys_nothing_is_verified(run: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"{}\n")
    code, out, err = run("auditor", "verify", bundle, "--json")
    assert (code, out) == (2, "")
    assert "--trust" in err


def test_missing_files_and_bad_trust(run: Any, tmp_path: Path, trust: Path) -> None:
    code, _, err = run("auditor", "verify", tmp_path / "none", "--trust", trust)
    assert code == 1
    assert "cannot be read" in err
    code, _, err = run("auditor", "verify", trust, "--trust", tmp_path / "none")
    assert code == 1
    assert "trust file" in err
    trust.write_bytes(b"{}")
    code, _, err = run("auditor", "verify", trust, "--trust", trust)
    assert code == 1
    assert "trust file" in err


@pytest.mark.parametrize(
    "argv",
    [
        ("owner", "init", "--trust", "TRUST", "--passphrase-file", "FILE"),
        ("owner", "unlock", "--trust", "TRUST", "--kit", "FILE"),
        ("owner", "verify-receipt", "FILE", "--trust", "TRUST"),
        ("owner", "add-destination", "--url-file", "FILE"),
        ("executor", "status", "--share", "FILE"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_no_text_is_one_sentence(run: Any, tmp_path: Path, trust: Path, argv: tuple[str, ...]) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    code, out, err = run(*({"FILE": tmp_path / "x", "TRUST": trust}.get(part, part) for part in argv))
    assert (code, out, err.count("\n")) == (1, "", 1), err


def test_no_server_is_exit_3(run: Any, tmp_path: Path, trust: Path, home: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    code, out, err = run("owner", "init", "--trust", trust, "--passphrase-file", passphrase, "--yes", "--json")
    assert (code, out) == (3, "")
    assert "No answer from" in err
    assert not (home / "default").exists()


def test_usage_errors_are_exit_2(run: Any, tmp_path: Path) -> None:
    for argv in (
        ["nonsense"],
        ["owner", "init"],
        ["owner", "give"],
        ["owner", "give", "--kind", "company"],
        ["owner", "withdraw", "not-an-id"],
        ["owner", "narrow", "not-an-id"],
        ["owner", "revoke-device", "not-an-id"],
        ["owner", "verify-receipt", "x"],
        ["owner", "import", "x", "--dry-run", "--time-zone", "Moon/Base"],
        ["owner", "init", "--trust", "x", "--category", "pd:Nonsense"],
        ["company", "ask", "x", "--purpose", "dpv:Marketing"],
        ["company", "ask", "AAAAAAAAAAAAAAAAAAAAAA", "--purpose", "dpv:Nonsense"],
        ["owner", "ask", "--top-n", "0"],
        ["owner", "status", "--passphrase", "on-argv"],
        ["serve", "x", "--port", "99999"],
    ):
        code, out, err = run(*argv)
        assert (code, out) == (2, ""), argv
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("company", "ask", "x", "--purpose", "dpv:Marketing"), 2, "`company wait` shows it"),
        (("owner", "withdraw", "x"), 2, "`owner consents` shows it"),
        (("auditor", "bundle", "--out", "x", "--first", "0", "--last", "1"), 1, "`auditor register`"),
        (("owner", "verify-receipt", "EMPTY", "--trust", "TRUST"), 1, "is not a receipt"),
        (("auditor", "verify", "EMPTY", "--trust", "TRUST", "--listing", "none"), 1, "The listing none cannot be read"),
        (("operator", "sandbox", "x"), 2, "A vault id has 22"),
        (("operator", "erase", "x", "--reason", "r", "--identity-check", "x", "--confirm", "x"), 2, "A vault id has 22"),
        (("company", "proof", "ask", "A" * 22, *["--nonce", "n", "--purpose", "dpv:Marketing"], "--token-file", "EMPTY"),
         1, "empty.json is not the answer to a request for a token"),
        (("auditor", "bundle", *["--out", "x", "--first", "0", "--last", "1", "--listing", "x"]), 2, "--since and --until"),
        (("owner", "unlock", "--trust", "TRUST"), 2, "goes with --kit"),
        (("company", "request", *REQUEST.split(), *["--out", "x", "--renew", "y"]), 2, "one of them"),
        (("owner", "import", "EMPTY", "--time-zone", "UTC"), 2, "goes with --dry-run"),
        (("owner", "init", "--trust", "TRUST", "--category", "pd:Health"), 2, "begin with --no-twin"),
        (("owner", "legacy", "plan", *["--out", "x", "--executors", "3", "--threshold", "2", "--request", "x"]), 2, "--choice answer"),
    ],
    ids=lambda part: " ".join(part[:3]) if isinstance(part, tuple) else None,
)  # fmt: skip
def test_a_refusal_names_what_was_wrong_and_where_it_is_found(
    run: Any, tmp_path: Path, trust: Path, argv: tuple[str, ...], *, code: int, said: str
) -> None:
    (tmp_path / "empty.json").write_text("{}")
    files = {"EMPTY": tmp_path / "empty.json", "TRUST": trust}
    found, out, err = run(*(files.get(part, part) for part in argv))
    assert (found, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())


def test_a_passphrase_is_never_taken_from_a_pipe_or_empty(
    run: Any, tmp_path: Path, trust: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run("owner", "init", "--trust", trust, "--yes")
    assert code == 1
    assert "--passphrase-file" in err
    empty = tmp_path / "empty"
    empty.write_text("\n")
    code, _, err = run("owner", "init", "--trust", trust, "--passphrase-file", empty)
    assert code == 1
    assert "empty" in err


def test_another_kind_of_profile_is_refused_before_a_passphrase_is_asked(run: Any, trust: Path, home: Path) -> None:
    code, _, err = run("owner", "status")
    assert code == 1
    assert "No profile" in err
    record = trust.with_name("record.jws")
    code, out, _ = run(
        "company",
        "register",
        "--trust",
        trust,
        "--name",
        "Acme",
        "--contact",
        "a@acme.example",
        "--record",
        record,
        "--json",
    )
    assert code == 0
    assert json.loads(out)["company_id"] == Profile.load(home / "default").text("company_id")
    code, _, err = run("owner", "status")
    assert code == 1
    assert "another kind" in err
    code, _, err = run("owner", "status", "--profile", "../elsewhere")
    assert code == 1
    assert "plain word" in err


def test_without_the_server_extra_the_pip_line_is_printed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_commands, "entry_points", lambda **_: [])
    for name in ("serve", "worker", "operator"):
        code, out, err = run(name, "--anything")
        assert (code, out) == (2, "")
        assert 'pip install "twinvault[server]"' in err


EXTRAS = {"authlib", "fastapi", "numpy", "sqlalchemy", "sqlmodel", "starlette", "torch"}
BARE = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from twinvault.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["serve", "worker", "operator"])
def test_a_base_install_runs_and_names_what_is_missing(name: str) -> None:
    def bare(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BARE, *argv], capture_output=True, text=True, timeout=60, check=False
        )

    assert bare("--help").returncode == 0
    found = bare(name)
    assert found.returncode == 2, found.stderr
    assert 'pip install "twinvault[server]"' in found.stderr
    assert "Traceback" not in found.stderr


EVIL = "\x1b]0;owned\x07\x1b[2K\x1b[1A\x1b[32mAll receipts verify.\x1b[0m\x9b2K\u202e\r"


def steering(text: str) -> set[str]:
    return {letter for letter in text if unicodedata.category(letter)[0] == "C"} - {"\n"}


def test_a_hostile_service_cannot_steer_the_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sentences could repaint what this program said, such as that a receipt does not verify."""
    said = {"index": 1, "at": 1, "sentence": EVIL, "rules": [{"sentence": EVIL, "rule": EVIL}]}
    found = SimpleNamespace(history=lambda _: [said], legacy=SimpleNamespace(read=lambda: None))
    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: found)
    for options in ((), ("--json",)):
        code, out, _ = run("owner", "notices", *options)
        assert (code, steering(out)) == (0, set())
        assert "All receipts verify." in out

    def refuse(_: int) -> Any:
        raise problem(httpx.Response(400, json={"type": "/problems/x", "detail": f"No.\n{EVIL}"}))

    found.history = refuse
    code, _, err = run("owner", "notices")
    assert (code, steering(err)) == (1, set())
    assert "No.\n" in err


def test_whatever_is_emitted_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        common.emit({"one": EVIL, "many": [EVIL], "rows": [{EVIL: EVIL}], "none": None}, as_json=as_json)
        assert steering(capsys.readouterr().out) == set()
