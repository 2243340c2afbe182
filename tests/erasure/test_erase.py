"""Erasing removes what it must, from everything that can read it, and keeps every other proof valid."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlmodel import Session

from tests.answer_kit import NEXT, answer_in, neighbour, slug_of
from tests.consent_kit import PURPOSE
from tests.erasure_kit import Erasing, mentions
from tests.leaves import leaves
from tests.twin.worker_kit import OCTOBER, SEPTEMBER, purchase
from tests.vault_kit import MONTH, NOW, PURCHASE, begin, wait_until_blocked
from tests.waiting import together
from vault.answers import ask as asking
from vault.budget import ledger
from vault.budget.charge import LedgerCharge, owner_day
from vault.consent import handovers
from vault.consent.errors import KeysGone
from vault.db import Database
from vault.encoding import JsonObject, b64u, parse_json
from vault.erasure.erase import ErasureConflict, NothingToErase, erase_again, find
from vault.errors import VaultError
from vault.ingest.accept import UnknownDevice
from vault.jobs import queue
from vault.parties import people
from vault.parties.people import UnknownVault
from vault.proof.accounting import gaussian
from vault.proof.bundle import parse_bundle
from vault.proof.leaf import LeafKind
from vault.proof.verify import verify_bundle
from vault.schema.terms import ConsentKind
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Author, Counted, Scope, verify_certificate
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.ids import CompartmentId, ConsentId, new_id
from vault.store import batches, rings, shortkeys
from vault.store.models import short_key
from vault.tlog import log, tombstones
from vault.tlog.models import log_tombstone
from vault.twin.children import Children
from vault.twin.requests import REFRESH_PURPOSE, request_refresh

GROUPS = "SELECT id, public_body FROM log_entry JOIN log_opening ON entry_id = id WHERE kind = 'tombstones'"
EVER = {"data_from": SEPTEMBER, "data_to": MONTH}


def own_consent(site: Erasing):
    return site.give(ConsentKind.SELF, **EVER, purposes=frozenset({REFRESH_PURPOSE, PURPOSE}))


def places(site: Erasing, *compartments: CompartmentId) -> tuple[int, int]:
    """Return how many batches and rows lie in these compartments."""
    with site.database.snapshot() as session:
        found = batches.digests(session, site.owner.vault, compartments)
        rows_found = [row for row in site.stored() if row.compartment_id in compartments]
    return sum(map(len, found.values())), len(rows_found)


def test_a_month_is_gone_with_its_keys_and_the_rest_stays(site: Erasing) -> None:
    own, company = own_consent(site), site.consent()
    before, bundle = answer_in(site.ask(company))
    assert len(before.releases) == 2
    gone, kept = (site.owner.compartment(PURCHASE, period).id for period in (OCTOBER, SEPTEMBER))
    erased = site.erase(site.scope(OCTOBER))
    assert places(site, gone) == (0, 0)
    assert places(site, kept) == (1, 1)
    with site.shortkeys.snapshot() as session:
        names = set(session.connection().execute(sqlalchemy.select(short_key.c.name)).scalars())
    assert shortkeys.compartment_key(site.owner.vault, gone) not in names
    assert shortkeys.compartment_key(site.owner.vault, kept) in names
    # Handovers that held its key are gone too; renewed ones open what is left.
    assert set(erased.consents) == {own.consent_id, company.consent_id}
    with site.database.snapshot() as session, pytest.raises(KeysGone):
        handovers.read(session, site.shortkeys, ConsentId(own.consent_id), 1, KeyKind.RAW)
    assert site.ask(company).status_code != 200
    after, _ = answer_in(site.ask(site.renew_without(company, gone)))
    assert len(after.releases) == 1
    assert after.releases < before.releases
    assert verify_bundle(bundle, site.trust).failures == (), "what was answered before still verifies"


def test_the_certificate_says_what_was_destroyed_and_the_log_shows_it(site: Erasing) -> None:
    own_consent(site)
    order = site.order(site.scope(OCTOBER), reason="moved away")
    erased = site.erase(site.scope(OCTOBER), order)
    said = verify_certificate(parse_envelope(erased.certificate), site.service.public_key)
    assert said.destroyed == {
        Counted.COMPARTMENTS: 1, Counted.BATCHES: 1, Counted.ROWS: 1, Counted.CONSENTS: 1, Counted.ANSWERS: 0,
    }  # fmt: skip
    assert (said.author, said.reason, said.order_sha256) == (Author.OWNER, "moved away", order.digest)
    assert said.models == ()
    site.sequencer.wait(erased.leaf_id, 20)
    with site.database.snapshot() as session:
        (leaf,) = [(public, personal) for kind, public, personal in leaves(session) if kind == "erasure"]
        pending = session.connection().exec_driver_sql("SELECT entry FROM log_entry WHERE kind = 'erasure'")
        assert pending.scalar_one() == said.entry
    assert leaf[0] == {"kind": "erasure", "scope": "compartments", "author": "owner", "period": "2026-11"}
    assert leaf[1] is not None
    assert leaf[1]["compartments"] == [b64u(site.owner.compartment(PURCHASE, OCTOBER).id)]
    with pytest.raises(SealError):
        verify_certificate(parse_envelope(erased.certificate), site.owner.key.public_key)


def test_the_same_order_again_erases_nothing_more(site: Erasing) -> None:
    order = site.order(site.scope(OCTOBER))
    first = site.erase(site.scope(OCTOBER), order)
    site.extend(OCTOBER)
    site.buy("completejourney:bread")
    assert site.erase(site.scope(OCTOBER), order).certificate == first.certificate
    assert places(site, site.owner.compartment(PURCHASE, OCTOBER).id)[0] == 1
    said = verify_certificate(parse_envelope(first.certificate), site.service.public_key)
    with pytest.raises(ErasureConflict):
        site.erase(site.scope(SEPTEMBER), site.order(site.scope(SEPTEMBER), erasure_id=said.erasure_id))
    with pytest.raises(NothingToErase):
        site.erase(said.scope, site.order(said.scope))


def test_charges_stay_so_that_days_imported_again_are_charged_to_the_same_cap(site: Erasing) -> None:
    cost = gaussian(256, 900)
    with site.database.transaction() as session:
        paid = LedgerCharge(
            owner_day(site.owner.vault, OCTOBER), PURCHASE, b"r" * 32, {"name": "test"}, cost, b"c" * 32
        )
        ledger.reserve(session, paid, ledger_cap(), at=NOW)
    for scope in (site.scope(OCTOBER), site.scope()):
        site.erase(scope)
        with site.database.snapshot() as session:
            assert ledger.spent(session, owner_day(site.owner.vault, OCTOBER)) == cost


def ledger_cap():
    from vault.proof.accounting import OWNER_DAY_CAP

    return OWNER_DAY_CAP


def test_a_person_leaves_nothing_but_what_names_nobody(site: Erasing) -> None:
    own, company = own_consent(site), site.consent()
    site.give(ConsentKind.COHORT, **EVER)
    answered = site.ask(company)
    assert answered.status_code == 200
    assert site.ask_own(own).status_code == 200
    site.ask(company, replace(NEXT, purpose="dpv:Marketing"))
    with site.database.transaction() as session:
        request_refresh(session, site.owner.vault, now=site.clock.at)
        (job,) = queue.claim(session, now=site.clock.at, lease_s=60)
    names = [
        site.owner.vault, own.subject, company.subject, site.owner.key.public_key, own.principal_key,
        site.source.device.id, *(c.id for page, _ in site.owner.pages.values() for c in page.compartments.values()),
    ]  # fmt: skip
    before = mentions(site.database, *names)
    assert {"batch.vault_id", "imprint_row.vault_id", "consent.subject", "log_opening.personal_body"} <= before.keys()
    assert any(place.endswith(".payload") for place in before), "the search finds jobs too"
    site.erase(site.scope(OCTOBER))  # whose leaf names the vault too
    erased = site.erase(site.scope())
    left = mentions(site.database, *names)
    # What shows that this person ordered it stays, by subject: it names no vault.
    assert left.pop("log_tombstone.subject") == left.pop("log_subject_erasure.subject") == {
        b64u(own.subject), b64u(company.subject)
    }  # fmt: skip
    assert left.pop("log_subject_erasure.envelope") >= {b64u(own.principal_key)}
    assert left.keys() <= {"erasure.certificate", "log_opening.personal_body", "budget_ledger.scope"}
    with site.database.snapshot() as session:
        speaking = [
            kind for kind, _, personal in leaves(session) if personal and b64u(site.owner.vault) in str(personal)
        ]
        assert speaking == ["erasure"]
        empty = "SELECT count(*) FROM consent_version WHERE envelope IS NOT NULL OR certificate IS NOT NULL"
        assert session.connection().exec_driver_sql(empty).scalar_one() == 0
    with site.shortkeys.snapshot() as session:
        assert (
            session.connection().execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(short_key)).scalar_one()
            == 0
        )
    with site.database.transaction() as session:
        queue.finish(session, job)  # the worker that ran it meanwhile
        queue.fail(session, job, "late", now=site.clock.at)
    assert verify_bundle(parse_bundle(answered.content), site.trust).failures == ()
    unknown, gone = site.ask(new_id()), site.ask(company)
    assert (gone.status_code, gone.content) == (unknown.status_code, unknown.content)
    said = verify_certificate(parse_envelope(erased.certificate), site.service.public_key)
    assert said.destroyed[Counted.CONSENTS] == 3
    assert said.destroyed[Counted.ANSWERS] == 3


def test_nobody_else_is_touched(site: Erasing) -> None:
    other = neighbour(site)
    other.put_rows("completejourney:bread")
    theirs = other.consent()
    before = mentions(site.database, other.owner.vault)
    site.consent()
    site.erase(site.scope(OCTOBER))
    site.erase(site.scope())
    assert other.ask(theirs).status_code == 200
    assert mentions(site.database, other.owner.vault).keys() >= before.keys()


def test_an_erasure_that_fails_half_way_did_nothing(site: Erasing) -> None:
    company = site.consent()
    before = mentions(site.database, site.owner.vault)

    def fails(_session: Session, _scope: Scope) -> None:
        raise RuntimeError

    for scope in (site.scope(OCTOBER), site.scope()):
        with pytest.raises(RuntimeError):
            site.erase(scope, also=[fails])
    assert mentions(site.database, site.owner.vault) == before
    assert site.ask(company).status_code == 200


def test_domains_above_forget_too(quick: Erasing) -> None:
    told: list[Scope] = []
    quick.erase(quick.scope(OCTOBER), also=[lambda _, scope: told.append(scope)])
    assert told == [quick.scope(OCTOBER)]


def test_a_row_made_of_a_month_that_was_erased_meanwhile_is_thrown_away(site: Erasing) -> None:
    version = own_consent(site)
    site.buy("completejourney:bread", day=6)  # another input, so another release than the kit's
    gone = site.owner.compartment(PURCHASE, OCTOBER).id
    from vault.twin import refresh as refreshing

    with Children() as children, pytest.MonkeyPatch.context() as patch:
        add_noise = refreshing._add_noise

        def then_erase(group: object) -> None:
            add_noise(group)  # type: ignore[arg-type]
            site.erase(site.scope(OCTOBER))
            # Only the consent's own row decides here, so let it stay live and with keys.

        patch.setattr(refreshing, "_add_noise", then_erase)
        site.refresh(children, version)
    assert places(site, gone) == (0, 0)


def test_whatever_happens_at_the_same_time_leaves_nothing_behind(site: Erasing) -> None:
    own, company = own_consent(site), site.consent()
    done = threading.Event()

    def keep_busy(act, *once_the_person_is_gone: type[VaultError]):
        def loop() -> None:
            while not done.is_set():
                with suppress(*once_the_person_is_gone):
                    act()

        return loop

    def erase_soon() -> None:
        try:
            threading.Event().wait(0.3)
            site.erase(site.scope())
            threading.Event().wait(0.2)
        finally:
            done.set()

    together(
        erase_soon,
        keep_busy(lambda: site.ask(company)),
        keep_busy(lambda: site.ask_own(own)),
        keep_busy(lambda: site.upload(site.seal([purchase("completejourney:bread")])), UnknownDevice),
        keep_busy(site.consent, UnknownVault),
    )
    left = mentions(site.database, site.owner.vault, own.subject, company.subject)
    assert left.keys() <= {
        "erasure.certificate",
        "log_opening.personal_body",
        "budget_ledger.scope",
        "party_session.vault_id",
        "log_tombstone.subject",
        "log_subject_erasure.subject",
        "log_subject_erasure.envelope",
    }
    with site.database.snapshot() as session:
        assert rings.listed(session, site.owner.vault) == {}


def test_what_was_inferred_before_months_were_erased_is_not_answered_after(
    site: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = site.consent()
    commit = asking._commit

    def erase_first(*arguments: Any) -> Any:
        site.erase(site.scope(OCTOBER))
        return commit(*arguments)

    monkeypatch.setattr(asking, "_commit", erase_first)
    assert slug_of(site.ask(company)) == "keys-gone"
    with site.database.snapshot() as session:
        assert "answer" not in [kind for kind, _, _ in leaves(session)]


def test_a_consent_waits_for_an_erasure_and_is_refused_then(
    postgresql_database: Database, shortkeys: Database, tmp_path: Path
) -> None:
    site = Erasing(postgresql_database, shortkeys, keyring=tmp_path / "keyring")
    given: list[object] = []

    def give() -> None:
        try:
            given.append(site.consent())
        except VaultError as refusal:
            given.append(refusal)

    giver = threading.Thread(target=give)
    with site.database.transaction() as session:
        people.lock(session, site.owner.vault)
        giver.start()
        wait_until_blocked(site.database, lambda: bool(given))
        people.forget(session, site.owner.vault)
    giver.join(30)
    assert [type(one) for one in given] == [UnknownVault]


def test_erasing_again_after_a_restore_needs_only_the_log_s_opening(site: Erasing) -> None:
    own_consent(site)
    erased = site.erase(site.scope(OCTOBER))
    with site.database.snapshot() as session:
        ((public, personal),) = [(public, personal) for kind, public, personal in leaves(session) if kind == "erasure"]
        assert find(session, new_id()) is None
    assert personal is not None
    with site.database.transaction() as session:
        assert not erase_again(session, site.shortkeys, public, personal)
        # What a backup from before would bring back: the compartment is listed and holds its batch.
        session.connection().exec_driver_sql("UPDATE compartment SET locked = 'x' WHERE locked IS NULL")
    with site.database.transaction() as session:
        assert erase_again(session, site.shortkeys, public, personal)
        assert not erase_again(session, site.shortkeys, public, personal)
    with site.database.snapshot() as session:
        first, again = [said for kind, *said in leaves(session) if kind == "erasure"]
    assert again == [{**first[0], "again": 1}, first[1]]
    assert erased.certificate


def test_what_somebody_else_had_erased_before_follows_from_no_erasure_of_another(site: Erasing) -> None:
    """A month that was erased waits for its day's group when another person's erasure comes."""
    said: JsonObject = {"subject": b64u(b"s" * 16), "subject_salt": b64u(bytes(32))}
    with site.database.transaction() as session:
        other = log.append(session, LeafKind.UPLOAD, {}, said).id
        log.delete_personal_openings(session, [other])
    own_consent(site)
    site.erase(site.scope(OCTOBER))
    with site.database.snapshot() as session:
        waiting = set(session.connection().execute(sqlalchemy.select(log_tombstone.c.entry_id)).scalars())
    assert waiting > {other}
    order = site.erase(site.scope()).leaf_id
    with site.database.transaction() as session:
        tombstones.publish(session, NOW.date())
        rows = session.connection().execute(sqlalchemy.select(log_tombstone)).all()
        public = {row.id: parse_json(row.public_body) for row in session.connection().execute(sqlalchemy.text(GROUPS))}
    before = [row for row in rows if row.entry_id in waiting]
    mine = [row for row in rows if row.entry_id not in waiting]
    assert {(row.author, row.subject, row.subject_salt) for row in before} == {(None, None, None)}
    assert len(mine) > 3
    assert {row.author for row in mine} == {"owner"}
    assert {(public[row.group_id]["author"], public[row.group_id]["count"]) for row in mine} == {
        ("owner", len(mine) - 1)
    }
    assert {(public[row.group_id]["count"], *public[row.group_id]["orders"]) for row in before} == {(len(waiting),)}
    assert len(public[mine[0].group_id]["orders"]) == 1
    assert order in {row.entry_id for row in mine}


@pytest.mark.parametrize("named", [(), (b"a" * 16, b"a" * 16)])
def test_a_scope_names_compartments_or_the_person(named: tuple[bytes, ...]) -> None:
    with pytest.raises(SealError):
        Scope(b"v" * 16, named)  # type: ignore[arg-type]


def test_an_order_is_the_owner_s_about_this_vault_and_this_text(quick: Erasing) -> None:
    from vault.seal.dsse import PayloadType, sign_record
    from vault.seal.erasure import dump_scope, verify_order

    honest = quick.order(quick.scope(OCTOBER))
    stranger, _ = begin(quick.database, quick.shortkeys)
    with pytest.raises(SealError):
        verify_order(honest, stranger.key.public_key, quick.owner.vault)
    with pytest.raises(SealError):
        verify_order(honest, quick.owner.key.public_key, stranger.vault)
    record = {**dump_scope(quick.scope(OCTOBER)), "erasure": b64u(new_id()), "reason": "", "issued_at": 1}
    for changed in (
        {"whole": 1}, {"whole": 2}, {"compartments": []}, {"reason": "x" * 201}, {"issued_at": -1}, {"more": 1},
        {"erasure": "AAAA"}, {"compartments": ["AAAA"]}, {"compartments": [1]},
    ):  # fmt: skip
        forged = sign_record(PayloadType.ERASURE, {**record, **changed}, quick.owner.key)
        with pytest.raises(SealError):
            verify_order(forged, quick.owner.key.public_key, quick.owner.vault)
