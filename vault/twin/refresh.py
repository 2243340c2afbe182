"""Making imprint rows: reserve, open, add noise, store. Only the worker does.

The order is what keeps the promise of a row. The charge is committed before data is opened. Noise is
drawn once for a release id that is stored: rows, the charge's commit and the leaf are one
transaction, and whoever comes second finds the row. Nothing is stored unless the consent still
allows it at that moment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from sqlmodel import Session

from vault.budget import ledger
from vault.budget.accounting import OWNER_DAY_CAP, sigma_for
from vault.budget.charge import imprint_charge
from vault.budget.ledger import BudgetExhausted, ChargeConflict, Reservation
from vault.clock import unix_s
from vault.consent.hold import hold
from vault.encoding import b64u
from vault.errors import VaultError
from vault.imprint import features
from vault.imprint import noise as noises
from vault.imprint import rows as imprints
from vault.imprint.features import FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.rows import MONTHLY, Row, dump_row, noisy, release_id
from vault.policy.permits import Forbidden, decide_refresh
from vault.proof.leaf import LeafKind
from vault.seal.derive import imprint_key
from vault.seal.ids import ConsentId, VaultId, sha256
from vault.seal.row import RowHeader, seal_row
from vault.store import rings
from vault.tlog.log import append
from vault.twin import rows
from vault.twin.months import Month, NothingToOpen, Opening, Worker, open_months, permitted, plan
from vault.twin.opening import Wanted
from vault.twin.requests import REFRESH_PURPOSE
from vault.twin.rows import StoredRow

GROUP: Final = 50
"""Vaults in one transaction."""


@dataclass
class _Refresh:
    """One vault's refresh as it goes; `reason` says what was refused."""

    vault: VaultId
    consent_id: ConsentId
    reason: str = ""
    over: bool = False
    failed: bool = False
    opening: Opening | None = None
    reserved: dict[Month, Reservation] = field(default_factory=dict)
    sums: Mapping[Month, Integers] = field(default_factory=dict)
    noisy: dict[Month, Integers] = field(default_factory=dict)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run a step; a refusal ends this vault's refresh and no other's."""
        try:
            yield
        except (Forbidden, NothingToOpen) as error:
            self.reason, self.over = error.slug, True
        except VaultError as error:
            self.reason, self.over, self.failed = error.slug, True, True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one vault's refresh.

    Args:
        rows: How many rows were stored.
        reason: Slug of what was refused, or empty.
        failed: Whether trying again may help; what rules or budget refuse stays refused.
    """

    rows: int
    reason: str
    failed: bool


@lru_cache
def noise_of(mapped: FeatureMap) -> DiscreteGaussian:
    """Return the noise of every row under a map: a public constant.

    A day's cap covers all categories, so each category with a map gets its share of it.
    """
    return DiscreteGaussian(sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, mapped.clip, len(features.MAPPED)))


def mu2_micro(mapped: FeatureMap) -> int:
    """Return millionths of (clip / sigma)^2, rounded up: what a row costs each day of its month."""
    return -(-(10**6) * mapped.clip**2 // noise_of(mapped).sigma ** 2)


@lru_cache
def code_hash() -> bytes:
    """Return SHA-256 of the code that makes rows."""
    sources = (Path(str(module.__file__)).read_bytes() for module in (features, noises, imprints))
    return sha256(b"".join(hashlib.sha256(source).digest() for source in sources))


def refresh(worker: Worker, wanted: Mapping[VaultId, ConsentId]) -> dict[VaultId, Outcome]:
    """Make the rows of every closed month that has none under its present batches.

    Args:
        worker: The worker.
        wanted: The self consent to refresh under, by vault.

    Returns:
        What became of each vault; no vault's failure touches another's.

    Guarantees: a release id's noise is drawn again only if its first noise was never stored, and so
        never seen; a row is stored under a consent that allows it in that transaction, charged and logged.
    """
    outcomes: dict[VaultId, Outcome] = {}
    vaults = sorted(wanted)  # every transaction locks vaults in this order
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(vaults), GROUP):
            group = [_Refresh(vault, wanted[vault]) for vault in vaults[start : start + GROUP]]
            with worker.database.snapshot() as session:
                for one in group:
                    _plan(session, worker, one)
            with worker.database.transaction() as session:
                for one in group:
                    _reserve(session, worker, one)
            # Committed: only now is anything opened.
            list(pool.map(lambda one: _open(worker, one), group))
            _add_noise(group)
            outcomes |= _store(worker, group)
    return outcomes


def _plan(session: Session, worker: Worker, one: _Refresh) -> None:
    with one.attempt():
        one.opening = plan(session, worker, one.consent_id, decide_refresh, REFRESH_PURPOSE)


def _names(opening: Opening) -> dict[Month, bytes]:
    vault = opening.permit.vault_id
    found = {}
    for month in opening.months:
        mapped = feature_map(month.category)
        found[month] = release_id(mapped, vault, month.period, noise_of(mapped), month.batch_hashes)
    return found


def _reserve(session: Session, worker: Worker, one: _Refresh) -> None:
    if one.opening is None:
        return
    names = _names(one.opening)
    stored = rows.released(session, one.vault, names.values())
    for month, name in names.items():
        if name in stored:
            continue
        mapped = feature_map(month.category)
        charge = imprint_charge(
            mapped, one.vault, month.period, noise_of(mapped), release_id=name, code_hash=code_hash()
        )
        try:
            reserved = ledger.reserve(session, charge, OWNER_DAY_CAP, at=worker.clock.now())
        except (BudgetExhausted, ChargeConflict) as error:
            one.reason = error.slug  # the month keeps the row it has
            continue
        # Its row was stored once and may have been answered from: other noise on the same data is another
        # release. Only what was made from no data at all may be drawn again.
        if reserved.state is ledger.State.COMMITTED and month.batch_hashes:
            one.reason = ChargeConflict.slug
        else:
            one.reserved[month] = reserved


def _open(worker: Worker, one: _Refresh) -> None:
    if one.opening is None:
        return
    read = {month: Wanted.SUM for month in one.reserved if month.batch_hashes}
    with one.attempt():
        one.sums = {month: np.zeros(feature_map(month.category).size, dtype=np.int64) for month in one.reserved} | (
            open_months(worker, one.opening, read) if read else {}
        )


def _add_noise(group: Sequence[_Refresh]) -> None:
    """Draw the noise of all vaults' rows at once, one draw per category."""
    places = [(one, month) for one in group for month in one.sums]
    for category in {month.category for _, month in places}:
        of_category = [(one, month) for one, month in places if month.category == category]
        values = noisy([one.sums[month] for one, month in of_category], noise_of(feature_map(category)))
        for (one, month), row in zip(of_category, values, strict=True):
            one.noisy[month] = row
    for one in group:
        one.sums = {}  # the exact numbers are needed no more


def _store(worker: Worker, group: Iterable[_Refresh]) -> dict[VaultId, Outcome]:
    outcomes = {}
    with worker.database.transaction() as session:
        for one in group:
            count = 0
            if one.noisy:
                if _still_allowed(session, worker, one):
                    _drop_erased(session, worker, one)
                    count = _release(session, worker, one)
                else:
                    for reservation in one.reserved.values():
                        _abort(session, worker, reservation)
            outcomes[one.vault] = Outcome(count, one.reason, one.failed)
    return outcomes


def _still_allowed(session: Session, worker: Worker, one: _Refresh) -> bool:
    """Lock the consent and decide once more: nothing commits under one that was withdrawn meanwhile."""
    assert one.opening is not None
    if not hold(session, one.opening.permit, worker.clock.now()):
        one.reason = "consent-not-active"
        return False
    with one.attempt():
        permitted(session, worker, one.consent_id, decide_refresh, REFRESH_PURPOSE)
    return not one.over


def _drop_erased(session: Session, worker: Worker, one: _Refresh) -> None:
    """Throw away what was made of compartments that were erased meanwhile; who erases locks the consents first."""
    wanted = {name for month in one.noisy for name in month.compartments}
    left = rings.compartments(session, one.vault, wanted).keys()
    for month in [month for month in one.noisy if not left >= set(month.compartments)]:
        del one.noisy[month]
        _abort(session, worker, one.reserved[month])


def _abort(session: Session, worker: Worker, reservation: Reservation) -> None:
    with suppress(ChargeConflict):  # another worker committed it while the consent was live
        ledger.abort(session, reservation, at=worker.clock.now())


def _release(session: Session, worker: Worker, one: _Refresh) -> int:
    """Store a vault's rows with their charges and leaves; return how many: another worker may have been first."""
    committed = [month for month in one.noisy if _commit(session, worker, one, month)]
    # Read under the locks of the charges' scopes: whoever is second sees the rows of the first.
    stored = rows.released(session, one.vault, [one.reserved[month].release_id for month in committed])
    fresh = [month for month in committed if one.reserved[month].release_id not in stored]
    rows.put(session, [_row(session, worker, one, month) for month in fresh])
    return len(fresh)


def _commit(session: Session, worker: Worker, one: _Refresh, month: Month) -> bool:
    try:
        ledger.commit(session, one.reserved[month], at=worker.clock.now())
    except ChargeConflict as error:
        one.reason = error.slug
        return False
    return True


def _row(session: Session, worker: Worker, one: _Refresh, month: Month) -> StoredRow:
    """Seal one month's row and log its release."""
    assert one.opening is not None
    reservation, mapped = one.reserved[month], feature_map(month.category)
    name = reservation.release_id
    compartment = month.compartments[-1]  # the newest epoch: an older one's holder learns nothing new
    row = Row(name, mapped.digest, month.period, 0, mapped.clip, noise_of(mapped).sigma, one.noisy[month])
    header = RowHeader(one.vault, compartment, name, mapped.version, row.index)
    sealed = seal_row(dump_row(row), header, imprint_key(one.opening.keys.seeds[compartment]), worker.signer)
    leaf = append(
        session,
        LeafKind.RELEASE,
        {
            "category": month.category,
            "period": month.period,
            "mechanism": MONTHLY,
            "mu2_micro": mu2_micro(mapped),
            "map": b64u(mapped.digest),
            "rows": 1,
        },
        {
            "vault": b64u(one.vault),
            "release_id": b64u(name),
            "rows": [b64u(sha256(sealed))],
            "charge": reservation.record,
            "at": unix_s(worker.clock.now()),
        },
    )
    return StoredRow(
        vault_id=one.vault,
        compartment_id=compartment,
        release_id=name,
        index=row.index,
        category=month.category,
        period=month.period,
        map_digest=mapped.digest,
        mu2_micro=mu2_micro(mapped),
        digest=sha256(sealed),
        sealed=sealed,
        leaf_id=leaf.id,
    )
