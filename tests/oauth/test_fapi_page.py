"""docs/fapi.md names tests that exist, and the guide routes that exist."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import FastAPI

from vault.consent.routes import consent_router
from vault.oauth.approval import approval_router
from vault.oauth.grant_management import grants_router
from vault.oauth.routes import oauth_router
from vault.parties.routes import parties_router

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


def test_every_route_of_the_guide_exists() -> None:
    guide = (ROOT / "docs/guides/authorization.md").read_text()
    named = set(re.findall(r"(GET|POST|DELETE) (/v1/[a-z/{}_]*[a-z}])", guide))
    assert len(named) >= 10
    app = FastAPI()
    for router in (oauth_router, approval_router, grants_router, consent_router, parties_router):
        app.include_router(router)
    paths = app.openapi()["paths"]
    assert {(method, path) for method, path in named if method.lower() not in paths.get(path, {})} == set()
