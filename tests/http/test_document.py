"""The OpenAPI document tells a newcomer what each part is, not only its type."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter

from tests.site_kit import app_settings, make_site
from vault.app import create_app
from vault.http.document import DocumentedApp


def test_every_parameter_says_what_it_is_and_every_form_names_its_fields(tmp_path: Path) -> None:
    document = create_app(app_settings(make_site(tmp_path / "site"))).openapi()
    assert "/v1/log" in document["info"]["description"]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    parameters = [parameter for operation in operations for parameter in operation.get("parameters", ())]
    assert len(parameters) > 50
    assert [p["name"] for p in parameters if not p["description"].endswith(".") or p["example"] is None] == []
    bodies = [operation["requestBody"]["content"] for operation in operations if "requestBody" in operation]
    forms = [body["application/x-www-form-urlencoded"]["schema"] for body in bodies if "application/json" not in body
             and "application/octet-stream" not in body]  # fmt: skip
    assert len(forms) == 4
    for form in forms:
        assert {"client_assertion", "client_assertion_type"} <= set(form["required"]) <= form["properties"].keys()
        assert all(described["description"] for described in form["properties"].values())


def test_a_parameter_that_nothing_is_said_about_is_noticed() -> None:
    router, app = APIRouter(), DocumentedApp()

    @router.get("/{unheard_of}")
    def read(unheard_of: str) -> str:
        return unheard_of

    app.include_router(router)
    with pytest.raises(KeyError, match="unheard_of"):
        app.openapi()
