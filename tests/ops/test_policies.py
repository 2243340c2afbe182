"""An operator changes a rule: check, compare, publish, restart; nothing slips in unchecked or unlogged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.leaves import leaves
from tests.policies.cases import FOLDER
from tests.site_kit import ISSUER, ORIGIN, operate, running_app
from vault.clock import SystemClock
from vault.db import Database
from vault.encoding import b64u, parse_b64u
from vault.ops.site import Site, set_up
from vault.policy import sets
from vault.proof.decision import load_policy_folder, load_policy_set, load_shipped_policy_set

SHIPPED = load_shipped_policy_set()


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    """An installation on either engine."""
    url = database.url.render_as_string(hide_password=False)
    made = Site(tmp_path / "site")
    set_up(
        made, issuer=ISSUER, log_origin=ORIGIN, database_url=url, shortkeys_url=None, now=SystemClock().now()
    )  # fmt: skip
    return made


@pytest.fixture
def policies(site: Site) -> Callable[..., Result]:
    def invoke(verb: str, *args: object) -> Result:
        where = [] if verb == "check" else ["--site", str(site.folder)]
        return operate(["policies", verb, *map(str, args), *where])

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "policies"))


def edit(folder: Path, before: str, after: str, **manifest: Any) -> None:
    """Change a rule the way the guide says: new text, next version, former address, new address."""
    for path in folder.glob("*.cedar"):
        path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")
    stated = json.loads((folder / "manifest.json").read_text("utf-8"))
    stated |= {"version": stated["version"] + 1, "predecessor": stated["sha256"]} | manifest
    rules = load_policy_set(
        {path.name: path.read_text("utf-8") for path in folder.glob("*.cedar")},
        (folder / "schema.cedarschema").read_text("utf-8"),
        version=stated["version"],
        predecessor=parse_b64u(stated["predecessor"]),
    )
    (folder / "manifest.json").write_text(json.dumps(stated | {"sha256": b64u(rules.sha256)}), "utf-8")


def stricter(folder: Path) -> None:
    """Refuse the last question of a quota too, and say so in the cases."""
    edit(folder, "context.quota_left <= 0", "context.quota_left <= 1")
    case = folder / "cases/ask_company/ALLOW/last_of_quota.json"
    spec = json.loads(case.read_text("utf-8")) | {"reasons": ["quota-spent"], "code": "quota-spent"}
    (folder / "cases/ask_company/DENY/last_of_quota.json").write_text(json.dumps(spec), "utf-8")
    case.unlink()


def logged(database: Database) -> list[object]:
    with database.snapshot() as session:
        return [public["policy_set"] for kind, public, _ in leaves(session) if kind == "policy-set"]


def test_the_shipped_folder_is_acceptable_and_equal_to_what_is_in_force(policies: Callable[..., Result]) -> None:
    checked = policies("check", FOLDER, "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["faults"] == []
    assert "decide alike" in policies("diff", FOLDER).stdout


def test_a_changed_rule_is_compared_published_logged_and_in_force_after_a_restart(
    site: Site, database: Database, policies: Callable[..., Result], folder: Path
) -> None:
    with running_app(site) as client:
        stricter(folder)
        assert policies("check", folder).exit_code == 0
        shown = json.loads(policies("diff", folder, "--json").stdout)
        assert (shown["added"], shown["removed"], shown["changed"]) == ([], [], ["quota-spent"])
        assert shown["decisions"] == [
            {
                "case": "ask_company-DENY-last_of_quota",
                "before": "ALLOW (permit-ask-company)",
                "after": "DENY (quota-spent)",
            }
        ]
        published = policies("publish", folder)
        assert published.exit_code == 0, published.stderr
        assert "Restart app and worker" in published.stdout
        assert client.app.state.answer_desk.policy_set.sha256 == SHIPPED.sha256
        assert "published before" in policies("publish", folder).stdout
    new = load_policy_folder(folder)
    with running_app(site) as client:
        assert client.app.state.answer_desk.policy_set.sha256 == new.sha256
        for rules in (SHIPPED, new):
            assert client.get(f"/v1/policies/{b64u(rules.sha256)}").content == rules.source
    assert logged(database) == [b64u(SHIPPED.sha256), b64u(new.sha256)]
    with database.snapshot() as session:
        assert sets.choose(session).sha256 == new.sha256, "what the worker takes at its start"


def test_another_text_under_a_used_version_is_refused(
    site: Site, database: Database, policies: Callable[..., Result], folder: Path
) -> None:
    assert policies("publish", FOLDER).exit_code == 0
    edit(folder, "// Who asks", "// Whoever asks", version=SHIPPED.version, predecessor=b64u(SHIPPED.predecessor))
    refused = policies("publish", folder)
    assert refused.exit_code == 1
    assert f"needs version {SHIPPED.version + 1}" in refused.stderr
    assert logged(database) == [b64u(SHIPPED.sha256)]


def weaken(folder: Path) -> None:
    edit(folder, "context.quota_left <= 0", "context.quota_left <= -9")


def silence(folder: Path) -> None:
    edit(folder, '@sentence_fr("Le quota du consentement pour ce mois est épuisé.")\n', "")


def forget_cases(folder: Path) -> None:
    edit(folder, "// Who asks", "// Whoever asks")
    for path in folder.glob("cases/*/DENY/*quota*.json"):
        path.unlink()


def break_case(folder: Path) -> None:
    edit(folder, "// Who asks", "// Whoever asks")
    (folder / "cases/ask_company/DENY/quota_spent.json").write_text('{"set": {"context.nothing": 1}}')


def leave_manifest(folder: Path) -> None:
    path = folder / "asker.cedar"
    path.write_text(path.read_text("utf-8") + "// more\n", "utf-8")


@pytest.mark.parametrize("spoil", [weaken, silence, forget_cases, break_case, leave_manifest])
def test_what_does_not_check_is_not_published(
    database: Database, policies: Callable[..., Result], folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    checked, published = policies("check", folder), policies("publish", folder)
    assert (checked.exit_code, published.exit_code) == (1, 1)
    assert not isinstance(published.exception, Exception) or isinstance(published.exception, SystemExit)
    assert logged(database) == []


def test_two_folders_are_compared_with_the_cases_of_both(policies: Callable[..., Result], folder: Path) -> None:
    edit(folder, '@id("sale-of-data")', '@id("no-resale")')
    shown = policies("diff", folder, "--against", FOLDER).stdout
    assert "added    no-resale" in shown
    assert "removed  sale-of-data" in shown
    assert "case     ask_company-DENY-sale_of_data: DENY (sale-of-data) -> DENY (no-resale)" in shown
