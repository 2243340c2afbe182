"""What is older than an installation keeps goes by itself, like any other erasure, and only that."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.answer_kit import neighbour, slug_of
from tests.erasure_kit import Erasing
from tests.leaves import leaves
from vault.answers.ask import AnswerDesk
from vault.budget import ledger
from vault.budget.charge import owner_day
from vault.consent import handovers
from vault.consent.errors import KeysGone
from vault.consent.handovers import Custody
from vault.encoding import b64u
from vault.erasure import retention
from vault.erasure.erase import Erased
from vault.erasure.retention import erase_overdue, oldest_kept, overdue
from vault.notices.feed import notices
from vault.schema.trace import Period
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Author, verify_certificate
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId
from vault.store import batches, rings, shortkeys
from vault.twin import rows


def run(site: Erasing, months: int = 1) -> list[Erased]:
    """Erase what is older than so many months; the kit's clock stands in November."""
    desk = site.client.app.state.answer_desk  # type: ignore[attr-defined]  # FastAPI
    assert isinstance(desk, AnswerDesk)
    custody = Custody(site.shortkeys, site.custody.recipients, desk.forget)
    return erase_overdue(site.database, custody, site.service, months, now=site.clock.at)


def kept(site: Erasing) -> set[Period]:
    with site.database.snapshot() as session:
        return {c.period for c in rings.listed(session, site.owner.vault).values()}


@pytest.mark.parametrize(
    ("months", "at", "oldest"),
    [(1, (2026, 11, 30), "2026-10"), (11, (2026, 12, 1), "2026-01"), (12, (2026, 12, 31), "2025-12"), (25, (2027, 1, 1), "2024-12")],
)  # fmt: skip
def test_the_current_month_and_so_many_before_it_are_kept(months: int, at: tuple[int, int, int], oldest: str) -> None:
    assert oldest_kept(months, datetime(*at, tzinfo=UTC)) == oldest


def test_months_that_are_too_old_go_and_are_certified_and_told(site: Erasing) -> None:
    before = kept(site)
    assert {site.september, site.october} <= before
    with site.database.snapshot() as session:
        charged = ledger.spent(session, owner_day(site.owner.vault, site.september))
    [done] = run(site)
    assert kept(site) == before - {site.september}
    said = verify_certificate(parse_envelope(done.certificate), site.service.public_key)
    assert (said.author, said.order_sha256) == (Author.RETENTION, b"")
    site.sequencer.wait(done.leaf_id, 20)
    with site.database.snapshot() as session:
        assert {row.period for row in rows.rows_for(session, site.owner.vault)} == {site.october}
        gone = [site.owner.compartment(c, site.september).id for c in ("pd:Purchase",)]
        assert not any(batches.digests(session, site.owner.vault, gone).values())
        assert ledger.spent(session, owner_day(site.owner.vault, site.september)) == charged
        [(public, personal)] = [leaf[1:] for leaf in leaves(session) if leaf[0] == "retention"]
        told = notices(session, site.owner.vault, after=-1, limit=100)
    assert public == {"kind": "retention", "scope": "compartments", "author": "retention", "period": "2026-11"}
    assert personal is not None
    assert personal["reason"] == "This service keeps 1 months before the current one."
    assert personal["vault"] == b64u(site.owner.vault)
    assert "What was kept long enough was destroyed." in [notice.sentence for notice in told]
    assert run(site) == [], "there is nothing left to do"
    assert run(site, 24) == []


def test_consents_over_what_is_gone_have_no_keys_until_they_are_renewed(site: Erasing) -> None:
    company = site.consent()
    assert site.ask(company).status_code == 200
    run(site)
    assert slug_of(site.ask(company)) == "keys-gone"
    site.renew_without(company, site.owner.compartment("pd:Purchase", site.september).id)
    assert site.ask(company).status_code == 200


KILLED = """
import os, signal, sys
from datetime import datetime
from vault.consent.handovers import Custody
from vault.db import Database
from vault.erasure import retention
from vault.seal.signing import SigningKey, new_seed

main, short, now = sys.argv[1:]
real, calls = retention.shortkeys.delete_scheduled, []

def die(*arguments):
    calls.append(arguments)
    if len(calls) == 2:  # the first vault's erasure is committed, its keys are still there
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

retention.shortkeys.delete_scheduled = die
custody = Custody(Database(short), {}, lambda _: None)
retention.erase_overdue(Database(main), custody, SigningKey(new_seed()), 1, now=datetime.fromisoformat(now))
"""


def test_a_run_that_is_killed_between_two_vaults_is_finished_by_the_next(site: Erasing) -> None:
    neighbour(site)
    consent = ConsentId(site.consent().consent_id)
    urls = [one.url.render_as_string(hide_password=False) for one in (site.database, site.shortkeys)]
    child = subprocess.run([sys.executable, "-c", KILLED, *urls, site.clock.at.isoformat()], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL
    with site.database.snapshot() as session:
        assert len(list(overdue(session, site.october))) == 1, "one vault is done, the other is not"
    assert len(run(site)) == 1
    with site.database.snapshot() as session:
        assert not list(overdue(session, site.october))
        with pytest.raises(KeysGone):
            handovers.find_live(session, consent, 1, KeyKind.IMPRINT)
    assert shortkeys.delete_scheduled(site.database, site.shortkeys) == 0, "no key was left to delete"


def test_a_run_that_dies_after_its_last_commit_is_finished_by_the_next(
    site: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = shortkeys.delete_scheduled, []

    def die(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(retention.shortkeys, "delete_scheduled", die)
        run(site)
    assert run(site) == [], "no vault is left"
    assert real(site.database, site.shortkeys) == 0, "its keys are gone all the same"
