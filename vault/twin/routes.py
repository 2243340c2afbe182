"""Routes of an owner's twin: ask for a refresh, see what was released and what it cost, choose when days close."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from vault.budget import ledger
from vault.clock import unix_s
from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep
from vault.imprint.block import DAILY, sensitivity, sigma_that_costs
from vault.imprint.features import Cadence, FeatureMap, feature_map
from vault.imprint.lens import unit_of
from vault.jobs.queue import Job
from vault.parties import marks, people
from vault.parties.people import Person
from vault.parties.routes import OwnVault, require_still
from vault.proof.accounting import OWNER_DAY_CAP, PERSON_YEAR_CAP, Cap
from vault.schema.freshness import Freshness, closes_at, closes_with
from vault.schema.trace import Period, period_of
from vault.twin import closing, release, rows
from vault.twin.levels import noise_of_level
from vault.twin.reader import Backbone, maps_of
from vault.twin.requests import last_refresh, request_refresh
from vault.twin.rows import Place, StoredRow

twin_router = APIRouter(prefix="/v1/vaults/{vault}", tags=["twin"])


class FreshnessBody(BaseModel):
    """Which days close together."""

    model_config = ConfigDict(strict=True, extra="forbid")

    freshness: Annotated[Freshness, Field(strict=False)]


@twin_router.post("/refresh", status_code=202)
def refresh(owner: OwnVault, database: DatabaseDep, clock: ClockDep) -> dict[str, int]:
    """Ask the worker for rows of every closed day; the job's number tells how it goes."""
    with database.transaction() as session:
        job = request_refresh(session, owner.vault_id, now=clock.now())
    return {"job": job}


@twin_router.get("/twin")
def twin(owner: OwnVault, request: Request, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return the last refresh, the rows in force, how much noise lies over daily ones, and what each month has cost.

    `freshness` states what the owner chose, how the installation makes rows, the last closed date, and of the days that
    close next the last one and when (`at`, Unix seconds): what reaches the service later is late.

    `noise` states, for a category with daily rows, the standard deviation of the noise in today's level: how often a
    code that stands alone occurs, per calendar day; of days seen through a lens, along the direction that shows most.

    `spending` states three epsilons at `delta`: `day` of any one day of the month over all its rows,
    `person` of every contributor to the year's backbones, `composed` of a day of such a contributor.
    """
    with database.snapshot() as session:
        person = people.get(session, owner.vault_id)
        job = last_refresh(session, owner.vault_id)
        released = rows.rows_for(session, owner.vault_id)
        months = sorted({row.period for row in released})
        spent = {month: ledger.spending(session, owner.vault_id, month, OWNER_DAY_CAP.delta) for month in months}
        models = [one.backbone for one in release.trained(session)] if any(map(_is_projected, released)) else []
    return {
        "job": None if job is None else _job_json(job),
        "freshness": _freshness_json(request, person, clock.now()),
        "releases": [
            {
                "category": row.category,
                "period": row.period,
                "release": b64u(row.release_id),
                "mu2_micro": row.mu2_micro,
                "map": b64u(row.map_digest),
                "mechanism": row.mechanism,
                "first": row.place.first.isoformat() if row.place else f"{row.period}-01",
                "days": row.place.days if row.place else _days_in(row.period),
            }
            for row in released
        ],
        "noise": _noise_json(released, models, clock.now().date()),
        "spending": [
            {"period": month, "day": cost.day, "person": cost.person, "composed": cost.day_composed}
            for month, cost in spent.items()
        ],
        "delta": OWNER_DAY_CAP.delta,
    }


@twin_router.put("/freshness")
def put_freshness(
    body: FreshnessBody, owner: OwnVault, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Let days close as the owner chooses, from now on; return what `GET twin` says of it.

    A day that has its row keeps it. Where rows are monthly, days close with their month all the same.
    """
    with database.transaction() as session:
        person = marks.choose_freshness(session, owner.vault_id, body.freshness)
        require_still(session, request, owner, clock)
    return _freshness_json(request, person, clock.now())


@twin_router.get("/budget")
def budget(owner: OwnVault, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return what is spent of every month ever charged, erased ones included, and the caps.

    `day` is the epsilon of any one day of the month over all its releases, `person` that of every
    contributor over the backbones of the month's year, `composed` that of a day of such a contributor.
    Nothing here depends on what the traces say.
    """
    with database.snapshot() as session:
        this_month = period_of(clock.now().date())
        months = sorted({*ledger.months(session, owner.vault_id), this_month})
        spent = {month: ledger.spending(session, owner.vault_id, month, OWNER_DAY_CAP.delta) for month in months}
    return {
        "caps": {"day": _cap_json(OWNER_DAY_CAP), "person": _cap_json(PERSON_YEAR_CAP)},
        "delta": OWNER_DAY_CAP.delta,
        "months": [
            {"period": month, "day": cost.day, "person": cost.person, "composed": cost.day_composed}
            for month, cost in spent.items()
        ],
    }


def _freshness_json(request: Request, person: Person, now: datetime) -> dict[str, Any]:
    cadence = Cadence(request.app.state.settings.cadence)
    closed = closing.last_closed(person, cadence, now)
    following = closes_with(closed + timedelta(days=1), closing.freshness_of(person, cadence))
    return {
        "choice": person.freshness,
        "cadence": cadence,
        "closed": closed.isoformat(),
        "next": following.isoformat(),
        "at": unix_s(closes_at(following, ZoneInfo(person.time_zone))),
    }


def _cap_json(cap: Cap) -> dict[str, float]:
    return {"epsilon": cap.epsilon, "delta": cap.delta}


def _is_projected(row: StoredRow) -> bool:
    return row.mechanism == DAILY and row.map_digest != feature_map(row.category, Cadence.DAILY).digest


def _noise_json(released: Sequence[StoredRow], models: Sequence[Backbone], today: date) -> list[dict[str, Any]]:
    found = []
    for category in sorted({row.category for row in released if row.mechanism == DAILY}):
        mapped = feature_map(category, Cadence.DAILY)
        alone = {mapped: float(mapped.content)}  # what a code that stands alone adds to a row
        for model in models:
            if model.map_digest == mapped.digest and model.lens is not None:
                alone[maps_of(mapped, model)[-1]] = float(unit_of(model.lens, mapped.clip)[0])
        for one, content in alone.items():
            noise = noise_of_level(one, _places(released, one), today)
            if noise is not None:
                found.append({"category": category, "map": b64u(one.digest), "sd": noise / content})
    return found


def _places(released: Sequence[StoredRow], mapped: FeatureMap) -> dict[Place, int]:
    """Return where the daily rows of a map lie, and their noise."""
    length = sensitivity(mapped.clip)
    return {
        row.place: sigma_that_costs(length, row.mu2_micro)
        for row in released
        if row.mechanism == DAILY and row.map_digest == mapped.digest and row.place
    }


def _days_in(period: Period) -> int:
    return monthrange(int(period[:4]), int(period[5:]))[1]


def _job_json(job: Job) -> dict[str, Any]:
    return {"job": job.id, "state": job.state, "reason": job.reason}
