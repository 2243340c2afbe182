"""The operator erases for somebody who cannot, and only with a record of how that person was identified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.client_kit import PURCHASE
from tests.http_kit import QUESTION, House, serving
from tests.site_kit import operate
from twinvault.api import ApiError
from vault import app
from vault.clock import SystemClock
from vault.encoding import b64u, parse_b64u
from vault.keys.kms import LocalKeyring
from vault.schema.consent import ConsentEvent
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Author, verify_certificate
from vault.seal.ids import sha256
from vault.seal.statement import KeyName


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("erasing")) as found:
        yield found


def run(house: House, *args: str):
    return operate(["erase", *args, "--site", str(house.service.site.folder)])


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


def test_what_is_older_than_the_published_retention_goes_and_the_owners_client_renews(house: House) -> None:
    state, site = house.service.app.state, str(house.service.site.folder)

    def shown(*args: str) -> Any:
        return json.loads(operate(["retention", *args, "--site", site, "--json"]).stdout)

    def published() -> Any:
        return house.http.get("/v1/retention").json()

    assert shown() == {"months": None}
    assert published() == {"months": None, "oldest": None}
    app._erase_overdue(state)
    now = SystemClock().now()
    months = now.year * 12 + now.month - (2026 * 12 + 2)  # all from February 2026 on
    owner, shop = house.owner_with_twin((1, 2)), house.company()
    consent = house.consent(owner, shop)
    shop.ask(consent, QUESTION)
    assert (shown("--months", str(months))["oldest"], shown("--months", str(months))["vaults"] >= 1) == (
        "2026-02",
        True,
    )
    state.settings = state.settings.model_copy(update={"retention_months": months})
    try:
        assert published() == {"months": months, "oldest": "2026-02"}
        app._erase_overdue(state)
    finally:
        state.settings = state.settings.model_copy(update={"retention_months": None})
    assert shown("--months", str(months)) == {"months": months, "oldest": "2026-02", "vaults": 0, "compartments": 0}
    assert "2026-01" not in [row["period"] for row in owner.twin()["releases"]]
    with pytest.raises(ApiError) as refusal:
        shop.ask(consent, QUESTION)
    assert refusal.value.slug == "keys-gone"
    before = {item.id: item for item in owner.consents()}
    assert [item.has_keys for item in before.values()] == [False, False]
    owner.refresh()
    after = {item.id: item for item in owner.consents()}
    assert [item.has_keys for item in after.values()] == [True, True]
    for name, item in after.items():
        assert (item.current.event, item.current.version) == (ConsentEvent.RENEWED, before[name].current.version + 1)
        assert item.current.terms == before[name].current.terms, "the same terms, signed anew"
    shop.ask(consent, QUESTION)
    owner.refresh()
    assert {item.id: item.current.version for item in owner.consents()} == {
        name: item.current.version for name, item in after.items()
    }, "nothing is renewed twice"
