"""Jobs run at least once, one worker at a time, and survive a worker that dies."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vault.db import Database
from vault.jobs import queue

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


def _enqueue(database: Database, key: str) -> queue.JobId:
    with database.transaction() as session:
        return queue.enqueue(session, "refresh", {"vault": key}, waiting_key=key, now=NOW)


def _claim(database: Database, now: datetime = NOW) -> queue.Job | None:
    with database.transaction() as session:
        return next(iter(queue.claim(session, now=now, lease_s=60)), None)


def test_jobs_of_one_key_wait_once(database: Database) -> None:
    assert _enqueue(database, "a") == _enqueue(database, "a")
    assert _claim(database) is not None
    assert _claim(database) is None


def test_a_job_that_runs_does_not_swallow_the_next_of_its_key(database: Database) -> None:
    first = _enqueue(database, "a")
    _claim(database)
    assert _enqueue(database, "a") != first


def test_concurrent_workers_never_share_a_job(database: Database) -> None:
    for n in range(30):
        _enqueue(database, f"key {n}")
    claimed: list[int] = []

    def work() -> None:
        while (job := _claim(database)) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(set(claimed))
    assert len(claimed) == 30


def test_a_dead_workers_job_is_taken_over_after_its_lease(database: Database) -> None:
    job_id = _enqueue(database, "a")
    _claim(database)
    assert _claim(database, NOW + timedelta(seconds=59)) is None
    again = _claim(database, NOW + timedelta(seconds=61))
    assert again is not None
    assert (again.id, again.attempts) == (job_id, 2)


def test_a_failing_job_is_tried_again_later_and_given_up_in_the_end(database: Database) -> None:
    job_id, now = _enqueue(database, "a"), NOW
    for _ in range(5):
        job = _claim(database, now)
        assert job is not None
        with database.transaction() as session:
            queue.fail(session, job, "broken", now=now)
        assert _claim(database, now) is None
        now += timedelta(hours=1)
    assert _claim(database, now) is None
    with database.snapshot() as session:
        found = queue.find(session, job_id)
    assert found is not None
    assert (found.state, found.reason) == (queue.JobState.FAILED, "broken")


def test_forgotten_jobs_never_start(database: Database) -> None:
    _enqueue(database, "a")
    _enqueue(database, "b")
    with database.transaction() as session:
        assert queue.forget(session, "a") == 1
    job = _claim(database)
    assert job is not None
    assert job.payload == {"vault": "b"}
    assert _claim(database) is None


def test_what_became_of_a_forgotten_job_is_not_recorded_of_the_next(database: Database) -> None:
    first = _enqueue(database, "a")
    job = _claim(database)
    assert job is not None
    with database.transaction() as session:
        queue.forget(session, "a")
    second = _enqueue(database, "b")
    assert second != first, "a number does not come back"
    with database.transaction() as session:
        queue.finish(session, replace(job, id=second))
        queue.fail(session, replace(job, id=second), "broken", now=NOW)
        queue.fail(session, replace(job, id=second, attempts=5), "broken", now=NOW)
    following = _claim(database)
    assert following is not None
    assert (following.id, following.reason, following.attempts) == (second, "", 1)


def test_a_worker_whose_job_was_taken_over_records_and_renews_nothing(database: Database) -> None:
    _enqueue(database, "a")
    lost, taken_at = _claim(database), NOW + timedelta(seconds=61)
    taken = _claim(database, taken_at)
    assert lost is not None
    assert taken is not None
    with database.transaction() as session:
        queue.finish(session, lost)
        queue.fail(session, lost, "broken", now=NOW)
        queue.fail(session, replace(lost, attempts=5), "broken", now=NOW)
        queue.renew(session, [lost], now=taken_at + timedelta(days=1), lease_s=60)
    with database.snapshot() as session:
        assert queue.find(session, taken.id) == taken
    assert _claim(database, taken_at + timedelta(seconds=61)) is not None, "the lease of who took it is over then"


def test_many_jobs_of_one_kind_are_taken_at_once(database: Database) -> None:
    for key in "abc":
        _enqueue(database, key)
    with database.transaction() as session:
        queue.enqueue(session, "train", {}, waiting_key="train", now=NOW)
    with database.transaction() as session:
        assert [job.payload["vault"] for job in queue.claim(session, now=NOW, lease_s=60, at_most=2)] == ["a", "b"]
    with database.transaction() as session:
        assert [job.kind for job in queue.claim(session, now=NOW, lease_s=60, at_most=9)] == ["refresh"]
    with database.transaction() as session:
        assert [job.kind for job in queue.claim(session, now=NOW, lease_s=60, at_most=9)] == ["train"]


def test_a_renewed_lease_is_not_taken_over(database: Database) -> None:
    _enqueue(database, "a")
    job = _claim(database)
    assert job is not None
    with database.transaction() as session:
        queue.renew(session, [job], now=NOW + timedelta(seconds=50), lease_s=60)
    assert _claim(database, NOW + timedelta(seconds=61)) is None
    assert _claim(database, NOW + timedelta(seconds=111)) is not None


def test_the_newest_job_of_a_key_tells_what_became_of_it(database: Database) -> None:
    _enqueue(database, "a")
    job = _claim(database)
    assert job is not None
    with database.transaction() as session:
        queue.finish(session, job, "budget-exhausted")
    with database.snapshot() as session:
        found = queue.latest(session, "a")
        assert queue.latest(session, "b") is None
    assert found is not None
    assert (found.state, found.reason, found.run_at) == (queue.JobState.DONE, "budget-exhausted", NOW)


def test_a_job_that_kills_every_worker_is_given_up(database: Database) -> None:
    job_id, now = _enqueue(database, "a"), NOW
    for _ in range(5):
        assert _claim(database, now) is not None
        now += timedelta(seconds=61)
    assert _claim(database, now) is None
    with database.snapshot() as session:
        found = queue.find(session, job_id)
    assert found is not None
    assert (found.state, found.reason) == (queue.JobState.FAILED, "worker-died")
