"""Enqueue, claim, finish: at least once, so each job's effect must be safe to repeat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

import sqlalchemy
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlmodel import Session, col, select

from vault.encoding import JsonObject, dump_json, parse_json
from vault.jobs.models import JobRow

JobId = NewType("JobId", int)

_MAX_ATTEMPTS = 5


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """One claimed or reported job.

    Args:
        id: Its number.
        kind: Which handler runs it.
        payload: Ids only.
        state: Where it is in its life.
        attempts: How often it was claimed.
        reason: Why it failed, or what it could not do: a problem slug.
        run_at: From when on it might start.
    """

    id: JobId
    kind: str
    payload: JsonObject
    state: JobState
    attempts: int
    reason: str
    run_at: datetime


def enqueue(session: Session, kind: str, payload: JsonObject, *, waiting_key: str, now: datetime) -> JobId:
    """Add a job, or return the one with the same key that still waits.

    Args:
        session: The transaction whose commit makes the job real.
        kind: Which handler runs it.
        payload: Ids only; the table is not sealed.
        waiting_key: Jobs of one key that have not started count as one.
        now: The job may start from here on.

    Returns:
        The id of the waiting job; flushed, not committed.
    """
    insert = _insert(session).values(
        kind=kind, payload=dump_json(payload), waiting_key=waiting_key, state=JobState.QUEUED, attempts=0, run_at=now,
        reason="",
    )  # fmt: skip
    session.execute(
        insert.on_conflict_do_nothing(index_elements=["waiting_key"], index_where=sqlalchemy.text("state = 'queued'"))
    )
    found = session.exec(
        select(JobRow.id).where(col(JobRow.waiting_key) == waiting_key, col(JobRow.state) == JobState.QUEUED)
    ).one()
    assert found is not None
    return JobId(found)


def claim(session: Session, *, now: datetime, lease_s: int, at_most: int = 1) -> list[Job]:
    """Take the oldest job that may start, or one whose worker stopped answering, and more of its kind.

    Args:
        session: A short transaction of its own; commit it before the work starts.
        now: Current time.
        lease_s: Seconds after which another worker may take the jobs over.
        at_most: How many jobs of one kind.

    Returns:
        Jobs of one kind, the oldest first; none if nothing may start.
    """
    may_start = sqlalchemy.or_(
        sqlalchemy.and_(col(JobRow.state) == JobState.QUEUED, col(JobRow.run_at) <= now),
        sqlalchemy.and_(col(JobRow.state) == JobState.RUNNING, col(JobRow.lease_until) < now),
    )
    _give_up_deadly(session, now)
    free = select(JobRow).where(may_start).order_by(col(JobRow.id)).with_for_update(skip_locked=True)
    first = session.exec(free.limit(1)).first()
    if first is None:
        return []
    rows = session.exec(free.where(JobRow.kind == first.kind).limit(at_most)).all()
    for row in rows:
        row.state = JobState.RUNNING
        row.attempts += 1
        row.lease_until = now + timedelta(seconds=lease_s)
        session.add(row)
    session.flush()  # the caller reads the rows it now owns
    return [_job(row) for row in rows]


def _give_up_deadly(session: Session, now: datetime) -> None:
    """Give up jobs whose worker died each time: they would take every worker down for ever."""
    session.execute(
        sqlalchemy.update(JobRow)
        .where(
            col(JobRow.state) == JobState.RUNNING,
            col(JobRow.lease_until) < now,
            col(JobRow.attempts) >= _MAX_ATTEMPTS,
        )
        .values(state=JobState.FAILED, reason="worker-died", lease_until=None)
    )


def renew(session: Session, jobs: Iterable[Job], *, now: datetime, lease_s: int) -> None:
    """Keep claimed jobs from being taken over while their worker is alive."""
    lease_until = now + timedelta(seconds=lease_s)
    session.execute(sqlalchemy.update(JobRow).where(_held(jobs)).values(lease_until=lease_until))


def finish(session: Session, job: Job, reason: str = "") -> None:
    """Record that a job's effect is committed; nothing changes if it was forgotten or taken over meanwhile.

    Args:
        session: The caller's transaction.
        job: As claimed.
        reason: A problem slug if part of the work was refused for good; trying again would not help.
    """
    _settle(session, job, JobState.DONE, reason)


def fail(session: Session, job: Job, reason: str, *, now: datetime) -> None:
    """Queue a failed job again with growing delays; give it up after five attempts.

    Nothing changes if it was forgotten or taken over meanwhile.

    Args:
        session: The caller's transaction.
        job: As claimed.
        reason: A problem slug or exception name; never a message that may hold data.
        now: Current time.
    """
    if job.attempts >= _MAX_ATTEMPTS:
        _settle(session, job, JobState.FAILED, reason)
        return
    row = session.exec(select(JobRow).where(_held([job]))).one_or_none()
    if row is None:
        return
    newer = session.exec(
        select(JobRow.id).where(col(JobRow.waiting_key) == row.waiting_key, col(JobRow.state) == JobState.QUEUED)
    ).first()
    if newer is not None:  # the same work already waits again
        _settle(session, job, JobState.FAILED, reason)
        return
    row.state, row.reason, row.lease_until = JobState.QUEUED, reason, None
    row.run_at = now + timedelta(seconds=2**job.attempts)
    session.add(row)


def forget(session: Session, waiting_key: str) -> int:
    """Drop every job of one key, done ones too; erasure calls this.

    One that a worker runs ends without a trace: what it made is refused where it would be stored.

    Returns:
        How many were dropped.
    """
    result = session.execute(sqlalchemy.delete(JobRow).where(col(JobRow.waiting_key) == waiting_key))
    return int(getattr(result, "rowcount", 0))


def find(session: Session, job_id: JobId) -> Job | None:
    """Return a job's present state, if it exists."""
    row = session.get(JobRow, job_id)
    return None if row is None else _job(row)


def latest(session: Session, waiting_key: str) -> Job | None:
    """Return the newest job of a key, whatever became of it."""
    row = session.exec(
        select(JobRow).where(col(JobRow.waiting_key) == waiting_key).order_by(col(JobRow.id).desc()).limit(1)
    ).first()
    return None if row is None else _job(row)


def count_by_state(session: Session) -> dict[JobState, int]:
    """Return how many jobs are in each state."""
    query = select(JobRow.state, sqlalchemy.func.count()).group_by(JobRow.state)
    return {JobState(state): count for state, count in session.exec(query)}


def _settle(session: Session, job: Job, state: JobState, reason: str) -> None:
    settled = sqlalchemy.update(JobRow).where(_held([job])).values(state=state, reason=reason, lease_until=None)
    session.execute(settled)


def _held(jobs: Iterable[Job]) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition that a row is one of these jobs and still in the hands of who claimed it, for a WHERE."""
    claimed = sqlalchemy.tuple_(col(JobRow.id), col(JobRow.attempts)).in_([(job.id, job.attempts) for job in jobs])
    return claimed & (col(JobRow.state) == JobState.RUNNING)


def _insert(session: Session) -> sqlalchemy.dialects.sqlite.Insert | sqlalchemy.dialects.postgresql.Insert:
    if session.get_bind().dialect.name == "sqlite":
        return sqlalchemy.dialects.sqlite.insert(JobRow)
    return sqlalchemy.dialects.postgresql.insert(JobRow)


def _job(row: JobRow) -> Job:
    assert row.id is not None
    return Job(
        JobId(row.id), row.kind, parse_json(row.payload), JobState(row.state), row.attempts, row.reason, row.run_at
    )
