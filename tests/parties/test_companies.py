from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlmodel import Session, select

from tests.company_kit import CompanyKit, b64, new_key, public
from tests.leaves import leaves
from tests.vault_kit import wait_until_blocked
from vault.db import Database
from vault.parties import companies, turns
from vault.parties.companies import CompanyId, CompanyRefused, CompanyStatus, ReplacedMeanwhile, UnknownCompany


def test_a_company_is_registered_and_logged(database: Database, now: datetime) -> None:
    acme = CompanyKit()
    record = acme.record(now, redirect_uris=["https://acme.example/cb"])
    with database.transaction() as session:
        companies.register(session, record, now=now)
    with database.snapshot() as session:
        company = companies.get(session, acme.company_id)
        logged = leaves(session)
    assert (company.name, company.version, company.agent) == ("Acme Groceries", 1, False)
    assert company.redirect_uris == ("https://acme.example/cb",)
    assert (company.client_auth_key.kid, company.question_key.kid) == (
        acme.auth.thumbprint(), acme.question.thumbprint(),
    )  # fmt: skip
    assert company.status is CompanyStatus.ACTIVE
    assert company.record == record
    digest = b64(hashlib.sha256(record.encode()).digest())
    public_part = {"kind": "company", "company": acme.company_id, "version": 1, "record_sha256": digest}
    assert logged == [("company", public_part, {})]


@pytest.mark.parametrize("algorithm", ["Ed25519", "PS256"])
def test_other_algorithms_register(sqlite_database: Database, now: datetime, algorithm: str) -> None:
    with sqlite_database.transaction() as session:
        companies.register(session, CompanyKit(algorithm).record(now), now=now)


def test_a_company_registers_once(database: Database, now: datetime) -> None:
    acme = CompanyKit()
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
    with pytest.raises(CompanyRefused, match="already"), database.transaction() as session:
        companies.register(session, acme.record(now), now=now)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "x"},
        {"name": "A" * 81},
        {"name": "Acme \u202egnp.exe"},
        {"name": "Acme\u200b"},
        {"name": "Acme\u3164"},
        {"name": "Acme  Groceries"},
        {"name": " Acme"},
        {"name": "Acme\n"},
        {"name": "Ac\u0000me"},
        {"name": "Acme\u0301 e\u0301"},
        {"name": "\u0301Acme"},
        {"name": 5},
        {"name": None},
        {"contact": "\u2066a@b.example"},
        {"agent": 2},
        {"agent": "yes"},
        {"redirect_uris": ["http://acme.example/cb"]},
        {"redirect_uris": ["https://acme.example/cb#f"]},
        {"redirect_uris": ["https://acme.example/b", "https://acme.example/a"]},
        {"redirect_uris": [f"https://acme.example/{i}" for i in range(11)]},
        {"version": 2},
        {"version": 0},
        {"company_id": "A" * 22},
        {"company_id": "../../etc"},
        {"client_auth_key": {"kty": "oct", "k": "AA"}},
        {"client_auth_key": None},
        {"question_key": None},
        {"issued_at": -1},
        {"admin": 1},
    ],
)
def test_a_bad_record_refuses(sqlite_database: Database, now: datetime, changes: dict[str, Any]) -> None:
    with pytest.raises(CompanyRefused), sqlite_database.transaction() as session:
        companies.register(session, CompanyKit().record(now, **changes), now=now)


def test_a_record_signed_by_another_key_refuses(sqlite_database: Database, now: datetime) -> None:
    acme = CompanyKit()
    for signer in (acme.auth, new_key()):
        with pytest.raises(CompanyRefused, match="does not verify"), sqlite_database.transaction() as session:
            companies.register(session, acme.record(now, signer=signer), now=now)


def test_a_question_is_not_a_record(sqlite_database: Database, now: datetime) -> None:
    with pytest.raises(CompanyRefused, match="typ"), sqlite_database.transaction() as session:
        companies.register(session, CompanyKit().record(now, header={"typ": "question+jwt"}), now=now)


def test_one_key_cannot_serve_both_purposes(sqlite_database: Database, now: datetime) -> None:
    acme = CompanyKit()
    with pytest.raises(CompanyRefused, match="differ"), sqlite_database.transaction() as session:
        companies.register(session, acme.record(now, client_auth_key=public(acme.question)), now=now)


def test_a_record_from_the_future_refuses(sqlite_database: Database, now: datetime) -> None:
    with pytest.raises(CompanyRefused, match="future"), sqlite_database.transaction() as session:
        companies.register(session, CompanyKit().record(now + timedelta(hours=1)), now=now)


def test_keys_rotate_under_the_key_before_and_the_id_stays(database: Database, now: datetime) -> None:
    acme, next_key = CompanyKit(), new_key("Ed25519")
    second = acme.record(now, version=2, question_key=public(next_key))
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
        companies.rotate(session, second, now=now)
    with database.transaction() as session:
        assert companies.get(session, acme.company_id).question_key.kid == next_key.thumbprint()
        third = acme.record(now, version=3, signer=next_key, question_key=public(next_key), name="Acme Foods")
        assert companies.rotate(session, third, now=now).name == "Acme Foods"
        kinds = [(kind, body["version"]) for kind, body, _ in leaves(session)]
    assert kinds == [("company", 1), ("company", 2), ("company", 3)]


def test_a_rotation_by_another_key_or_out_of_turn_refuses(database: Database, now: datetime) -> None:
    acme, thief = CompanyKit(), new_key()
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
    for record in (
        acme.record(now, version=2, signer=thief, question_key=public(thief)),
        acme.record(now, version=2, signer=acme.auth),
        acme.record(now, version=1),
        acme.record(now, version=3),
    ):
        with pytest.raises(CompanyRefused), database.transaction() as session:
            companies.rotate(session, record, now=now)
    with pytest.raises(UnknownCompany), database.transaction() as session:
        companies.rotate(session, CompanyKit().record(now, version=2), now=now)


def test_a_rotation_cannot_reach_another_company(database: Database, now: datetime) -> None:
    acme, other = CompanyKit(), CompanyKit()
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
        companies.register(session, other.record(now), now=now)
    with pytest.raises(CompanyRefused), database.transaction() as session:
        companies.rotate(session, acme.record(now, version=2, company_id=other.company_id), now=now)


def test_suspending_and_reinstating_is_logged_once_each(database: Database, now: datetime) -> None:
    acme = CompanyKit()
    company_id = CompanyId(acme.company_id)
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
        for status in (CompanyStatus.SUSPENDED, CompanyStatus.SUSPENDED, CompanyStatus.ACTIVE):
            companies.set_status(session, company_id, status, now=now)
            assert session.scalar(select(companies.is_in_force(company_id, 1))) is (status is CompanyStatus.ACTIVE)
        logged = [body["status"] for kind, body, _ in leaves(session) if kind == "company-status"]
    assert logged == ["suspended", "active"]
    with pytest.raises(UnknownCompany), database.transaction() as session:
        companies.set_status(session, CompanyId("A" * 22), CompanyStatus.SUSPENDED, now=now)


def test_companies_are_listed_in_pages(sqlite_database: Database, now: datetime) -> None:
    kits = sorted((CompanyKit("Ed25519") for _ in range(3)), key=lambda kit: kit.company_id)
    with sqlite_database.transaction() as session:
        for kit in kits:
            companies.register(session, kit.record(now), now=now)
        first = companies.list_companies(session, at_most=2)
        rest = companies.list_companies(session, after=first[-1].company_id)
    assert [company.company_id for company in [*first, *rest]] == [kit.company_id for kit in kits]


def test_a_suspension_waits_for_the_answer_before_it_and_stops_the_one_after(
    postgresql_database: Database, now: datetime
) -> None:
    """The answer's UPDATE blocks behind a suspension that has not committed; then it must see it."""
    acme, answer, found = asked_of(postgresql_database, now)
    company_id = CompanyId(acme.company_id)

    def suspend(session: Session) -> None:
        companies.set_status(session, company_id, CompanyStatus.SUSPENDED, now=now)

    assert each_waits(postgresql_database, suspend, answer) == 0
    with postgresql_database.transaction() as session:
        companies.set_status(session, company_id, CompanyStatus.ACTIVE, now=now)
    each_waits(postgresql_database, answer, suspend)
    assert found() == 2


def test_a_next_record_waits_for_the_answer_before_it_and_stops_the_one_after(
    postgresql_database: Database, now: datetime
) -> None:
    acme, answer, found = asked_of(postgresql_database, now)
    record = acme.record(now, version=2)

    def rotate(session: Session) -> None:
        companies.rotate(session, record, now=now)

    each_waits(postgresql_database, answer, rotate)
    assert found() == 2
    record = acme.record(now, version=3)
    with postgresql_database.transaction() as session:
        assert answer(session) == 0, "what was decided under the first record"
    acme, answer, found = asked_of(postgresql_database, now)
    record = acme.record(now, version=2)
    assert each_waits(postgresql_database, rotate, answer) == 0


def test_a_next_record_waits_for_the_denial_before_it_and_stops_the_one_after(
    postgresql_database: Database, now: datetime
) -> None:
    acme, _, _ = asked_of(postgresql_database, now)
    record = acme.record(now, version=2)

    def rotate(session: Session) -> None:
        with turns.needless():  # as a recovery does, which the row alone holds up
            companies.rotate(session, record, now=now)

    def hold(session: Session) -> str:
        try:
            companies.hold(session, CompanyId(acme.company_id), 1)
        except ReplacedMeanwhile:
            return "replaced"
        return "held"

    each_waits(postgresql_database, hold, rotate)
    with postgresql_database.transaction() as session:
        assert hold(session) == "replaced"
    acme, _, _ = asked_of(postgresql_database, now)
    record = acme.record(now, version=2)
    assert each_waits(postgresql_database, rotate, hold) == "replaced"


def asked_of(
    database: Database, now: datetime
) -> tuple[CompanyKit, Callable[[Session], int], Callable[[], int | None]]:
    """Register a company; return it, what changes a row while its first record is in force, and what reads that row."""
    acme = CompanyKit()
    with database.transaction() as session:
        companies.register(session, acme.record(now), now=now)
        session.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS ask (id int, company text)"))
        session.execute(sqlalchemy.text("INSERT INTO ask VALUES (1, :id)"), {"id": acme.company_id})
    ask = sqlalchemy.table("ask", sqlalchemy.column("id"), sqlalchemy.column("company"))
    mine = ask.c.company == acme.company_id
    change = sqlalchemy.update(ask).values(id=ask.c.id + 1).where(mine, companies.is_in_force(ask.c.company, 1))

    def answer(session: Session) -> int:
        return len(session.execute(change.returning(ask.c.id)).all())

    def read() -> int | None:
        with database.snapshot() as session:
            return session.execute(sqlalchemy.select(ask.c.id).where(mine)).scalar()

    return acme, answer, read


def each_waits(database: Database, first: Callable[[Session], object], second: Callable[[Session], object]) -> object:
    """Do two things at once, the second while the first has not committed; return what came of the second."""
    found: list[object] = []

    def do_second() -> None:
        with database.transaction() as session:
            found.append(second(session))

    waiting = threading.Thread(target=do_second)
    with database.transaction() as session:
        first(session)
        waiting.start()
        wait_until_blocked(database, lambda: not waiting.is_alive())
        assert waiting.is_alive(), "the second must wait for the first"
    waiting.join()
    return found[0]


def test_the_id_follows_from_the_first_question_key(sqlite_database: Database, now: datetime) -> None:
    acme, thief = CompanyKit(), CompanyKit()
    with pytest.raises(CompanyRefused), sqlite_database.transaction() as session:
        companies.register(session, thief.record(now, company_id=acme.company_id), now=now)
