"""Training on the cohort: reserve for every person, open, train, audit, certify, store. Only the worker does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import numpy as np
import structlog
from sqlmodel import Session

from vault.budget import ledger
from vault.budget.charge import LedgerCharge, person_year
from vault.budget.ledger import BudgetExhausted, Reservation
from vault.consent import consents
from vault.consent.hold import hold
from vault.encoding import JsonObject, b64u, dump_json
from vault.errors import VaultError
from vault.imprint.features import Cadence, FeatureMap, mapped_for
from vault.imprint.noise import Integers
from vault.policy.permits import decide_train
from vault.proof.accounting import PERSON_YEAR_CAP, person_curve
from vault.proof.certificate import CertificateInvalid, Manifest, verify_certificate
from vault.proof.charge import dump_charge
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.schema.terms import COHORT_GRANTEE
from vault.schema.trace import Period
from vault.seal.ids import ConsentId, sha256
from vault.store import rings
from vault.tlog.log import append
from vault.twin import release
from vault.twin.certify import CHARGES, build_backbone, code_digest
from vault.twin.infer import month_number
from vault.twin.months import Month, Opening, Worker, open_months, permitted, plan
from vault.twin.opening import Ask, Wanted
from vault.twin.reader import Backbone, maps_of
from vault.twin.requests import TRAIN_PURPOSE
from vault.twin.shown import Shown, shown
from vault.twin.train import CohortTooSmall, PersonMonths

_ROUNDS: Final = 5
_PAGE: Final = 100

_log = structlog.get_logger()


class CohortUnsettled(VaultError):
    """People kept withdrawing while a model was trained; nothing of them was kept."""

    slug = "cohort-unsettled"
    title = "Cohort changed while it was trained on"
    status = 409


class TrainingForgotten(VaultError):
    """A training was charged after the backup that was put back since: its model is gone, and another has to be asked for."""

    slug = "training-forgotten"
    title = "Trained model was lost by a restore"
    status = 409


@dataclass(frozen=True)
class _Member:
    """One person under a live cohort consent: what may be opened, and the released rows of those months."""

    opening: Opening
    rows: Mapping[Month, tuple[Shown, ...]]


def train_cohort(worker: Worker, training: bytes) -> str:
    """Train and certify a backbone for every category that has a feature map.

    Args:
        worker: The worker.
        training: 16 bytes that name the charge: a training that is run again after a crash pays once, because a
            model that was never stored was never seen.

    Returns:
        Slug of what was refused, or empty. A category whose model no longer fits under the year's cap does not
        keep those before it from theirs.

    Raises:
        BudgetExhausted: The year's cap does not allow any model of those that there are people for.
        CohortTooSmall: There is nobody to learn from.
        CohortUnsettled: Too many members withdrew during training.

    Guarantees: a model is stored only while every consent that it learned under is still live; a model
        without a valid certificate is charged, logged and thrown away.
    """
    made: list[str | None] = []
    refused: BudgetExhausted | None = None
    for category in mapped_for(worker.cadence):
        try:
            made.append(_train(worker, training, worker.map_of(category)))
        except BudgetExhausted as error:
            year = worker.clock.now().year
            refusal = BudgetExhausted(f"No model of {category} can be trained before {year + 1}: {error.detail}")
            _log.warning("model refused", reason=refusal.detail)
            refused = refused or refusal
    if set(made) <= {None}:
        raise refused or CohortTooSmall("Nobody with a released twin has a live cohort consent.")
    return next(filter(None, made), refused.slug if refused else "")


def _train(worker: Worker, training: bytes, mapped: FeatureMap) -> str | None:
    """Train for one category; None if nobody has released rows of it."""
    with worker.database.snapshot() as session:
        known = release.framing(session, mapped, worker.row_keys)
    maps = (mapped,) if known is None else maps_of(mapped, known)
    found = _members(worker, maps)
    first = next(found, None)
    if first is None:
        return None
    charge = _charge(worker, training, mapped)
    with worker.database.transaction() as session:
        reservation = ledger.reserve(session, charge, PERSON_YEAR_CAP, at=worker.clock.now())
    if reservation.state is not ledger.State.RESERVED:
        return TrainingForgotten.slug if reservation.restored else ""  # else its model is stored already
    following: Iterable[_Member] = chain([first], found)
    for _ in range(_ROUNDS):
        members, records = _records(worker, following, maps)
        backbone, manifest = build_backbone(records, mapped, worker.clock.now(), known)
        with worker.database.transaction() as session:
            left = [member for member in members if _still_allowed(session, worker, member)]
            if len(left) == len(members):
                return _settle(session, worker, reservation, mapped, (backbone, manifest))
        # What was trained on someone who withdrew is thrown away unseen, so the charge covers the next round.
        following = left
    raise CohortUnsettled("Members kept withdrawing during training; train again later.")


def _settle(
    session: Session,
    worker: Worker,
    reservation: Reservation,
    mapped: FeatureMap,
    made: tuple[Backbone, Manifest],
) -> str:
    """Store a model whose certificate holds; log and charge the training either way.

    Of two workers who train under one charge, because one lost its lease, only the first settles: the other
    model is thrown away unseen. One that was trained while another brought the first lens has a lens of its own and
    could not read rows that are made through that one: it is refused.
    """
    held = {one.charge.release_id: one.state for one in ledger.hold(session, reservation.scope)}
    if held.get(reservation.release_id) is not ledger.State.RESERVED:
        return ""
    backbone, manifest = made
    now, reason = worker.clock.now(), ""
    try:
        _verify_charged(manifest)
        verify_certificate(manifest, now)
        _verify_lens(backbone, release.framing(session, mapped, worker.row_keys))
    except InvalidProof as error:
        reason = error.slug
        _log.warning("model refused", reason=error.detail)
        ledger.abort(session, reservation, at=now)
    else:
        ledger.commit(session, reservation, at=now)
        release.publish(session, backbone, manifest, worker.signer)
    public: JsonObject = {
        "map": b64u(manifest.map_sha256),
        "code": b64u(manifest.code_sha256),
        "cohort": manifest.cohort,
        "epsilon_ppm": manifest.epsilon_ppm,
        "delta_inverse": manifest.delta_inverse,
        "release_id": b64u(reservation.release_id),
        "model": "" if reason else b64u(manifest.digest),
        "outcome": reason or "released",
        "period": f"{now:%Y-%m}",
    }
    append(session, LeafKind.TRAINING, public, {"charge": reservation.record})
    return reason


def _verify_charged(manifest: Manifest) -> None:
    if manifest.charges != CHARGES:
        raise CertificateInvalid("The model cost something else than what was reserved for it.")


def _verify_lens(backbone: Backbone, framed: Backbone | None) -> None:
    if framed and framed.lens and (backbone.lens is None or backbone.lens.digest != framed.lens.digest):
        raise CertificateInvalid(
            "Another model was released meanwhile, whose lens days are seen through now; train again."
        )


def _charge(worker: Worker, training: bytes, mapped: FeatureMap) -> LedgerCharge:
    name: JsonObject = {"training": b64u(training), "map": b64u(mapped.digest), "code": b64u(code_digest())}
    mechanism: JsonObject = {
        "name": "backbone/1",
        "map": b64u(mapped.digest),
        "charges": [dump_charge(charge) for charge in CHARGES],
    }
    scope = person_year(worker.clock.now().year)
    digest = sha256(dump_json(name))
    return LedgerCharge(scope, mapped.category, digest, mechanism, person_curve(CHARGES), code_digest())


def _members(worker: Worker, maps: Sequence[FeatureMap]) -> Iterator[_Member]:
    """Yield everyone whose live cohort consent allows it and who has released rows, in the order of consent ids."""
    with worker.database.snapshot() as session:
        for consent_id in _live_cohort(session):
            # A person whose consent, keys or rows do not hold is left out, never a reason to stop.
            with suppress(VaultError):
                opening = plan(session, worker, consent_id, decide_train, TRAIN_PURPOSE)
                known = shown(session, worker, opening, maps)
                if known:
                    yield _Member(opening, known)


def _live_cohort(session: Session) -> Iterator[ConsentId]:
    after = b""
    while page := consents.list_to(session, COHORT_GRANTEE, after=after, at_most=_PAGE):
        yield from (consent.consent_id for consent in page if consent.live)
        after = page[-1].consent_id


def _records(
    worker: Worker, following: Iterable[_Member], maps: Sequence[FeatureMap]
) -> tuple[Sequence[_Member], PersonMonths]:
    """Open the raw batches of every member's months and set them beside the released rows.

    Members are planned here while children open what was planned before.
    """
    members: list[_Member] = []
    mapped = maps[0]

    def each() -> Iterator[_Member]:
        for member in following:
            members.append(member)
            yield member

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        opened = list(pool.map(lambda member: _targets(worker, member, mapped), each()))
    lines = [
        (number, month_number(Period(month.period)), member.rows[month], target)
        for number, (member, targets) in enumerate(zip(members, opened, strict=True))
        for month, target in targets.items()
    ]
    if not lines:
        raise CohortTooSmall("No member's batches could be read.")
    person, months, rows, targets_of = zip(*lines, strict=True)
    targets_read = np.stack(targets_of)
    plain, *projected = zip(*rows, strict=True)
    records = PersonMonths(
        person=np.array(person, dtype=np.int64),
        month=np.array(months, dtype=np.int64),
        rows=np.stack([row.values for row in plain]),
        days=targets_read[:, 0],
        chosen=targets_read[:, 1 : mapped.size],
        sums=targets_read[:, mapped.size :],
        sigma=np.array([row.sigma for row in plain], dtype=np.int64),
        worth=None if mapped.cadence is Cadence.MONTHLY else np.array([row.worth for row in plain]),
    )
    for through in projected:
        records = replace(
            records,
            projected=np.stack([row.values for row in through]),
            projected_sigma=np.array([row.sigma for row in through], dtype=np.int64),
            projected_worth=np.array([row.worth for row in through]),
        )
    return members, records


def _targets(worker: Worker, member: _Member, mapped: FeatureMap) -> dict[Month, Integers]:
    empty = {month: np.zeros(2 * mapped.size, dtype=np.int64) for month in member.rows}
    asked = [(month, Ask(Wanted.DAYS, mapped, month.period)) for month in member.rows if month.batch_hashes]
    try:
        found = open_months(worker, member.opening, asked) if asked else []
        return empty | {month: numbers for (month, _), numbers in zip(asked, found, strict=True)}
    except VaultError:
        return {}  # one person's broken batch must not stop everyone's model


def _still_allowed(session: Session, worker: Worker, member: _Member) -> bool:
    """Lock a member's consent and decide once more."""
    permit = member.opening.permit
    if not hold(session, permit, worker.clock.now()):
        return False
    seeds = member.opening.keys.seeds
    if rings.compartments(session, permit.vault_id, seeds).keys() != seeds.keys():
        return False  # some of it was erased meanwhile
    try:
        permitted(session, worker, permit.consent_id, decide_train, TRAIN_PURPOSE)
    except VaultError:
        return False
    return True
