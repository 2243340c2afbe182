"""The web-facing process: accepts sealed batches, keeps consents, answers questions, runs the log.

It holds the keys `serving`, `service` and `log`. No key that opens a trace is ever in its memory,
its environment or its keyring.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio.to_thread
import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from sqlmodel import Session
from starlette.datastructures import State

from vault.answers import records
from vault.answers.ask import AnswerDesk
from vault.answers.clerks import Clerks
from vault.answers.routes import answers_router
from vault.clock import Clock, SystemClock, unix_s
from vault.consent.expiry import EVERY_S, expire_due
from vault.consent.handovers import Custody
from vault.consent.routes import consent_router
from vault.db import Database
from vault.encoding import parse_b64u
from vault.erasure import retention
from vault.erasure.routes import certificates_router, erasure_router, retention_router
from vault.evidence.routes import AuditDesk, evidence_router
from vault.http.document import DocumentedApp
from vault.http.health import health_router
from vault.http.listening import Server
from vault.http.malformed import Protocol
from vault.http.middleware import Edge
from vault.http.problems import RESPONSES, install_problems
from vault.http.shares import Shares, listen
from vault.imprint.features import Cadence
from vault.ingest.routes import ingest_router
from vault.ingest.successions import successions_router
from vault.ingest.vaults import vaults_router
from vault.keys import rollover, statements
from vault.keys.identities import Epochs, open_identity
from vault.keys.kms import KmsSigner, LocalKeyring, NoSuchKey
from vault.keys.operator import APP, key_name
from vault.keys.rollover import Resealer
from vault.keys.routes import keys_router
from vault.keys.serving import Serving
from vault.legacy import legacies
from vault.legacy.routes import executors_router, plan_router
from vault.lifeline import end_with, ended_in_words
from vault.logging import configure_logging
from vault.notices.routes import notices_router
from vault.notices.stream import Streams
from vault.oauth.approval import approval_router
from vault.oauth.dpop import NonceClock, ProofReader
from vault.oauth.grant_management import grants_router
from vault.oauth.resource import CompanyGate
from vault.oauth.routes import oauth_router
from vault.oauth.server import OAuthDesk
from vault.oauth.tokens import TOKEN_S, TokenMint
from vault.parties.routes import parties_router
from vault.parties.sessions import SignInDesk, restored_at_s
from vault.policy import sets
from vault.policy.routes import policy_router
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.recovery import recover, signed_records
from vault.seal.handover import KeyKind
from vault.seal.recipient import Recipient
from vault.seal.statement import KeyName, KeyStatement
from vault.settings import AppSettings, own_settings
from vault.store import devices, shortkeys
from vault.threads import one_thread
from vault.tlog import groups, log, tombstones
from vault.tlog.errors import JournalDamaged, JournalMissing, LogDamaged
from vault.tlog.files import LogFiles
from vault.tlog.journal import Journal
from vault.tlog.routes import log_router
from vault.tlog.sequencer import Sequencer
from vault.tlog.witnesses import Witnesses
from vault.twin.routes import twin_router

_log = structlog.get_logger()

_PUBLISH_EVERY_S: Final = 5
_COSIGN_EVERY_S: Final = 5
_FORGET_EVERY_S: Final = 2
_KEYS_EVERY_S: Final = 5
# Longer than clients keep an idle connection (httpx: 5 s): who sends into one that just closes gets no answer.
_KEEP_ALIVE_S: Final = 30
_THREADS = 160  # an acknowledgement that waits for its checkpoint holds a thread

# The framework's own telemetry shows exception texts, and request bodies too, to whatever listens in this process.
_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip


def create_app(settings: AppSettings, clock: Clock | None = None) -> FastAPI:
    """Assemble the app.

    Args:
        settings: Where everything lies.
        clock: The machine's own by default.

    Raises:
        NoSuchKey: The operator has not made or published the keys yet.
    """
    app = DocumentedApp(
        title="TwinVault", version="1", lifespan=_lifespan, docs_url=None, redoc_url=None,
        telemetry=_NO_TELEMETRY, responses=RESPONSES,
    )  # fmt: skip
    state = app.state
    state.settings, state.clock = settings, clock or SystemClock()
    state.database, state.shortkeys = Database(settings.database_url), Database(settings.shortkeys_url)
    kms = LocalKeyring(settings.app_keyring)
    log_key = VerifierKey(settings.log_origin, kms.public_key(APP[KeyName.LOG]))
    state.witnesses = Witnesses.load(settings.log_witnesses, log_key) if settings.log_witnesses else None
    state.log_files = LogFiles(settings.log_files, log_key) if settings.log_files else None
    state.journal = (
        Journal(settings.log_journal, settings.log_origin, signed=signed_records) if settings.log_journal else None
    )
    state.sequencer = Sequencer(
        state.database, log_key, lambda data: kms.sign(APP[KeyName.LOG], data), settings.log_anchor, state.journal
    )
    state.also = (legacies.forget,)  # what an erasure destroys besides
    state.clerks, state.stated, state.frozen = Clerks(state.database), (), None
    state.streams = Streams(state.database)  # one, which `watch` wakes, as long as the app lives
    follow_statements(state)
    # They are tried in turn: what is asked most often comes first.
    for router in (
        answers_router, oauth_router, ingest_router, consent_router, parties_router, vaults_router, keys_router,
        twin_router, notices_router, policy_router, approval_router, grants_router, evidence_router, erasure_router,
        certificates_router, retention_router, plan_router, executors_router, successions_router, health_router,
        log_router(state.database),
    ):  # fmt: skip
        app.include_router(router)
    install_problems(app)
    app.add_middleware(Edge, max_body_bytes=settings.max_body_bytes, refusal=lambda: state.frozen)
    return app


def follow_statements(state: State) -> Mapping[KeyName, KeyStatement]:
    """Read which keys the operator has stated, and go over to those in force; return them.

    Requests under way end with the desks that they began with.

    Raises:
        NoSuchKey: The keyring lacks one of them.
    """
    operator_key = parse_b64u(state.settings.operator_public_key, size=32)
    with state.database.snapshot() as session:
        keys = statements.in_force(session, operator_key, state.clock.now())
        stated = [*statements.envelopes(session)], [one.epoch for one in keys.values()], restored_at_s(session)
        if stated != state.stated:
            _make_desks(state, session, keys, operator_key)
            state.stated = stated
    return keys


def _make_desks(state: State, session: Session, keys: Mapping[KeyName, KeyStatement], operator_key: bytes) -> None:
    if not {KeyName.SERVING, KeyName.SERVICE} <= keys.keys():
        raise NoSuchKey("The operator has not published the service's keys; run `twinvault operator init` again.")
    issuer, folder = str(state.settings.issuer).rstrip("/"), state.settings.app_keyring
    kms = LocalKeyring(folder)
    # Ed25519 signatures are deterministic, so every process that holds the key derives the same secret; the log's
    # key has no epochs, so what is remembered or under way under the secret outlives every rollover.
    secret = hashlib.sha256(kms.sign(APP[KeyName.LOG], b"twinvault/shared-secret/v1")).digest()
    restored_s = restored_at_s(session)
    # Whether a challenge from before a restore was answered already, nobody knows any more.
    fresh = hmac.digest(secret, b"twinvault/restored/v1\n%d" % restored_s, "sha256")
    worker_statements = statements.stated(session, operator_key, KeyName.PROCESSOR_SIGN)
    service_keys = statements.stated(session, operator_key, KeyName.SERVICE)
    rules = state.answer_desk.policy_set if state.stated else sets.choose(session)
    state.service = KmsSigner(kms, key_name(KeyName.SERVICE, keys[KeyName.SERVICE].epoch))
    serving_name = key_name(KeyName.SERVING, keys[KeyName.SERVING].epoch)
    open_identity(folder, kms, serving_name)  # better now than at the first question
    state.serving = Serving(Epochs(folder, kms, KeyName.SERVING), kms, serving_name, state.shortkeys, operator_key)
    alive = partial(legacies.sign_of_life, service=state.service)
    state.sign_in_desk = SignInDesk(issuer, fresh, devices.live_key, alive)
    # Tokens of the keys before outlive the change of key by their own lifetime, and by no more.
    until_s = keys[KeyName.SERVICE].not_before + TOKEN_S
    former_keys = {key: until_s for key in service_keys if key != state.service.public_key}
    proofs, tokens = ProofReader(issuer, NonceClock(fresh)), TokenMint(issuer, state.service, former_keys, restored_s)
    state.oauth_desk, state.company_gate = OAuthDesk(issuer, proofs, tokens), CompanyGate(proofs, tokens)
    state.answer_desk = AnswerDesk(
        gate=state.company_gate,
        serving=state.serving,
        sequencer=state.sequencer,
        policy_set=rules,
        worker_statements=worker_statements,
        issuer=issuer,
        tag_key=hmac.digest(secret, b"twinvault/tags/v1", "sha256"),
        checkpoint_wait_s=state.settings.checkpoint_wait_s,
        cadence=Cadence(state.settings.cadence),
    )  # fmt: skip
    state.audit_desk = AuditDesk(issuer, state.serving, state.sequencer, state.settings.checkpoint_wait_s)
    recipients = statements.InForce(state.database, operator_key, state.clock)
    state.custody = Custody(state.shortkeys, recipients, state.answer_desk.forget)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    await anyio.to_thread.run_sync(_boot, app)
    try:
        async with anyio.create_task_group() as tasks:
            if state.frozen is None:
                tasks.start_soon(state.streams.watch)
                tasks.start_soon(_repeat, _expire_due, EVERY_S, app.state)
                tasks.start_soon(_repeat, _take_effect, legacies.EVERY_S, app.state)
                tasks.start_soon(_repeat, _publish_erased, EVERY_S, app.state)
                tasks.start_soon(_repeat, _erase_overdue, retention.EVERY_S, app.state)
                tasks.start_soon(_repeat, _publish_denied, _PUBLISH_EVERY_S, app.state)
                if state.log_files is not None:
                    tasks.start_soon(_repeat, _publish_growth, _PUBLISH_EVERY_S, app.state)
                if state.witnesses is not None:
                    tasks.start_soon(_repeat, _cosign_growth, _COSIGN_EVERY_S, app.state)
                tasks.start_soon(_repeat, _forget_ended, _FORGET_EVERY_S, app.state)
                tasks.start_soon(_repeat, follow_keys, _KEYS_EVERY_S, app.state)
            yield
            tasks.cancel_scope.cancel()
    finally:
        if state.frozen is None:
            await anyio.to_thread.run_sync(state.sequencer.stop)
        state.clerks.close()
        state.database.close()
        state.shortkeys.close()


async def _repeat(job: Callable[[State], None], every_s: float, state: State) -> None:
    """Do a job as long as the app runs; one that fails is done again at its next turn."""
    while True:
        try:
            await anyio.to_thread.run_sync(job, state)
        except Exception as error:  # noqa: BLE001  none of them guards an answer, which reads what it depends on
            _log.warning("job.failed", error_type=type(error).__name__)
        await anyio.sleep(every_s)


def _expire_due(state: State) -> None:
    """End consents whose window is over."""
    expire_due(state.database, state.custody, state.service, now=state.clock.now())


def _take_effect(state: State) -> None:
    """Freeze vaults whose executors declared something that no sign of life stopped in time."""
    legacies.take_effect_due(state.database, now=state.clock.now())


def _publish_erased(state: State) -> None:
    """Publish, once a day, what was erased."""
    today = state.clock.now().date()
    with state.database.snapshot() as session:
        due = tombstones.is_due(session, today)
    if due:
        with state.database.transaction() as session:
            tombstones.publish(session, today)


def _erase_overdue(state: State) -> None:
    """Erase months that are older than this installation keeps, if it says how long it does."""
    months = state.settings.retention_months
    if months is not None:
        erased = retention.erase_overdue(
            state.database, state.custody, state.service, months, now=state.clock.now(), also=state.also
        )
        if erased:
            _log.info("retention.erased", vaults=len(erased))


def _publish_denied(state: State) -> None:
    """Log what companies that are denied too often were denied, by the minute."""
    now_s = unix_s(state.clock.now())
    with state.database.snapshot() as session:
        due = groups.is_due(session, now_s)
    if due:
        with state.database.transaction() as session:
            groups.publish(session, LeafKind.DENIALS, now_s)


def _forget_ended(state: State) -> None:
    """Drop keys from memory that were taken away through another process."""
    with state.database.snapshot() as session:
        state.answer_desk.forget_ended(session)


def follow_keys(state: State) -> None:
    """Go over to newer keys and finish what the change leaves to do.

    Imprint keys are resealed to the newest `serving` key, kept answers locked under it, and older keys
    destroyed once nothing needs them.
    """
    keys, now = follow_statements(state), state.clock.now()
    folder, serving = state.settings.app_keyring, keys[KeyName.SERVING]
    kms = LocalKeyring(folder)
    if rollover.former(kms, serving):
        operator_key = parse_b64u(state.settings.operator_public_key, size=32)
        openers = Epochs(folder, kms, KeyName.SERVING)
        moving = Resealer(state.database, state.shortkeys, operator_key, KeyKind.IMPRINT, openers, state.service)
        moving.move_all(Recipient(serving.public_key), now)
        if rollover.is_over(serving, now):
            records.rewrap_all(state.database, state.serving)
            rollover.retire(folder, kms, serving)
    if rollover.is_over(keys[KeyName.SERVICE], now):
        rollover.retire(folder, kms, keys[KeyName.SERVICE])


def _publish_growth(state: State) -> None:
    if not state.sequencer.elected:
        return
    with state.database.snapshot() as session:
        state.log_files.publish(session)


def _cosign_growth(state: State) -> None:
    if state.sequencer.elected:
        state.witnesses.ask(state.database)


def _boot(app: FastAPI) -> None:
    """Finish what a crash or a restore interrupted, then start the log; nothing is served before.

    Where what was withdrawn or charged cannot be known, or the log is not the one that was signed, the process stays
    frozen: it answers every request with what the operator has to do, and logs, spends and signs nothing.
    """
    state = app.state
    shortkeys.create_table(state.shortkeys)
    shortkeys.delete_scheduled(state.database, state.shortkeys)
    try:
        if state.log_files is not None:
            with state.database.snapshot() as session:
                state.log_files.require_grown(session)
        _recover(state)
        follow_statements(state)  # what was issued before a restore counts no more
        state.sequencer.start()
    except (JournalMissing, JournalDamaged, LogDamaged) as refusal:
        _log.error("service.frozen", slug=refusal.slug)
        state.frozen = refusal
        with state.database.transaction() as session:
            log.call_copy(session)  # so that the worker leaves it alone too
        return
    gc.collect()
    gc.freeze()  # the framework's and torch's objects stay; looking through them held every request for a moment
    if state.log_files is not None:
        with state.database.snapshot() as session:
            state.log_files.recover(session)
    with state.database.transaction() as session:
        log.call_compared(session)
        sets.publish(session, state.answer_desk.policy_set)


def _recover(state: State) -> None:
    if state.journal is None or not state.journal.exists():
        return  # the sequencer knows whether one may begin
    found = recover(state.database, state.shortkeys, state.journal, service=state.service, now=state.clock.now())
    if found.lacking:
        _log.warning("service.recovered", count=found.consents + found.charges)


def main() -> None:
    """Serve with the settings of the environment."""
    settings = own_settings(AppSettings)
    end_with(settings.supervisor)
    configure_logging(settings.log_level)
    run(create_app(settings), settings)


def run(app: FastAPI, settings: AppSettings) -> None:
    """Serve an app until a signal ends it, on the supervisor's listening socket or on one of its own."""
    one_thread()
    inherited = settings.listener
    with listen(settings.host, settings.port) if inherited is None else socket.socket(fileno=inherited) as listener:
        server_of(app, Shares(settings.connection_counts, settings.place)).run(sockets=[listener])


def server_of(app: FastAPI, shares: Shares) -> uvicorn.Server:
    """Return what serves an app."""
    config = uvicorn.Config(
        app, http=Protocol, log_config=None, access_log=False, timeout_graceful_shutdown=10, server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )  # fmt: skip
    return Server(config, shares)


if __name__ == "__main__":
    with ended_in_words():
        main()
