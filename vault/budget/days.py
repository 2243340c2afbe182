"""Charges of daily rows: a day is paid for once, has one row on time and one late, and neither ever again.

The first release about a month reserves what all rows of the month cost any of its days, late ones included;
those that follow cost nothing more and say which days they are about. Charges outlive rows, so they are what
tells which days have had theirs: after an erasure, a crash or a restored backup too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache

from sqlmodel import Session

from vault.budget import ledger
from vault.budget.accounting import sigma_for
from vault.budget.charge import LedgerCharge, owner_day
from vault.budget.ledger import ChargeConflict, Reservation, StandingCharge, State
from vault.encoding import JsonObject, b64u
from vault.imprint.block import DAILY, LATE, late_sigma, on_time_sensitivity, sensitivity
from vault.imprint.features import FeatureMap
from vault.proof.accounting import NOTHING, OWNER_DAY_CAP, Cap, Curve, gaussian
from vault.schema.category import Category
from vault.schema.trace import period_of

_GONE = frozenset({State.COMMITTED, State.ABORTED})


@dataclass(frozen=True, slots=True)
class Days:
    """Which days of one month a release is about.

    Args:
        first: First day.
        last: Last day.
        late: Whether it holds what arrived after their rows were made.
    """

    first: date
    last: date
    late: bool = False

    def __post_init__(self) -> None:
        if not (self.first <= self.last and period_of(self.first) == period_of(self.last)):
            raise ValueError("a release is about days of one month")

    def __len__(self) -> int:
        """Return how many there are."""
        return (self.last - self.first).days + 1

    def meets(self, other: Days) -> bool:
        """Say whether both are about a same day's same row."""
        return self.late == other.late and self.first <= other.last and other.first <= self.last


@lru_cache
def sigma_of(mapped: FeatureMap, categories: int = 1, *, late: bool) -> int:
    """Return the noise of on-time rows in units of u, or of late rows in quantised units: a public constant.

    Args:
        mapped: The map; a daily one.
        categories: For how many categories the owner's consent makes rows. A day's cap covers all of them, so each
            gets its share of it.
        late: Of late rows.
    """
    longest = on_time_sensitivity(sensitivity(mapped.clip))
    sigma = sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, longest, categories)
    return late_sigma(mapped.clip, sigma) if late else sigma


def month_sigma(held: Iterable[StandingCharge], mapped: FeatureMap, categories: int) -> int:
    """Return the noise of a month's on-time rows: the one it was first paid with, or else that of a share of the cap.

    What is paid for stays as it is, however many categories the consent covers by now: with fewer the month's other
    days would need less noise than was paid for, and be refused.

    Args:
        held: Every charge of the month, from `ledger.hold`.
        mapped: Map of the category.
        categories: As in `sigma_of`.
    """
    paid = (
        int(str(one.charge.mechanism["sigma"]))
        for one in held
        if one.charge.category == mapped.category
        and days_of(one.charge) is not None
        and one.charge.mechanism["clip"] == mapped.clip
        and any(one.charge.curve.nano)
    )
    return next(paid, sigma_of(mapped, categories, late=False))


@lru_cache
def month_curve(mapped: FeatureMap, sigma: int) -> Curve:
    """Return what all daily rows of a month cost each of its days: chains of this noise, and the late row."""
    on_time = gaussian(sensitivity(mapped.clip), sigma)
    return on_time + gaussian(mapped.clip, late_sigma(mapped.clip, sigma))


def day_charge(
    mapped: FeatureMap, vault_id: bytes, days: Days, *, sigma: int, release_id: bytes, code_hash: bytes
) -> LedgerCharge:
    """Return the charge of a release about some days: the whole month's, of which `reserve` knows whether it is paid.

    Args:
        mapped: Map of the category; it is a daily one.
        vault_id: 16 bytes.
        days: Which days.
        sigma: Noise of the month's on-time rows, from `month_sigma`.
        release_id: From `vault.imprint.block`.
        code_hash: SHA-256 of the code that will run.
    """
    mechanism: JsonObject = {
        "name": LATE if days.late else DAILY,
        "noise": "discrete-gaussian",
        "map": b64u(mapped.digest),
        "first": days.first.isoformat(),
        "last": days.last.isoformat(),
        "clip": mapped.clip,
        "sensitivity": sensitivity(mapped.clip),
        "sigma": sigma,
        "late_sigma": late_sigma(mapped.clip, sigma),
    }
    scope = owner_day(vault_id, period_of(days.first))
    return LedgerCharge(scope, mapped.category, release_id, mechanism, month_curve(mapped, sigma), code_hash)


def reserve(session: Session, charge: LedgerCharge, cap: Cap, *, at: datetime) -> Reservation:
    """Charge a release's worst case, before its data is opened: the month's cost, or nothing where it is paid.

    Args:
        session: Open writing transaction; the caller commits it before opening data.
        charge: From `day_charge`.
        cap: What all charges of the month may cost together.
        at: Now, aware.

    Raises:
        BudgetExhausted: No order would stay under the cap; nothing was charged.
        ChargeConflict: A row of these days was made before.
    """
    held = ledger.hold(session, charge.scope)
    known = next((one.charge for one in held if one.charge.release_id == charge.release_id), None)
    if known is not None and known.mechanism == charge.mechanism:
        charge = known  # tried before: at the same cost
    elif _paid(held, charge):
        charge = replace(charge, curve=NOTHING)
    _refuse_again(held, charge)
    return ledger.reserve(session, charge, cap, at=at)


def commit(session: Session, reservation: Reservation, *, at: datetime) -> None:
    """Record that the release is stored; call it in the transaction that stores it. Repeating it is harmless.

    Raises:
        ChargeConflict: Meanwhile another release holds a row of these days, or nothing was charged:
            the result must not be stored.
    """
    held = ledger.hold(session, reservation.scope)
    mine = next((one.charge for one in held if one.charge.release_id == reservation.release_id), None)
    if mine is not None:
        _refuse_again(held, mine)
    ledger.commit(session, reservation, at=at)


def gone(held: Iterable[StandingCharge], category: Category, *, late: bool) -> set[date]:
    """Return the days of a month that have had their row, whether or not it is still there.

    Args:
        held: Every charge of the month, from `ledger.hold`.
        category: Of what.
        late: Their late row.
    """
    found = (
        days
        for one in held
        if one.state in _GONE and one.charge.category == category and (days := days_of(one.charge)) is not None
    )
    return {days.first + timedelta(days=at) for days in found if days.late == late for at in range(len(days))}


def days_of(charge: LedgerCharge) -> Days | None:
    """Return which days a charge of daily rows is about; None for any other charge."""
    said = charge.mechanism
    if said.get("name") not in {DAILY, LATE}:
        return None
    first, last = (date.fromisoformat(str(said[name])) for name in ("first", "last"))
    return Days(first, last, said["name"] == LATE)


def _paid(held: Iterable[StandingCharge], charge: LedgerCharge) -> bool:
    """Say whether another release about the month, of the same category, has paid at least as much at every order."""
    return any(
        one.charge.release_id != charge.release_id
        and one.charge.category == charge.category
        and days_of(one.charge) is not None
        and all(paid >= due for paid, due in zip(one.charge.curve.nano, charge.curve.nano, strict=True))
        and any(one.charge.curve.nano)
        for one in held
    )


def _refuse_again(held: Iterable[StandingCharge], charge: LedgerCharge) -> None:
    wanted = days_of(charge)
    for one in held:
        if one.state not in _GONE or one.charge.release_id == charge.release_id:
            continue
        made = days_of(one.charge) if one.charge.category == charge.category else None
        if wanted is not None and made is not None and wanted.meets(made):
            raise ChargeConflict("A row of these days was made before; a day never gets a second one.")
