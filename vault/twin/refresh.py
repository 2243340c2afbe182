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
from typing import Final, assert_never

from sqlmodel import Session

from vault.budget import days, ledger
from vault.budget.accounting import sigma_for
from vault.budget.charge import imprint_charge
from vault.budget.ledger import BudgetExhausted, ChargeConflict, Reservation
from vault.clock import unix_s
from vault.consent.hold import hold
from vault.encoding import b64u
from vault.errors import VaultError
from vault.imprint import block, chain, derived, features, lens, measured, projection, words
from vault.imprint import noise as noises
from vault.imprint import rows as imprints
from vault.imprint.features import Cadence, FeatureMap, mapped_for
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.rows import MONTHLY, release_id
from vault.policy.permits import Forbidden, decide_refresh
from vault.proof.accounting import OWNER_DAY_CAP
from vault.proof.leaf import LeafKind
from vault.seal.derive import imprint_key
from vault.seal.ids import ConsentId, VaultId, sha256
from vault.seal.row import RowHeader, seal_row
from vault.store import rings
from vault.tlog.log import append
from vault.twin import chains, rows
from vault.twin.chains import seal_carried
from vault.twin.months import Month, NothingToOpen, Opening, Worker, open_months, permitted, plan
from vault.twin.opening import Ask, Wanted
from vault.twin.pieces import Drawn, Piece, Run, draw, nothing
from vault.twin.requests import REFRESH_PURPOSE
from vault.twin.rows import StoredRow

GROUP: Final = 50
"""Vaults in one transaction."""

_CODE: Final = (features, derived, measured, words, lens, projection, noises, imprints, chain, block)


@dataclass
class _Refresh:
    """One vault's refresh as it goes; `reason` says what was refused."""

    vault: VaultId
    consent_id: ConsentId
    reason: str = ""
    over: bool = False
    failed: bool = False
    opening: Opening | None = None
    pieces: list[Piece] = field(default_factory=list)
    exact: dict[Piece, Integers] = field(default_factory=dict)
    drawn: dict[Piece, Drawn] = field(default_factory=dict)

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
def noise_of(mapped: FeatureMap, categories: int = 1) -> DiscreteGaussian:
    """Return the noise of monthly rows under a map: a public constant.

    Args:
        mapped: The map.
        categories: For how many categories the owner's consent makes rows. A day's cap covers all of them, so each
            gets its share of it.
    """
    return DiscreteGaussian(sigma_for(OWNER_DAY_CAP.epsilon, OWNER_DAY_CAP.delta, mapped.clip, categories))


@lru_cache
def code_hash() -> bytes:
    """Return SHA-256 of the code that makes rows."""
    sources = (Path(str(module.__file__)).read_bytes() for module in _CODE)
    return sha256(b"".join(hashlib.sha256(source).digest() for source in sources))


def refresh(worker: Worker, wanted: Mapping[VaultId, ConsentId]) -> dict[VaultId, Outcome]:
    """Make the rows of every closed day that has none: of whole months, or of what closed since the last ones.

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


def _reserve(session: Session, worker: Worker, one: _Refresh) -> None:
    if one.opening is None:
        return
    match worker.cadence:
        case Cadence.MONTHLY:
            _reserve_months(session, worker, one, one.opening)
        case Cadence.DAILY:
            with one.attempt():
                owed = chains.reserve(session, worker, one.opening, code_hash())
                one.pieces, one.reason = [*owed.pieces], owed.refused
        case _ as other:
            assert_never(other)


def _reserve_months(session: Session, worker: Worker, one: _Refresh, opening: Opening) -> None:
    maps = {month: worker.map_of(month.category) for month in opening.months}
    share = len(opening.permit.categories)
    names = {
        (month, count): release_id(mapped, one.vault, month.period, noise_of(mapped, count), month.batch_hashes)
        for month, mapped in maps.items()
        for count in range(1, len(mapped_for(worker.cadence)) + 1)
    }
    stored = rows.released(session, one.vault, names.values())
    # A month keeps the noise that it was made with, for however many categories that was.
    made = {month for (month, _), name in names.items() if name in stored}
    for month, mapped in maps.items():
        if month in made:
            continue
        noise, name = noise_of(mapped, share), names[month, share]
        charge = imprint_charge(mapped, one.vault, month.period, noise, release_id=name, code_hash=code_hash())
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
            ask = Ask(Wanted.SUM, mapped, month.period)
            one.pieces.append(Piece(month, mapped, MONTHLY, mapped.clip, noise.sigma, reserved, ask))


def _open(worker: Worker, one: _Refresh) -> None:
    if one.opening is None or one.over:
        return
    read = [piece for piece in one.pieces if piece.month.batch_hashes]
    with one.attempt():
        found = open_months(worker, one.opening, [(piece.month, piece.ask) for piece in read]) if read else []
        exact = nothing(one.pieces) | dict(zip(read, found, strict=True))
        one.exact = {piece: piece.mapped.project(numbers) for piece, numbers in exact.items()}


def _add_noise(group: Sequence[_Refresh]) -> None:
    """Draw the noise of all vaults' rows at once."""
    drawn = draw({piece: exact for one in group for piece, exact in one.exact.items()})
    for one in group:
        one.drawn = {piece: drawn[piece] for piece in one.exact}
        one.exact = {}  # the exact numbers are needed no more


def _store(worker: Worker, group: Iterable[_Refresh]) -> dict[VaultId, Outcome]:
    outcomes = {}
    with worker.database.transaction() as session:
        for one in group:
            count = 0
            if one.drawn:
                if _still_allowed(session, worker, one):
                    _drop_erased(session, worker, one)
                    count = _release(session, worker, one)
                else:
                    for piece in one.drawn:
                        _abort(session, worker, piece.reservation)
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
    wanted = {name for piece in one.drawn for name in piece.month.compartments}
    left = rings.compartments(session, one.vault, wanted).keys()
    for piece in [piece for piece in one.drawn if not left >= set(piece.month.compartments)]:
        del one.drawn[piece]
        _abort(session, worker, piece.reservation)


def _abort(session: Session, worker: Worker, reservation: Reservation) -> None:
    with suppress(ChargeConflict):  # another worker committed it while the consent was live
        ledger.abort(session, reservation, at=worker.clock.now())


def _release(session: Session, worker: Worker, one: _Refresh) -> int:
    """Store a vault's rows with their charges and leaves; return how many: another worker may have been first."""
    fresh: list[Piece] = []
    lost: set[Run | Month] = set()
    for piece in one.drawn:
        # What goes on with a block that is not stored, or looks back at one, is left for another refresh.
        if not {piece.run, piece.month} & lost and _is_first(session, worker, one, piece):
            fresh.append(piece)
        else:
            lost |= {piece.month} if piece.run is None else {piece.month, piece.run}
    rows.put(session, [_row(session, worker, one, piece) for piece in fresh])
    return len(fresh)


def _is_first(session: Session, worker: Worker, one: _Refresh, piece: Piece) -> bool:
    """Commit the charge; say whether nobody stored the row before."""
    commit = ledger.commit if piece.days is None else days.commit
    try:
        commit(session, piece.reservation, at=worker.clock.now())
    except ChargeConflict as error:
        one.reason = error.slug
        return False
    # Read under the lock of the charge's scope: whoever is second sees the row of the first.
    return not rows.released(session, one.vault, [piece.reservation.release_id])


def _row(session: Session, worker: Worker, one: _Refresh, piece: Piece) -> StoredRow:
    """Seal one row and log its release."""
    assert one.opening is not None
    reservation, mapped, month, drawn = piece.reservation, piece.mapped, piece.month, one.drawn[piece]
    name = reservation.release_id
    compartment = month.compartments[-1]  # the newest epoch: an older one's holder learns nothing new
    header = RowHeader(one.vault, compartment, name, mapped.version, 0)
    seed = one.opening.keys.seeds[compartment]
    sealed = seal_row(piece.payload(drawn), header, imprint_key(seed), worker.signer)
    leaf = append(
        session,
        LeafKind.RELEASE,
        {
            "category": month.category,
            "period": month.period,
            "mechanism": piece.mechanism,
            "sensitivity": piece.sensitivity,
            "sigma": piece.sigma,
            "mu2_micro": piece.mu2_micro,
            "map": b64u(mapped.digest),
            "rows": 1 if piece.run is None else len(drawn.values),
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
        index=header.index,
        category=month.category,
        period=month.period,
        map_digest=mapped.digest,
        mu2_micro=piece.mu2_micro,
        digest=sha256(sealed),
        sealed=sealed,
        leaf_id=leaf.id,
        mechanism=piece.mechanism,
        place=piece.place,
        carried=seal_carried(piece.carried(drawn), one.vault, name, seed),
    )
