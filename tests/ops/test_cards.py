"""An operator lists models and makes their cards from signed manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from tests.twin.test_release import trained
from tests.twin.worker_kit import RETAIL
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import WORKER
from vault.ops.site import Site
from vault.seal.signing import Signer, SigningKey, new_seed
from vault.seal.statement import KeyName
from vault.twin import release

Run = Callable[..., Result]


def _publish(site: Site, signer: Signer | None = None) -> str:
    keyring = LocalKeyring(site.folder / "keys" / "worker")
    signer = signer or KmsSigner(keyring, WORKER[KeyName.PROCESSOR_SIGN])
    database, _ = site.databases()
    backbone, manifest = trained()
    with database.transaction() as session:
        release.publish_built_in(session, RETAIL, signer)
        release.publish(session, backbone, manifest, signer)
    database.close()
    return backbone.digest.hex()


def test_models_are_listed_newest_first_with_their_verdict(site: Site, run: Run) -> None:
    assert "No model was released." in run("models", "list").stdout
    _publish(site)
    found = json.loads(run("models", "list", "--json").stdout)["models"]
    assert [one["privacy"]["epsilon"] > 0 for one in found] == [True, False]
    assert found[1]["may_serve"]
    assert len(run("models", "list").stdout.splitlines()) == 2


def test_a_card_is_written_for_the_newest_or_the_one_named(site: Site, run: Run, tmp_path: Path) -> None:
    _publish(site)
    newest = json.loads(run("models", "card", "--json", "--out", str(tmp_path / "card.html")).stdout)
    assert newest["page"] == str(tmp_path / "card.html")
    assert newest["model"][:12] in (tmp_path / "card.html").read_text()
    built_in = json.loads(run("models", "list", "--json").stdout)["models"][1]["model"]
    named = run("models", "card", built_in[:10], "--out", str(tmp_path / "other.html"))
    assert "built in" in named.stdout
    assert "learned from nobody" in (tmp_path / "other.html").read_text()


def test_no_card_for_a_name_that_no_model_has_nor_where_nothing_can_be_written(
    site: Site, run: Run, tmp_path: Path
) -> None:
    assert "models list" in run("models", "card").stderr
    _publish(site)
    assert "begins with 'nosuch'" in run("models", "card", "nosuch").stderr
    refused = run("models", "card", "--out", str(tmp_path / "missing" / "card.html"))
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr


def test_a_manifest_that_the_worker_did_not_sign_has_no_card(site: Site, run: Run, tmp_path: Path) -> None:
    _publish(site, SigningKey(new_seed()))
    refused = run("models", "card", "--out", str(tmp_path / "card.html"))
    assert refused.exit_code == 1
    assert refused.stderr.startswith("twinvault: ")
    assert not (tmp_path / "card.html").exists()


def test_a_withdrawn_model_is_listed_as_one_that_does_not_serve(site: Site, run: Run) -> None:
    _publish(site)
    name = json.loads(run("models", "list", "--json").stdout)["models"][0]["model"]
    both = run("models", "withdraw", "", "--reason", "Which?")
    assert both.exit_code == 1
    assert "2 models' names begin with ''" in both.stderr
    assert "answers no more" in run("models", "withdraw", name, "--reason", "It was refuted.").stdout
    assert "was withdrawn before" in run("models", "withdraw", name, "--reason", "Again.").stdout
    found = json.loads(run("models", "list", "--json").stdout)["models"]
    assert [one["may_serve"] for one in found] == [False, True]
    assert found[0]["refused_because"] == "It was withdrawn."
    assert "begins with 'nosuch'" in run("models", "withdraw", "nosuch", "--reason", "Why not.").stderr
