"""An old backup put back brings back nothing that was erased since, with its journal or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.client_kit import PURCHASE
from tests.http_kit import serving
from tests.site_kit import app_settings, operate, restore
from tests.waiting import until
from vault.app import create_app
from vault.consent import consents, handovers
from vault.consent.errors import KeysGone
from vault.db import Database
from vault.encoding import b64u
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.parties import people
from vault.proof.leaf import LeafKind
from vault.schema.trace import Period
from vault.seal.handover import KeyKind
from vault.seal.ids import CompartmentId, VaultId
from vault.store import batches, rings
from vault.tlog.journal import Journal
from vault.twin import rows


@dataclass
class Forgotten:
    """A site that was backed up before one owner erased a month and another everything."""

    site: Site
    backup: Path
    vault: VaultId
    erased: CompartmentId
    gone: VaultId


@pytest.fixture
def forgotten(urls: tuple[str | None, str | None], tmp_path: Path) -> Forgotten:
    with serving(tmp_path / "house", *urls) as house:
        owner, other = house.owner_with_twin((1, 2)), house.owner_with_twin((1,))
        back_up(house.service.site, tmp_path / "backup")
        january = owner.erasures.compartments(PURCHASE, Period("2026-01"), Period("2026-01"))
        owner.erasures.erase(january)
        other.erasures.erase_everything()
        return Forgotten(house.service.site, tmp_path / "backup", owner.vault, next(iter(january)), other.vault)


def test_what_was_erased_since_is_erased_again(forgotten: Forgotten) -> None:
    database, short_keys = forgotten.site.databases()
    restore(forgotten.site, forgotten.backup)
    assert forgotten.site.journal is not None
    assert forgotten.site.journal.is_due(), "whatever it holds of theirs that the backup does not know"
    with database.snapshot() as session:
        listed = rings.listed(session, forgotten.vault)
        assert listed, "the rest of the vault came back"
        assert forgotten.erased not in listed
        assert batches.digests(session, forgotten.vault, [forgotten.erased]) == {forgotten.erased: []}
        assert {row.period for row in rows.rows_for(session, forgotten.vault)} == {"2026-02"}
        assert people.find(session, forgotten.gone) is None
        assert rings.listed(session, forgotten.gone) == {}
    for name in database, short_keys:
        name.close()


@pytest.mark.slow
@pytest.mark.parametrize("died", [True, False], ids=["erased, killed, then restored", "restored, then erased"])
def test_no_half_of_somebody_erased_stays_in_the_journal_though_no_database_knows_it(
    urls: tuple[str | None, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died: bool
) -> None:
    with monkeypatch.context() as patch, serving(tmp_path / "house", *urls) as house:
        site, owner, other = house.service.site, house.owner_with_twin((1,)), house.owner()
        vault = b64u(owner.vault)
        back_up(site, tmp_path / "backup")
        owner.withdraw(house.consent(owner, house.company()))  # a consent that the backup does not know either
        for one in (owner, other):
            one.freeze(frozen=True)
        if died:
            patch.setattr(Journal, "forget_erased", lambda *_: None)  # the process dies before this
            owner.erasures.erase_everything()
    journal = site.journal
    assert journal is not None

    def halves(of: VaultId) -> set[bytes]:
        return {
            leaf.personal.salt
            for leaf in journal.read().leaves
            if leaf.about == of and leaf.personal is not None and leaf.kind is not LeafKind.RELEASE
        }

    mine, others = halves(owner.vault), halves(other.vault)
    assert len(mine) >= 3
    restore(site, tmp_path / "backup")
    assert mine <= halves(owner.vault)
    if not died:
        (tmp_path / "identity").write_text("seen")
        how = ("--reason", "asked", "--identity-check", str(tmp_path / "identity"), "--confirm", vault)
        assert operate(["erase", vault, *how, "--site", str(site.folder)]).exit_code == 0
    with TestClient(create_app(app_settings(site))):
        until(lambda: not halves(owner.vault), "the journal forgets")
    kept = b"".join(path.read_bytes() for path in journal._path.parent.glob(f"{journal._path.name}*"))
    assert not [salt for salt in mine if salt in kept]
    assert others
    assert [salt for salt in others if salt not in kept] == []


def test_a_backup_without_its_journal_opens_nothing_that_was_erased(forgotten: Forgotten) -> None:
    """Even an attacker who reads the backup itself: the short keys over its seeds and handovers are gone."""
    database, short_keys = forgotten.site.databases()
    if not database.is_sqlite:
        return
    copy = Database(f"sqlite:///{forgotten.backup / 'vault.sqlite'}")
    with copy.snapshot() as session:
        assert forgotten.erased in rings.listed(session, forgotten.vault), "the backup knows it"
        assert batches.digests(session, forgotten.vault, [forgotten.erased])[forgotten.erased]
        pages = rings.read(session, forgotten.vault, short_key_database=short_keys).pages
        assert forgotten.erased not in {name for _, locked in pages for name in locked}
        assert rings.read(session, forgotten.gone, short_key_database=short_keys).pages
        assert not [
            name
            for _, locked in rings.read(session, forgotten.gone, short_key_database=short_keys).pages
            for name in locked
        ]
        for vault in (forgotten.vault, forgotten.gone):
            for consent in consents.list_for(session, vault):
                for kind in KeyKind:
                    with pytest.raises(KeysGone):
                        handovers.read(session, short_keys, consent.consent_id, consent.current.version, kind)
    for name in copy, database, short_keys:
        name.close()
