"""The ledger never overdraws, charges a name once, forgets nothing, and says what is left."""

import hashlib
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy

from tests.vault_kit import wait_until_blocked
from tests.waiting import together
from vault.budget.accounting import sigma_for
from vault.budget.charge import (
    CapScope,
    LedgerCharge,
    Unit,
    dump_charge,
    imprint_charge,
    owner_day,
    parse_charge,
    person_year,
)
from vault.budget.ledger import (
    BudgetExhausted,
    ChargeConflict,
    LedgerBroken,
    Reservation,
    State,
    abort,
    commit,
    months,
    reserve,
    restore,
    spending,
    spent,
    verify_ledger,
)
from vault.db import Database
from vault.errors import MalformedInput
from vault.imprint.features import feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.proof.accounting import NOTHING, Cap, gaussian
from vault.schema.category import Category
from vault.schema.trace import Period

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
VAULT, MONTH = b"v" * 16, Period("2026-10")
SCOPE = owner_day(VAULT, MONTH)
CAP = Cap(3.0, 1e-6)
SIGMA = sigma_for(3.0, 1e-6, 256, releases=4)  # four of these fit, a fifth does not


def charge(name: int, scope: CapScope = SCOPE, sigma: int = SIGMA) -> LedgerCharge:
    cost = gaussian(256, sigma)
    return LedgerCharge(scope, "pd:Purchase", name.to_bytes(32), {"name": "test", "sigma": sigma}, cost, b"c" * 32)


def take(database: Database, name: int, **other: object) -> Reservation:
    with database.transaction() as session:
        return reserve(session, charge(name, **other), CAP, at=AT)


def curve(database: Database, scope: CapScope = SCOPE) -> object:
    with database.snapshot() as session:
        verify_ledger(session)
        return spent(session, scope)


def test_what_fits_is_charged_and_what_does_not_is_refused_with_what_is_left(database: Database) -> None:
    for name in range(4):
        held = take(database, name)
        assert held == Reservation(SCOPE, name.to_bytes(32), State.RESERVED, dump_charge(charge(name)))
    with pytest.raises(
        BudgetExhausted, match=r"Of epsilon 3 at delta 1e-06, 3\.00 is spent and 0\.00 is left"
    ) as caught:
        take(database, 4)
    assert (caught.value.slug, caught.value.status) == ("budget-exhausted", 409)
    assert curve(database) == gaussian(256, SIGMA, 4)
    assert curve(database).epsilon(1e-6) <= 3.0


def test_categories_share_a_day_while_other_months_and_vaults_do_not(database: Database) -> None:
    whole = sigma_for(3.0, 1e-6, 256)
    take(database, 0, sigma=whole)
    for scope in (owner_day(VAULT, Period("2026-11")), owner_day(b"w" * 16, MONTH), person_year(2026)):
        take(database, 1, sigma=whole, scope=scope)
    with pytest.raises(BudgetExhausted):
        take(database, 2, sigma=whole)


def test_concurrent_reservations_never_overdraw(database: Database) -> None:
    results = together(*(lambda name=name: take(database, name) for name in range(12)), refusals=BudgetExhausted)
    kept = [r for r in results if isinstance(r, Reservation)]
    assert len(kept) == 4
    assert sum(isinstance(r, BudgetExhausted) for r in results) == 8
    assert curve(database) == gaussian(256, SIGMA, 4)


def test_a_reservation_waits_for_the_one_before_it_and_then_counts_it(postgresql_database: Database) -> None:
    whole = sigma_for(3.0, 1e-6, 256)
    outcome: list[object] = []

    def second() -> None:
        try:
            outcome.append(take(postgresql_database, 2, sigma=whole))
        except BudgetExhausted as refusal:
            outcome.append(refusal)

    other = threading.Thread(target=second)
    with postgresql_database.transaction() as session:
        reserve(session, charge(1, sigma=whole), CAP, at=AT)
        other.start()
        wait_until_blocked(postgresql_database, lambda: bool(outcome))
        assert not outcome, "the second saw the ledger while the first was deciding"
    other.join(30)
    assert [type(one) for one in outcome] == [BudgetExhausted]
    assert curve(postgresql_database) == gaussian(256, whole)


def test_what_a_backup_forgot_is_charged_again_once_and_then_counts(database: Database) -> None:
    whole = sigma_for(3.0, 1e-6, 256)
    released = [charge(1, sigma=whole), charge(2, sigma=whole)]
    take(database, 1, sigma=whole)  # the backup knew this one as reserved, the other not at all
    for _ in range(2):
        for one in released:
            with database.transaction() as session:
                restore(session, parse_charge(dump_charge(one)), at=AT)
    assert curve(database) == gaussian(256, whole, 2)  # over the cap: it happened
    assert [take(database, name, sigma=whole).state for name in (1, 2)] == [State.COMMITTED] * 2
    with pytest.raises(BudgetExhausted):
        take(database, 3, sigma=whole)


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "owner-week"},
        {"release": "AAAA"},
        {"renyi_nano": [1]},
        {"renyi_nano": "1"},
        {"mu2_nano": 1},
        {"mu2_nano": [1, 2]},
        {"mu2_nano": [-1]},
        {"mu2_nano": ["1"]},
        {"orders": "grid/2"},
        {"mechanism": "none"},
        {"more": 1},
        {"subject": 7},
    ],
)
def test_a_record_that_is_no_charge_is_refused(change: dict[str, object]) -> None:
    honest = dump_charge(charge(1))
    assert parse_charge(honest) == charge(1)
    with pytest.raises(MalformedInput):
        parse_charge({**honest, **change})
    for name in honest:
        with pytest.raises(MalformedInput):
            parse_charge({key: value for key, value in honest.items() if key != name})


def test_every_charged_month_of_a_vault_is_listed_and_no_other_vault_s(database: Database) -> None:
    for scope in (owner_day(VAULT, Period("2026-11")), SCOPE, owner_day(b"w" * 16, Period("2026-01"))):
        take(database, 1, scope=scope)
    with database.snapshot() as session:
        assert months(session, VAULT) == ["2026-10", "2026-11"]
        assert months(session, b"x" * 16) == []


def test_concurrent_retries_of_one_release_are_charged_once(database: Database) -> None:
    results = together(*[lambda: take(database, 7)] * 8)
    assert results == [results[0]] * 8
    assert curve(database) == gaussian(256, SIGMA)


def test_a_crash_before_the_commit_charges_nothing_and_after_it_once(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction() as session:
        reserve(session, charge(1), CAP, at=AT)
        raise RuntimeError
    assert curve(database) == NOTHING
    first, again = take(database, 1), take(database, 1)
    assert again == first
    assert again.state is State.RESERVED
    with database.transaction() as session:
        commit(session, again, at=AT)
        commit(session, again, at=AT)
    assert take(database, 1).state is State.COMMITTED
    assert curve(database) == gaussian(256, SIGMA)


def test_a_retry_needs_no_room_but_another_digest_does(database: Database) -> None:
    whole = sigma_for(3.0, 1e-6, 256)
    assert take(database, 1, sigma=whole) == take(database, 1, sigma=whole)
    with pytest.raises(BudgetExhausted):
        take(database, 2, sigma=whole)


def test_one_name_stands_for_one_charge(database: Database) -> None:
    take(database, 1)
    with pytest.raises(ChargeConflict, match="other parameters"):
        take(database, 1, sigma=SIGMA + 1)


def test_an_aborted_release_stays_charged_and_its_name_is_used_up(database: Database) -> None:
    held = take(database, 1)
    with database.transaction() as session:
        abort(session, held, at=AT)
        abort(session, held, at=AT)
    assert curve(database) == gaussian(256, SIGMA)
    with pytest.raises(ChargeConflict, match="aborted"):
        take(database, 1)
    with pytest.raises(ChargeConflict, match="aborted"), database.transaction() as session:
        commit(session, held, at=AT)


def test_what_is_committed_cannot_be_undone(database: Database) -> None:
    held = take(database, 1)
    with database.transaction() as session:
        commit(session, held, at=AT)
    with pytest.raises(ChargeConflict), database.transaction() as session:
        abort(session, held, at=AT)
    with pytest.raises(ChargeConflict, match="never reserved"), database.transaction() as session:
        commit(session, Reservation(SCOPE, b"?" * 32, State.RESERVED, {}), at=AT)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budget_ledger SET state = 'aborted'",
        "DELETE FROM budget_ledger",
        "INSERT INTO budget_ledger SELECT scope, 7, release_id, 'aborted', record, digest FROM budget_ledger",
        "INSERT INTO budget_ledger SELECT scope, 0, release_id, 'aborted', record, digest FROM budget_ledger",
    ],
)
def test_the_database_itself_only_appends(database: Database, statement: str) -> None:
    take(database, 1)
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(sqlalchemy.text(statement))
    assert curve(database) == gaussian(256, SIGMA)


def test_no_other_spelling_of_removal_works(sqlite_database: Database, postgresql_database: Database) -> None:
    replace = (
        "REPLACE INTO budget_ledger SELECT scope, position, release_id, 'aborted', record, digest FROM budget_ledger"
    )
    upsert = (
        "INSERT INTO budget_ledger SELECT * FROM budget_ledger WHERE true"
        " ON CONFLICT (scope, position) DO UPDATE SET state = 'aborted'"
    )
    for database, statement in (
        (sqlite_database, replace),
        (sqlite_database, upsert),
        (postgresql_database, "TRUNCATE budget_ledger"),
        (postgresql_database, upsert),
    ):
        take(database, 1)
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"), database.transaction() as session:
            session.execute(sqlalchemy.text(statement))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE budget_ledger SET state = 'aborted' WHERE position = 1",
        "UPDATE budget_ledger SET record = replace(record, '2026-10', '2026-09') WHERE position = 0",
        "UPDATE budget_ledger SET record = CAST(replace(record, '2026-10', '2026-09') AS BLOB) WHERE position = 0",
        "UPDATE budget_ledger SET record = x'7b7d', digest = sha256(x'7b7d') WHERE position = 2",
        "UPDATE budget_ledger SET record = x'7b', digest = sha256(x'7b') WHERE position = 2",
        "UPDATE budget_ledger SET release_id = zeroblob(32) WHERE position = 2",
        "UPDATE budget_ledger SET digest = zeroblob(32) WHERE position = 2",
        "DELETE FROM budget_ledger WHERE position = 1",
        "DELETE FROM budget_ledger WHERE position = 0",
        "UPDATE budget_ledger SET position = 9 WHERE position = 2",
    ],
)
def test_rows_changed_behind_the_triggers_are_noticed(sqlite_database: Database, change: str) -> None:
    for name in range(3):
        take(sqlite_database, name)
    with sqlite_database.transaction() as session:
        connection = session.connection()
        for trigger in ("no_update", "no_delete"):
            connection.exec_driver_sql(f"DROP TRIGGER budget_ledger_{trigger}")
        raw = connection.connection.dbapi_connection
        raw.create_function("sha256", 1, lambda data: hashlib.sha256(data).digest())
        verify_ledger(session)
        session.expire_all()
        connection.exec_driver_sql(change)
        with pytest.raises(LedgerBroken):
            verify_ledger(session)


def test_a_later_row_rewritten_with_its_digest_breaks_the_chain(sqlite_database: Database) -> None:
    for name in range(3):
        take(sqlite_database, name)
    with sqlite_database.transaction() as session:
        connection = session.connection()
        connection.exec_driver_sql("DROP TRIGGER budget_ledger_no_update")
        query = "SELECT record FROM budget_ledger WHERE position = 1"
        forged = connection.exec_driver_sql(query).scalar_one().replace(b'"reason":""', b'"reason":"x"')
        change = "UPDATE budget_ledger SET record = ?, digest = ? WHERE position = 1"
        connection.exec_driver_sql(change, (forged, hashlib.sha256(forged).digest()))
        with pytest.raises(LedgerBroken):
            verify_ledger(session)


def test_the_three_numbers(database: Database) -> None:
    whole = sigma_for(3.0, 1e-6, 256)
    take(database, 0, sigma=whole)
    take(database, 1, sigma=whole, scope=person_year(2026))
    with database.snapshot() as session:
        now = spending(session, VAULT, MONTH, 1e-6)
        other = spending(session, b"w" * 16, MONTH, 1e-6)
    assert (now.day, now.person) == pytest.approx((3.0, 3.0), abs=0.02)
    assert now.day_composed == gaussian(256, whole, 2).epsilon(1e-6)
    assert (other.day, other.day_composed) == (0.0, now.person)
    # A later year's backbone reads the same day again; an earlier year's cannot have.
    take(database, 2, sigma=whole, scope=person_year(2027))
    take(database, 3, sigma=whole, scope=person_year(2025))
    with database.snapshot() as session:
        later = spending(session, VAULT, MONTH, 1e-6)
    assert later.person == now.person
    assert later.day_composed == gaussian(256, whole, 3).epsilon(1e-6)


def test_an_imprint_is_charged_what_its_noise_costs() -> None:
    retail = feature_map(Category("pd:Purchase"))
    made = imprint_charge(retail, VAULT, MONTH, DiscreteGaussian(500), release_id=b"r" * 32, code_hash=b"c" * 32)
    assert made.curve == gaussian(retail.clip, 500)
    assert (made.scope, made.category) == (SCOPE, "pd:Purchase")
    assert made.scope.unit is Unit.OWNER_DAY
    with pytest.raises(ValueError, match="32 bytes"):
        imprint_charge(retail, VAULT, MONTH, DiscreteGaussian(500), release_id=b"r", code_hash=b"c" * 32)
