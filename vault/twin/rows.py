"""Released imprint rows as the service keeps them: sealed, written once, the newest of a month or of some days in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, bindparam, delete, func, insert, select
from sqlmodel import Session

from vault.db import Prepared
from vault.imprint.rows import MONTHLY
from vault.schema.category import Category
from vault.schema.trace import Period
from vault.seal.ids import CompartmentId, VaultId
from vault.tlog.log import PendingId, delete_personal_openings
from vault.twin.models import imprint_row


@dataclass(frozen=True, slots=True)
class Place:
    """Which days of its month a row is about, where it is not all of them alike.

    Args:
        first: First day.
        days: How many.
        chain_start: First day of the chain; None of a late row.
    """

    first: date
    days: int
    chain_start: date | None = None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One sealed row.

    Args:
        vault_id: Whose.
        compartment_id: Whose imprint key opens it.
        release_id: The release it belongs to, 32 bytes.
        index: Its place in the release.
        category: What it summarises.
        period: Which month.
        map_digest: Digest of the feature map that made it.
        mu2_micro: What it cost each day of its month: millionths of (sensitivity / sigma)^2, rounded up.
        digest: SHA-256 of the sealed bytes, as its leaf names them.
        sealed: The bytes; `seal.row` reads them.
        leaf_id: The pending id of its release's leaf.
        mechanism: How it was made.
        place: Which days; None of a monthly row.
        carried: What its chain goes on with, sealed to whoever holds the compartment's seed; read by `carried` only.
    """

    vault_id: VaultId
    compartment_id: CompartmentId
    release_id: bytes
    index: int
    category: Category
    period: Period
    map_digest: bytes
    mu2_micro: int
    digest: bytes
    sealed: bytes
    leaf_id: PendingId
    mechanism: str = MONTHLY
    place: Place | None = None
    carried: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Named:
    """What a stored row is, without its bytes; the fields are `StoredRow`'s."""

    compartment_id: CompartmentId
    map_digest: bytes
    digest: bytes
    release_id: bytes
    mechanism: str


def put(session: Session, rows: Iterable[StoredRow]) -> None:
    """Store the rows of releases.

    Args:
        session: The transaction that commits their charges and leaves.
        rows: None of them stored yet: a name is released once.
    """
    values = [
        {
            "vault_id": row.vault_id,
            "compartment_id": row.compartment_id,
            "release_id": row.release_id,
            "row_index": row.index,
            "category": row.category,
            "period": row.period,
            "mechanism": row.mechanism,
            "chain_start": _ordinal(row.place.chain_start if row.place else None),
            "first_day": _ordinal(row.place.first if row.place else None),
            "days": row.place.days if row.place else 0,
            "map_digest": row.map_digest,
            "mu2_micro": row.mu2_micro,
            "digest": row.digest,
            "sealed": row.sealed,
            "carried": row.carried,
            "leaf_id": row.leaf_id,
        }
        for row in rows
    ]
    if values:
        session.connection().execute(insert(imprint_row), values)


def released(session: Session, vault: VaultId, release_ids: Iterable[bytes]) -> set[bytes]:
    """Return those release ids under which the vault has rows."""
    mine = imprint_row.c.vault_id == vault
    query = select(imprint_row.c.release_id).where(mine, imprint_row.c.release_id.in_(list(release_ids)))
    return set(session.connection().execute(query).scalars())


def of_days(session: Session, vault: VaultId, category: Category) -> list[StoredRow]:
    """Return the daily and late rows of a category, by day, without their sealed bytes: what was made, and where it lies."""
    return [_stored(row, sealed=b"") for row in _OF_DAYS.all(session, vault=vault, category=category)]


def carried(session: Session, vault: VaultId, release_ids: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return what chains go on with, sealed, by release id."""
    mine = imprint_row.c.vault_id == vault
    query = select(imprint_row.c.release_id, imprint_row.c.carried)
    found = session.connection().execute(query.where(mine, imprint_row.c.release_id.in_(list(release_ids))))
    return {row.release_id: row.carried for row in found}


def rows_for(
    session: Session, vault: VaultId, category: Category | None = None, periods: Iterable[Period] | None = None
) -> list[StoredRow]:
    """Return the rows in force: of each category and month, or run of days, those of the newest release, by day.

    Args:
        session: Any transaction.
        vault: Whose.
        category: Only this one's; all if None.
        periods: Only these months'; all if None.
    """
    values: dict[str, object] = {"vault": vault}
    if category is not None:
        values["category"] = category
    if periods is not None:
        values["periods"] = sorted(set(periods))
    query = _in_force(by_category=category is not None, by_period=periods is not None)
    return [_stored(row) for row in session.connection().execute(query, values)]


def names_for(session: Session, vault: VaultId, category: Category, first: Period, last: Period) -> list[Named]:
    """Return what each row in force of these months is, without its bytes, in the order of `rows_for`."""
    return [
        Named(CompartmentId(row.compartment_id), row.map_digest, row.digest, row.release_id, row.mechanism)
        for row in _NAMES.all(session, vault=vault, category=category, first=first, last=last)
    ]


@lru_cache
def _in_force(*, by_category: bool, by_period: bool) -> Select[Any]:
    """Return the query of `rows_for`, built once for each shape: every question runs it."""
    wanted = imprint_row.c.vault_id == bindparam("vault")
    if by_category:
        wanted &= imprint_row.c.category == bindparam("category")
    if by_period:
        wanted &= imprint_row.c.period.in_(bindparam("periods", expanding=True))
    return _newest(wanted)


_READ: Final = [column for column in imprint_row.c if column.name != "carried"]
_SEALED: Final = {"sealed", "carried"}
_PLACE: Final = (
    imprint_row.c.category,
    imprint_row.c.period,
    imprint_row.c.mechanism,
    imprint_row.c.chain_start,
    imprint_row.c.first_day,
)
_ORDER: Final = (
    imprint_row.c.period,
    imprint_row.c.category,
    imprint_row.c.mechanism,
    imprint_row.c.first_day,
    imprint_row.c.row_index,
)


def _newest(wanted: ColumnElement[bool]) -> Select[Any]:
    newest = select(func.max(imprint_row.c.id)).where(wanted).group_by(*_PLACE)
    of_release = imprint_row.alias("of_release")
    in_force = select(of_release.c.release_id).where(of_release.c.id.in_(newest))
    return select(*_READ).where(wanted, imprint_row.c.release_id.in_(in_force)).order_by(*_ORDER)


_OF_DAYS: Final = Prepared(
    select(*(column for column in imprint_row.c if column.name not in _SEALED))
    .where(
        imprint_row.c.vault_id == bindparam("vault"),
        imprint_row.c.category == bindparam("category"),
        imprint_row.c.mechanism != MONTHLY,
    )
    .order_by(*_ORDER)
)
_NAMES: Final = Prepared(
    _newest(
        (imprint_row.c.vault_id == bindparam("vault"))
        & (imprint_row.c.category == bindparam("category"))
        & imprint_row.c.period.between(bindparam("first"), bindparam("last"))
    ).with_only_columns(
        imprint_row.c.compartment_id,
        imprint_row.c.map_digest,
        imprint_row.c.digest,
        imprint_row.c.release_id,
        imprint_row.c.mechanism,
    )
)


def count(session: Session, vault: VaultId, compartments: Iterable[CompartmentId] | None = None) -> int:
    """Return how many rows a vault has, or those compartments of it."""
    mine = imprint_row.c.vault_id == vault
    if compartments is not None:
        mine &= imprint_row.c.compartment_id.in_(sorted(set(compartments)))
    return int(session.connection().execute(select(func.count()).select_from(imprint_row).where(mine)).scalar_one())


def forget(session: Session, vault: VaultId, compartments: Iterable[CompartmentId] | None = None) -> int:
    """Delete rows and the personal openings of their leaves; erasure calls this. Their charges stay.

    Args:
        session: An open writing transaction.
        vault: Whose.
        compartments: Only those of these; all if None.

    Returns:
        How many rows are gone.
    """
    gone = imprint_row.c.vault_id == vault
    if compartments is not None:
        gone &= imprint_row.c.compartment_id.in_(sorted(set(compartments)))
    leaves = session.connection().execute(select(imprint_row.c.leaf_id).where(gone)).scalars().all()
    session.connection().execute(delete(imprint_row).where(gone))
    delete_personal_openings(session, [PendingId(leaf) for leaf in sorted(set(leaves))])
    return len(leaves)


def _ordinal(day: date | None) -> int:
    return 0 if day is None else day.toordinal()


def _stored(row: Row[Any], sealed: bytes | None = None) -> StoredRow:
    start = date.fromordinal(row.chain_start) if row.chain_start else None
    place = Place(date.fromordinal(row.first_day), row.days, start) if row.first_day else None
    return StoredRow(
        vault_id=VaultId(row.vault_id),
        compartment_id=CompartmentId(row.compartment_id),
        release_id=row.release_id,
        index=row.row_index,
        category=Category(row.category),
        period=Period(row.period),
        map_digest=row.map_digest,
        mu2_micro=row.mu2_micro,
        digest=row.digest,
        sealed=row.sealed if sealed is None else sealed,
        leaf_id=PendingId(row.leaf_id),
        mechanism=row.mechanism,
        place=place,
    )
