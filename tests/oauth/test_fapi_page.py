"""docs/fapi.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_on_the_page_exists() -> None:
    named = re.findall(r"`((?:tests/)?[a-z_/]+\.py)::(test_\w+)`", (ROOT / "docs/fapi.md").read_text())
    assert len(named) > 40
    missing = []
    for file, test in named:
        path = ROOT / (file if file.startswith("tests/") else f"tests/oauth/{file}")
        if not path.is_file() or f"def {test}(" not in path.read_text():
            missing.append(f"{file}::{test}")
    assert missing == []
