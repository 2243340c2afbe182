"""An auditor registers, is admitted by the operator, fetches the log's evidence and verifies it offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.client_kit import Service
from twinvault.api import Api, ApiError
from twinvault.auditor import Auditor
from twinvault.cli import main
from vault.ops.commands import operator


def test_from_registration_to_a_verified_bundle(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: Api
) -> None:
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))
    record, out, site = tmp_path / "record.json", tmp_path / "bundle", service.site.folder

    def auditor(*argv: object) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["auditor", *map(str, argv), "--json"])
        assert end.value.code in {None, 0}
        return json.loads(capsys.readouterr().out.splitlines()[-1])  # the service in this process logs before it

    def auditors(*argv: object) -> Any:
        said = CliRunner().invoke(operator, ["auditors", *map(str, argv), "--site", str(site), "--json"])
        assert said.exit_code == 0, said.output
        return json.loads(said.output)

    auditor("register", "--trust", service.trust_file, "--name", "Auditors Inc", "--record", record)
    fetch = Auditor.load(tmp_path / "home" / "default", api).fetch
    with pytest.raises(ApiError) as refusal:
        fetch(0, 0)
    assert refusal.value.slug == "audit-refused"
    added = auditors("add", record, "--days", 1)
    assert auditors("list")["auditors"] == [added]
    report = auditor("bundle", "--first", 0, "--last", 2, "--out", out)
    assert (report["leaves"], report["failures"]) == (3, [])
    assert auditor("verify", out) == report
    auditors("add", record, "--days", 0)
    with pytest.raises(ApiError):
        fetch(0, 0)


def test_a_file_that_is_no_registration_is_refused(service: Service, tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"{}", b'{"format":"twinvault-auditor/v1"}', b"\xff", b"[" * 9999)):
        path = tmp_path / str(number)
        path.write_bytes(content)
        said = CliRunner().invoke(operator, ["auditors", "add", str(path), "--site", str(service.site.folder)])
        assert said.exit_code == 1
        assert said.output.startswith("error: ")
