"""The worker process: the only one that opens traces. `python -m vault.worker`.

It claims jobs, keeps their leases while they run, and records what became of each. Everything it
stores is safe to try again: a worker that is killed leaves reserved charges and nothing else.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import FrameType
from typing import Final

import structlog
from sqlmodel import Session

from vault.clock import Clock, SystemClock
from vault.consent import consents
from vault.db import Database
from vault.encoding import parse_b64u
from vault.errors import VaultError
from vault.imprint.features import Cadence, mapped_for
from vault.jobs import queue
from vault.jobs.queue import Job
from vault.keys import rollover, statements
from vault.keys.identities import Epochs
from vault.keys.kms import KmsSigner, LocalKeyring
from vault.keys.operator import key_name
from vault.keys.processor import Processor
from vault.keys.rollover import Resealer
from vault.lifeline import end_with, ended_in_words
from vault.logging import configure_logging
from vault.parties import people
from vault.policy import sets
from vault.schema.terms import SELF_GRANTEE
from vault.seal.fields import parse_id
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId, VaultId, sha256
from vault.seal.recipient import Recipient
from vault.seal.statement import KeyName, KeyStatement
from vault.settings import WorkerSettings, own_settings
from vault.threads import one_thread
from vault.tlog import log
from vault.twin import release, requests
from vault.twin.children import Children
from vault.twin.closing import closed_at
from vault.twin.months import Worker
from vault.twin.refresh import Outcome, refresh
from vault.twin.requests import REFRESH_PURPOSE, enqueue_refresh, last_refresh

LEASE_S: Final = 120
MOST_JOBS: Final = 1_000
SCHEDULE_EVERY: Final = timedelta(hours=1)
KEYS_EVERY: Final = timedelta(seconds=5)
_PAGE: Final = 100

_log = structlog.get_logger()


class WrongKeys(VaultError):
    """A keyring that does not hold the keys which the operator stated for the worker."""

    slug = "wrong-keys"
    title = "Wrong keys"
    status = 500


class UnknownJob(VaultError):
    """A job of a kind that this worker does not run."""

    slug = "unknown-job"
    title = "Unknown job"
    status = 500


@contextmanager
def open_worker(settings: WorkerSettings, children: Children, clock: Clock) -> Iterator[Worker]:
    """Open databases and keyring, and put this release's rules and built-in models in force.

    Args:
        settings: Of this process.
        children: Started before.
        clock: Tells the time.

    Raises:
        WrongKeys: The operator has not stated the worker's keys, or the keyring holds others.
        NoSuchKey: The keyring lacks one.
    """
    with closing(Database(settings.database_url)) as database, closing(Database(settings.shortkeys_url)) as short_keys:
        with database.snapshot() as session:
            stated = statements.in_force(session, parse_b64u(settings.operator_public_key, size=32), clock.now())
            row_keys = _row_keys(session, settings)
            rules = sets.choose(session)
        kms, operator_key = LocalKeyring(settings.worker_keyring), parse_b64u(settings.operator_public_key, size=32)
        openers = Epochs(settings.worker_keyring, kms, KeyName.PROCESSOR)
        signer = _own_keys(kms, openers, stated)
        processor, cadence = Processor(openers, short_keys, operator_key), Cadence(settings.cadence)
        worker = Worker(database, processor, signer, row_keys, rules, children, clock, cadence)
        with database.transaction() as session:
            sets.publish(session, worker.policy_set)
            for category in mapped_for(cadence):
                release.publish_built_in(session, worker.map_of(category), signer)
            release.publish_shipped(session, signer)
        yield worker


def follow_keys(worker: Worker, settings: WorkerSettings) -> Worker:
    """Go over to the keys that the operator has stated since, and finish what the change leaves to do.

    Seeds are resealed to the newest `processor` key; older keys are destroyed once nothing needs them.

    Returns:
        The worker with the signing key in force, and those whose rows it reads.
    """
    folder, operator_key = settings.worker_keyring, parse_b64u(settings.operator_public_key, size=32)
    kms, now = LocalKeyring(folder), worker.clock.now()
    with worker.database.snapshot() as session:
        stated, row_keys = statements.in_force(session, operator_key, now), _row_keys(session, settings)
    openers = Epochs(folder, kms, KeyName.PROCESSOR)
    worker = replace(worker, signer=_own_keys(kms, openers, stated), row_keys=row_keys)
    processor, processor_sign = stated[KeyName.PROCESSOR], stated[KeyName.PROCESSOR_SIGN]
    if rollover.former(kms, processor):
        with closing(Database(settings.shortkeys_url)) as short_keys:
            moving = Resealer(worker.database, short_keys, operator_key, KeyKind.RAW, openers, worker.signer)
            moving.move_all(Recipient(processor.public_key), now)
    for statement in (processor, processor_sign):
        if rollover.is_over(statement, now):
            rollover.retire(folder, kms, statement)
    return worker


def run_once(worker: Worker) -> bool:
    """Claim jobs of one kind, run them and record what became of them.

    Returns:
        Whether there was one.
    """
    with worker.database.transaction() as session:
        if log.is_copy(session):
            return False  # what was withdrawn and charged since the backup is not in force again yet
        jobs = queue.claim(session, now=worker.clock.now(), lease_s=LEASE_S, at_most=MOST_JOBS)
    if not jobs:
        return False
    with _leased(worker, jobs):
        try:
            _run(worker, jobs)
        except Exception as error:  # noqa: BLE001  # a defect in one job must not end the others' worker
            reason = error.slug if isinstance(error, VaultError) else type(error).__name__
            _log.warning("jobs failed", job_kind=jobs[0].kind, count=len(jobs), reason=reason)
            with worker.database.transaction() as session:
                for job in jobs:
                    queue.fail(session, job, reason, now=worker.clock.now())
    return True


def schedule(session: Session, now: datetime, cadence: Cadence = Cadence.MONTHLY) -> int:
    """Ask for a refresh of every twin whose owner lets it be kept and of which days have closed since the last one.

    Args:
        session: An open writing transaction.
        now: The current time.
        cadence: How days become rows.

    Returns:
        How many were asked for.
    """
    count, after = 0, b""
    while page := consents.list_to(session, SELF_GRANTEE, after=after, at_most=_PAGE):
        after = page[-1].consent_id
        for consent in page:
            if not consent.live or REFRESH_PURPOSE not in consent.current.terms.purposes:
                continue
            person = people.get(session, consent.vault_id)
            last = last_refresh(session, consent.vault_id)
            if last is None or last.run_at < closed_at(person, cadence, now):
                enqueue_refresh(session, consent.vault_id, consent.consent_id, now=now)
                count += 1
    return count


def main() -> None:
    """Run until SIGTERM or SIGINT; the jobs in hand are finished first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold seeds
    one_thread()  # more would fight with the children for the processors
    settings, clock, stop = own_settings(WorkerSettings), SystemClock(), threading.Event()
    configure_logging(settings.log_level)

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    end_with(settings.supervisor)
    with Children(read_texts=True) as children, open_worker(settings, children, clock) as opened:
        worker = opened
        _log.info("worker ready")
        due = keys_due = clock.now()
        while not stop.is_set():
            if clock.now() >= due:
                with worker.database.transaction() as session:
                    _log.info("scheduled", count=schedule(session, clock.now(), worker.cadence))
                due = clock.now() + SCHEDULE_EVERY
            if clock.now() >= keys_due:
                consents.forget_parsed()
                worker, keys_due = follow_keys(worker, settings), clock.now() + KEYS_EVERY
            if not run_once(worker):
                stop.wait(settings.poll_s)
    _log.info("worker stopped")


def _run(worker: Worker, jobs: Sequence[Job]) -> None:
    match jobs[0].kind:
        case requests.REFRESH:
            _refresh(worker, jobs)
        case requests.TRAIN:
            _train(worker, jobs)
        case _:
            raise UnknownJob("This worker knows no such job; it may be older than the app.")


def _refresh(worker: Worker, jobs: Sequence[Job]) -> None:
    """Run many refreshes together; two jobs of one vault are one refresh."""
    wanted = {_vault(job): ConsentId(parse_id(str(job.payload["consent"]))) for job in jobs}
    outcomes = refresh(worker, wanted)
    with worker.database.transaction() as session:
        for job in jobs:
            _record(session, job, outcomes[_vault(job)], worker.clock.now())
    rows = sum(outcome.rows for outcome in outcomes.values())
    _log.info("refreshed", vaults=len(wanted), rows=rows)


def _record(session: Session, job: Job, outcome: Outcome, now: datetime) -> None:
    if outcome.failed:
        _log.warning("refresh refused", job_id=job.id, attempt=job.attempts, reason=outcome.reason)
        queue.fail(session, job, outcome.reason, now=now)
    else:
        queue.finish(session, job, outcome.reason)


def _train(worker: Worker, jobs: Sequence[Job]) -> None:
    from vault.twin.cohort import train_cohort  # noqa: PLC0415  # Opacus is needed only where models are trained

    for job in jobs:
        reason = train_cohort(worker, parse_id(str(job.payload["training"])))
        _log.info("trained", job_id=job.id, reason=reason)
        with worker.database.transaction() as session:
            queue.finish(session, job, reason)


@contextmanager
def _leased(worker: Worker, jobs: Sequence[Job]) -> Iterator[None]:
    """Renew the jobs' leases from another thread while they run; what fails once is tried again at the next turn."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE_S / 4):
            try:
                with worker.database.transaction() as session:
                    queue.renew(session, jobs, now=worker.clock.now(), lease_s=LEASE_S)
            except Exception as error:  # noqa: BLE001  # a database that is away for a moment must not end the lease
                _log.warning("leases not renewed", job_kind=jobs[0].kind, error_type=type(error).__name__)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _vault(job: Job) -> VaultId:
    return VaultId(parse_id(str(job.payload["vault"])))


def _row_keys(session: Session, settings: WorkerSettings) -> Collection[bytes]:
    operator_key = parse_b64u(settings.operator_public_key, size=32)
    return statements.stated(session, operator_key, KeyName.PROCESSOR_SIGN).keys()


def _own_keys(kms: LocalKeyring, openers: Epochs, stated: Mapping[KeyName, KeyStatement]) -> KmsSigner:
    """Return the signer in force, if processor and processor-sign are the keys that the operator stated."""
    if not {KeyName.PROCESSOR, KeyName.PROCESSOR_SIGN} <= stated.keys():
        raise WrongKeys("The operator has not published the worker's keys; run `twinvault operator init` first.")
    processor, processor_sign = stated[KeyName.PROCESSOR], stated[KeyName.PROCESSOR_SIGN]
    signer = KmsSigner(kms, key_name(KeyName.PROCESSOR_SIGN, processor_sign.epoch))
    opened = openers.find(sha256(processor.public_key))
    if opened is None or signer.public_key != processor_sign.public_key:
        raise WrongKeys("The worker's keyring holds other keys than the operator stated; check VAULT_WORKER_KEYRING.")
    return signer


if __name__ == "__main__":
    with ended_in_words():
        main()
