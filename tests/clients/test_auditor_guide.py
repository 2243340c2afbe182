"""The commands of the auditors' guide, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.client_kit import Service
from tests.site_kit import operate
from twinvault.api import Api
from twinvault.cli import common, main
from vault.proof.trust import parse_trust
from vault.tlog.models import log_entry

GUIDE = Path(__file__).parents[2] / "docs/guides/auditor.md"


def test_the_guide_takes_an_auditor_from_nothing_to_a_verified_month(
    own_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service, api = own_service, Api(own_service.url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(common, "reach", lambda _: api)
    (tmp_path / "site").symlink_to(service.site.folder)
    (tmp_path / "trust.json").write_bytes(service.trust_file.read_bytes())
    first = datetime.now(UTC).replace(day=1)
    months = {
        "2026-10-01": f"{first - timedelta(days=1):%Y-%m-01}",
        "2026-11-01": f"{first:%Y-%m-%d}",
        "2026-12-01": f"{(first + timedelta(days=32)).replace(day=1):%Y-%m-%d}",
    }
    commands = re.findall(r"^\$ twinvault (.+)$", GUIDE.read_text(), flags=re.MULTILINE)
    assert len(commands) >= 7
    said: dict[str, str] = {}
    for command in commands:
        words = [months.get(word, word) for word in shlex.split(command)]
        words = [said["key"] if word == "WITNESS-KEY" else word for word in words]
        if "--opens" in words:
            _let_a_month_pass(service, first - timedelta(days=1))
        if words[0] == "operator":
            result = operate(words[1:])
            assert result.exit_code == 0, (command, result.output)
            continue
        with pytest.raises(SystemExit) as end:
            main([*words, *([] if "--json" in words else ["--json"])])
        assert end.value.code in {None, 0}, command
        said |= json.loads(capsys.readouterr().out)
    assert (said["failures"], int(said["leaves"]) > 5) == ([], True)
    assert (tmp_path / "mirror/checkpoint").is_file()
    trust = parse_trust(service.trust_file.read_bytes().strip())
    assert trust.witnesses is not None
    assert [key.text for key in trust.witnesses.keys] == [said["key"]]
    api.close()


def _let_a_month_pass(service: Service, then: datetime) -> None:
    """Date what was logged so far into the month before this one."""
    with service.site.opened() as (database, _), database.transaction() as session:
        session.connection().execute(log_entry.update().values(recorded_s=int(then.timestamp())))
