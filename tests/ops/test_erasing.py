"""The operator erases for somebody who cannot, and only with a record of how that person was identified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.client_kit import PURCHASE
from tests.http_kit import House, serving
from vault.encoding import b64u, parse_b64u
from vault.keys.kms import LocalKeyring
from vault.ops import operator
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Author, verify_certificate
from vault.seal.ids import sha256
from vault.seal.statement import KeyName


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("erasing")) as found:
        yield found


def run(house: House, *args: str):
    return CliRunner().invoke(operator, ["erase", *args, "--site", str(house.service.site.folder)])


def test_months_and_then_everything_go_while_the_service_runs(house: House, tmp_path: Path) -> None:
    owner = house.owner_with_twin((1, 2))
    vault, record = b64u(owner.vault), tmp_path / "identity.txt"
    record.write_text("saw the passport on a video call")
    how = ("--reason", "lost every device", "--identity-check", str(record), "--json")
    january = ("--category", PURCHASE, "--from", "2026-01", "--to", "2026-01")
    # A rollover that was killed before it stated the key it had made.
    LocalKeyring(house.service.site.keyring_folder(KeyName.SERVICE)).generate("service/2")
    looked = run(house, vault, *how, *january, "--dry-run")
    assert json.loads(looked.stdout)["destroys"]["batches"] == 1
    assert run(house, vault, *how, *january).exit_code == 2
    done = run(house, vault, *how, *january, "--confirm", vault)
    assert done.exit_code == 0, (done.output, done.exception)
    told = json.loads(done.stdout)
    service = house.service.app.state.service.public_key
    said = verify_certificate(parse_envelope(parse_b64u(told["certificate"])), service)
    assert (said.author, said.reason) == (Author.OPERATOR, "lost every device")
    assert said.identity_check == sha256(record.read_bytes())
    assert "2026-01" not in [row["period"] for row in owner.twin()["releases"]]
    assert run(house, vault, *how, *january, "--confirm", vault).exit_code == 1
    gone = run(house, vault, *how, "--confirm", vault)
    assert gone.exit_code == 0, (gone.output, gone.exception)
    answer = house.http.get(f"/v1/erasures/{json.loads(gone.stdout)['erasure']}")
    assert answer.status_code == 200
    assert run(house, vault, *how, "--confirm", vault).exit_code == 1
