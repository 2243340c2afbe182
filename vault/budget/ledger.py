"""The privacy ledger's verbs: reserve before data is opened, then commit or abort. Nothing gives a charge back.

A release, end to end: `reserve` and commit the transaction; open the data, draw the noise; in one
transaction store the result and `commit`. After a crash the same release id is reserved again at no
further cost: noise that was never stored was never seen. A failure once noise was drawn is an `abort`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, cast

import sqlalchemy
from sqlmodel import Session, SQLModel, col, select

from vault.budget.charge import EVERYONE, CapScope, LedgerCharge, Unit, curve_of, dump_charge, owner_day, parse_charge
from vault.budget.models import LedgerRow
from vault.clock import unix_s
from vault.encoding import JsonObject, b64u, dump_json, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.accounting import NOTHING, Cap, Curve
from vault.schema.trace import Period

_GENESIS: Final = bytes(32)
_RESTORED: Final = "restored"
_LEDGER: Final = SQLModel.metadata.tables[str(LedgerRow.__tablename__)]
_ROWS: Final = (
    sqlalchemy.select(_LEDGER).where(_LEDGER.c.scope == sqlalchemy.bindparam("of_scope")).order_by(_LEDGER.c.position)
)
_ALL_ROWS: Final = (
    sqlalchemy.select(_LEDGER).order_by(_LEDGER.c.scope, _LEDGER.c.position).execution_options(yield_per=1_000)
)
_APPEND: Final = sqlalchemy.insert(_LEDGER)
_LOCK: Final = sqlalchemy.text(
    "INSERT INTO budget_scope (scope) VALUES (:scope) ON CONFLICT (scope) DO UPDATE SET scope = excluded.scope"
)


class BudgetExhausted(VaultError):
    """A release that would cost more than what is left."""

    slug = "budget-exhausted"
    title = "Privacy budget exhausted"
    status = 409


class ChargeConflict(VaultError):
    """A release id that stands for another charge, or a state that allows no such change."""

    slug = "charge-conflict"
    title = "Charge is not in the state this needs"
    status = 409


class LedgerBroken(VaultError):
    """A ledger whose rows are not the chain that was written."""

    slug = "ledger-broken"
    title = "Privacy ledger does not verify"
    status = 500


class State(StrEnum):
    """What became of a charge; in each of them it costs what it cost."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A charge that the ledger holds.

    Args:
        scope: What pays.
        release_id: 32 bytes.
        state: As it was when this was returned; a committed release's rows are already stored.
        record: The charge as JSON; the release's leaf keeps it, so that `restore` can charge it again.
        restored: Whether it was charged after the backup that was put back since: what was released is not here.
    """

    scope: CapScope
    release_id: bytes
    state: State
    record: JsonObject = field(repr=False)
    restored: bool = False


@dataclass(frozen=True, slots=True)
class StandingCharge:
    """A charge of the ledger as it stands now.

    Args:
        charge: What was charged.
        state: What became of it.
    """

    charge: LedgerCharge
    state: State


@dataclass(frozen=True, slots=True)
class Spending:
    """The three numbers that an owner is shown for a month, and the caps they stay under.

    Args:
        day: Epsilon of any one day of the month, over all its imprint rows.
        person: Epsilon of every contributor, over the cohort releases of the month's year.
        day_composed: Epsilon of one day of someone who also contributed: the month's rows together
            with every cohort release from that year on.
        delta: Of all three.
    """

    day: float
    person: float
    day_composed: float
    delta: float


def reserve(session: Session, charge: LedgerCharge, cap: Cap, *, at: datetime) -> Reservation:
    """Charge a release's worst case, before its data is opened.

    Whoever reserves in several scopes in one transaction takes them in the order of `Scope.key`.

    Args:
        session: Open writing transaction; the caller commits it before opening data.
        charge: What the release costs.
        cap: What all charges of the scope may cost together.
        at: Now, aware.

    Returns:
        The reservation; for a release id that is already charged, the same one at no further cost.

    Raises:
        BudgetExhausted: No order would stay under the cap; nothing was charged.
        ChargeConflict: The release id stands for another charge, or was aborted.

    Guarantees: at any concurrency the charges together stay under the cap.
    """
    book = _locked(session, charge.scope)
    found = book.latest.get(charge.release_id)
    record = dump_charge(charge)
    if found is not None:
        if _charge(found) != record:
            raise ChargeConflict("This release id is already charged with other parameters; name another release.")
        if found.state == State.ABORTED:
            raise ChargeConflict("This release was aborted after noise was drawn; its cost stays. Name another one.")
        restored = parse_json(found.record)["reason"] == _RESTORED
        return Reservation(charge.scope, charge.release_id, State(found.state), record, restored)
    before = book.total()
    if not cap.admits(before + charge.curve):
        gone, needed = before.epsilon(cap.delta), (before + charge.curve).epsilon(cap.delta)
        raise BudgetExhausted(
            f"Of epsilon {cap.epsilon:g} at delta {cap.delta:g}, {gone:.2f} is spent and"
            f" {max(0.0, cap.epsilon - gone):.2f} is left; with this release it would be {needed:.2f}."
            " What is spent never comes back: release with more noise, or not at all."
        )
    book.append(charge.release_id, State.RESERVED, record, at)
    return Reservation(charge.scope, charge.release_id, State.RESERVED, record)


def commit(session: Session, reservation: Reservation, *, at: datetime) -> None:
    """Record that the release is stored; call it in the transaction that stores it. Repeating it is harmless.

    Raises:
        ChargeConflict: The charge was aborted meanwhile: the result must not be stored.
    """
    _change(session, reservation, State.COMMITTED, at)


def abort(session: Session, reservation: Reservation, *, at: datetime) -> None:
    """Record that the release failed after noise may have been drawn: it stays charged. Repeating it is harmless.

    Raises:
        ChargeConflict: The charge was committed.
    """
    _change(session, reservation, State.ABORTED, at)


def restore(session: Session, charge: LedgerCharge, *, at: datetime) -> bool:
    """Charge a logged release again that a backup, put back in place of the database, has forgotten.

    No cap is asked: what was released was released, and whatever comes after it is refused.

    Args:
        session: Open writing transaction.
        charge: From the opening of the release's leaf, by `parse_charge`.
        at: Now, aware.

    Returns:
        Whether it was missing. Repeating it is harmless.

    Guarantees: a release of which a leaf exists counts, whatever state the backup knew it in.
    """
    book = _locked(session, charge.scope)
    found = book.latest.get(charge.release_id)
    if found is not None and found.state in {State.COMMITTED, State.ABORTED}:
        return False
    if found is None:
        book.append(charge.release_id, State.RESERVED, dump_charge(charge), at, _RESTORED)
        book = _read(session, charge.scope)
    book.append(charge.release_id, State.COMMITTED, dump_charge(charge), at, _RESTORED)
    return True


def hold(session: Session, scope: CapScope) -> list[StandingCharge]:
    """Return every charge of a scope; nobody changes one before the session's transaction ends."""
    return [
        StandingCharge(parse_charge(_charge(row)), State(row.state)) for row in _locked(session, scope).latest.values()
    ]


def spent(session: Session, scope: CapScope) -> Curve:
    """Return what all charges of a scope cost together."""
    return _read(session, scope).total()


def spending(session: Session, vault_id: bytes, period: Period, delta: float) -> Spending:
    """Return what a month's days have cost so far, with and without the cohort's releases.

    Args:
        session: Open transaction, reading or writing.
        vault_id: 16 bytes.
        period: The month.
        delta: At which all three epsilons are stated.
    """
    day = spent(session, owner_day(vault_id, period))
    years = _cohort_years(session, period[:4])
    since = sum(years.values(), NOTHING)
    return Spending(
        day=day.epsilon(delta),
        person=years.get(period[:4], NOTHING).epsilon(delta),
        day_composed=(day + since).epsilon(delta),
        delta=delta,
    )


def months(session: Session, vault_id: bytes) -> list[Period]:
    """Return the months that any release about a vault was ever charged to, erased ones included, oldest first."""
    return [Period(window) for window in _windows(session, CapScope(Unit.OWNER_DAY, b64u(vault_id), "").key)]


def verify_ledger(session: Session) -> int:
    """Check that each scope's rows are one unbroken chain and that columns say what records say.

    Returns:
        How many rows there are.

    Raises:
        LedgerBroken: A row was changed, moved or taken out of the middle.
    """
    count = 0
    for key, rows in groupby(session.connection().execute(_ALL_ROWS), attrgetter("scope")):
        count += _verify_rows(key, rows)
    return count


def _verify_rows(scope_key: str, rows: Iterable[Any]) -> int:
    prev, position = _GENESIS, -1
    for position, row in enumerate(rows):
        try:
            digest, record = _digest(row.record), parse_json(row.record)
            said = record["prev"], record["position"], record["state"], _scope_and_release(record["charge"])
        except (MalformedInput, KeyError, TypeError) as error:
            raise LedgerBroken("A row of the privacy ledger cannot be read; restore the newest backup.") from error
        held = b64u(prev), position, row.state, (scope_key, b64u(row.release_id))
        if said != held or row.position != position or row.digest != digest:
            raise LedgerBroken(
                "A row of the privacy ledger is not the one that was written; restore the newest backup."
            )
        prev = row.digest
    return position + 1


@dataclass(frozen=True, slots=True)
class _Book:
    """One scope's rows, oldest first."""

    session: Session
    scope: CapScope
    rows: list[Any]

    @property
    def latest(self) -> dict[bytes, Any]:
        return {row.release_id: row for row in self.rows}

    def total(self) -> Curve:
        return sum((curve_of(_charge(row)) for row in self.latest.values()), NOTHING)

    def append(self, release_id: bytes, state: State, charge: JsonObject, at: datetime, reason: str = "") -> None:
        record = dump_json(
            {
                "prev": b64u(self.rows[-1].digest if self.rows else _GENESIS),
                "position": len(self.rows),
                "state": str(state),
                "reason": reason,
                "at": unix_s(at),
                "charge": charge,
            }
        )
        row = {
            "scope": self.scope.key,
            "position": len(self.rows),
            "release_id": release_id,
            "state": str(state),
            "record": record,
            "digest": _digest(record),
        }
        self.session.connection().execute(_APPEND, row)


def _read(session: Session, scope: CapScope) -> _Book:
    return _Book(session, scope, list(session.connection().execute(_ROWS, {"of_scope": scope.key})))


def _locked(session: Session, scope: CapScope) -> _Book:
    # Creates the scope's row or waits for whoever holds it: one statement that both databases know.
    session.connection().execute(_LOCK, {"scope": scope.key})
    return _read(session, scope)


def _change(session: Session, reservation: Reservation, state: State, at: datetime) -> None:
    book = _locked(session, reservation.scope)
    found = book.latest.get(reservation.release_id)
    if found is None:
        raise ChargeConflict("This release was never reserved.")
    if found.state == state:
        return
    if found.state != State.RESERVED:
        raise ChargeConflict(f"A charge that is {found.state} cannot become {state}.")
    book.append(reservation.release_id, state, _charge(found), at)


def _cohort_years(session: Session, first: str) -> dict[str, Curve]:
    """Return what each calendar year's cohort releases cost every person, from one year on."""
    years = _windows(session, CapScope(Unit.PERSON, EVERYONE, "").key)
    return {year: spent(session, CapScope(Unit.PERSON, EVERYONE, year)) for year in years if year >= first}


def _windows(session: Session, prefix: str) -> list[str]:
    # Not LIKE: base64url holds `_`, which LIKE takes for any character.
    scope = col(LedgerRow.scope)
    query = select(LedgerRow.scope).where(scope >= prefix, scope < prefix + "\x7f").distinct().order_by(scope)
    return [key.removeprefix(prefix) for key in session.exec(query)]


def _scope_and_release(charge: Any) -> tuple[str, str]:
    return CapScope(charge["unit"], charge["subject"], charge["window"]).key, charge["release"]


def _charge(row: Any) -> JsonObject:
    return cast("JsonObject", parse_json(row.record)["charge"])


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).digest()
