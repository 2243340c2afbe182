"""The command line on a machine of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twinvault.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command; return its JSON object, else what it says, and demand the exit status that was expected."""
    monkeypatch.setenv("TWINVAULT_HOME", str(tmp_path / "home"))

    def run(*argv: object, expect: int = 0, plain: bool = False) -> Any:
        with pytest.raises(SystemExit) as end:
            main([*map(str, argv), *([] if plain else ["--json"])])
        said = capsys.readouterr()
        assert (end.value.code or 0) == expect, said.err
        assert "Traceback" not in said.err
        if plain:
            return said.out
        return json.loads(said.out) if said.out else said.err

    return run
