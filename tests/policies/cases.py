"""The golden cases in `policies/cases`, and the base records they start from."""

from __future__ import annotations

import json
from pathlib import Path

from vault.encoding import JsonObject
from vault.policy.review import read_cases

FOLDER = Path(__file__).parents[2] / "policies"
CASES = read_cases(FOLDER)


def base_of(name: str) -> JsonObject:
    base: JsonObject = json.loads((FOLDER / "cases" / name / "base.json").read_text("utf-8"))
    return base
