"""A service that answers: one owner with imprint rows, one company with a consent, asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.consent_kit import PURPOSE, Held
from tests.twin.worker_kit import OCTOBER, RETAIL, SEPTEMBER, TwinWorld
from tests.vault_kit import MONTH, PURCHASE
from vault.answers.ask import AnswerDesk
from vault.answers.clerks import Clerks
from vault.answers.routes import answers_router
from vault.clock import DAY_S, unix_s
from vault.encoding import JsonObject, b64u, dump_json
from vault.http.problems import install_problems
from vault.imprint.block import DAILY, Block, dump_block
from vault.imprint.features import FeatureMap, feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, dump_row, noisy
from vault.keys import statements
from vault.keys.kms import LocalKeyring
from vault.keys.serving import Serving
from vault.oauth.dpop import NonceClock, ProofReader
from vault.oauth.resource import CompanyGate
from vault.oauth.tokens import TokenMint
from vault.parties import companies, people
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.models import SessionRow
from vault.parties.people import VaultState
from vault.policy import sets
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.decision import load_shipped_policy_set
from vault.proof.jose import Thumbprint
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.proof.trust import TrustedRoot
from vault.schema.answer import Answer, parse_answer
from vault.schema.consent import ConsentVersion
from vault.schema.question import Candidate, NextChoice, Question, Recommend, dump_question
from vault.schema.terms import COHORT_GRANTEE, SELF_GRANTEE
from vault.schema.trace import Period, period_of
from vault.seal.derive import imprint_key, subject_of
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import ConsentId, SubjectId, new_id, sha256
from vault.seal.person import Profile, sign_profile
from vault.seal.row import RowHeader, seal_row
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, KeyStatement, sign_key_statement
from vault.seal.subject_erasure import sign_subject_erasure
from vault.tlog.log import append
from vault.tlog.sequencer import Sequencer
from vault.twin import release, rows
from vault.twin.rows import Place, StoredRow

ISSUER = "https://vault.example"
ORIGIN = "log.example/test"
SIGMA = 422
REFRESH_WINDOW = {"data_from": SEPTEMBER, "data_to": MONTH}
NEXT = NextChoice(PURCHASE, PURPOSE, 5)
OFFER = Recommend(
    PURCHASE,
    PURPOSE,
    (Candidate("completejourney:bread", ""), Candidate("completejourney:cheese", "mild"), Candidate("acme:1", "tea")),
    2,
)


@dataclass
class Service(TwinWorld):
    """The world with everything that answers; use it inside `running`."""

    operator: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    log_key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    keyring: Path = Path()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rules = load_shipped_policy_set()
        with self.database.transaction() as session:
            statement = KeyStatement(KeyName.PROCESSOR_SIGN, 1, self.worker_key.public_key, unix_s(self.clock.at) - 60)
            statements.publish(session, sign_key_statement(statement, self.operator), self.operator.public_key)
            sets.publish(session, self.rules)
        self.log = VerifierKey(ORIGIN, self.log_key.public_key)
        self.sequencer = Sequencer(self.database, self.log, self.log_key.sign)
        self.gate = CompanyGate(ProofReader(ISSUER, NonceClock(b"s" * 32)), TokenMint(ISSUER, self.service))
        self.client = TestClient(self.app(), base_url=ISSUER)

    def as_each_subject(self, days_ago: int = 0) -> dict[SubjectId, bytes]:
        """Sign the order to erase everything under the key towards everybody who may have a consent."""
        day = unix_s(self.clock.at) // DAY_S - days_ago
        keys = [self.signer(grantee) for grantee in (SELF_GRANTEE, COHORT_GRANTEE, self.company.company_id)]
        return {subject_of(key.public_key): sign_subject_erasure(ORIGIN, day, key).encoded for key in keys}

    @property
    def trust(self) -> TrustedRoot:
        return TrustedRoot(ISSUER, ORIGIN, self.log, self.operator.public_key)

    def desk(self) -> AnswerDesk:
        """Return the desk of one app process."""
        kms = LocalKeyring.create(self.keyring)
        if not (self.keyring / "serving.1.key").exists():
            kms.generate("serving/1")
        with self.database.snapshot() as session:
            stated = statements.stated(session, self.operator.public_key, KeyName.PROCESSOR_SIGN)
        serving = Serving(Held((self.serving,)), kms, "serving/1", self.shortkeys, self.operator.public_key)
        return AnswerDesk(self.gate, serving, self.sequencer, self.rules, stated, ISSUER, b"t" * 32, 10.0, self.cadence)

    def app(self) -> FastAPI:
        app = FastAPI()
        install_problems(app)
        app.state.database, app.state.clock, app.state.answer_desk = self.database, self.clock, self.desk()
        app.state.clerks = Clerks(self.database)
        app.include_router(answers_router)
        return app

    @property
    def mapped(self) -> FeatureMap:
        return feature_map(PURCHASE, self.cadence)

    def release_model(self) -> None:
        with self.database.transaction() as session:
            release.publish_built_in(session, self.mapped, self.worker_key)

    def put_rows(self, *codes: str, periods: tuple[Period, ...] = (SEPTEMBER, OCTOBER)) -> None:
        """Release one noisy row a month: every code on three days of it."""
        total = sum((RETAIL.day_vector([code]) * 3 for code in codes), np.zeros(RETAIL.size, dtype=np.int64))
        drawn = noisy([total] * len(periods), DiscreteGaussian(SIGMA))
        self.put(
            *(
                Row(new_id() * 2, RETAIL.digest, p, 0, RETAIL.clip, SIGMA, v)
                for p, v in zip(periods, drawn, strict=True)
            )
        )

    def put(self, *made: Row, signer: SigningKey | None = None) -> None:
        """Seal and store rows, as the worker does after its charge."""
        with self.database.transaction() as session:
            for row in made:
                place = self.owner.compartment(PURCHASE, row.period)
                header = RowHeader(self.owner.vault, place.id, row.release_id, RETAIL.version, row.index)
                sealed = seal_row(dump_row(row), header, imprint_key(self.seed(place)), signer or self.worker_key)
                cost = -(-(10**6) * row.clip**2 // row.sigma**2)
                public: JsonObject = {"rows": 1, "sensitivity": row.clip, "sigma": row.sigma, "mu2_micro": cost}
                leaf = append(session, LeafKind.RELEASE, public, {"vault": b64u(self.owner.vault)})
                stored = StoredRow(
                    self.owner.vault, place.id, row.release_id, 0, PURCHASE, row.period, RETAIL.digest, 1,
                    sha256(sealed), sealed, leaf.id,
                )  # fmt: skip
                rows.put(session, [stored])

    def put_block(self, block: Block, signer: SigningKey | None = None, at: Place | None = None) -> None:
        """Seal and store a block, as the worker does after its charge; `at` says that it is other days'."""
        where = at or Place(block.first, len(block.values), block.start)
        place = self.owner.compartment(PURCHASE, period_of(where.first))
        header = RowHeader(self.owner.vault, place.id, block.release_id, self.mapped.version, 0)
        sealed = seal_row(dump_block(block), header, imprint_key(self.seed(place)), signer or self.worker_key)
        with self.database.transaction() as session:
            leaf = append(session, LeafKind.RELEASE, {"rows": 1}, {"vault": b64u(self.owner.vault)})
            stored = StoredRow(
                self.owner.vault, place.id, block.release_id, 0, PURCHASE, period_of(where.first), block.map_digest, 1,
                sha256(sealed), sealed, leaf.id, DAILY, where,
            )  # fmt: skip
            rows.put(session, [stored])

    def consent(self, **changed: Any) -> ConsentVersion:
        """Give the company its consent over all months."""
        return self.give(**{"data_from": SEPTEMBER, "data_to": MONTH} | changed)

    def token(self, grant_id: bytes | None = None) -> str:
        jkt = Thumbprint(self.company.dpop.thumbprint())
        grant = None if grant_id is None else ConsentId(grant_id)
        return self.gate.tokens.issue(CompanyId(self.company.company_id), jkt, grant, now=self.clock.at)

    def headers(self, path: str, consent: bytes, question_id: bytes, body: bytes, **forged: Any) -> dict[str, str]:
        """Sign one request as the company does; `forged` replaces headers."""
        now, token = self.clock.at, forged.pop("token", None) or self.token()
        proof = self.company.proof("PUT", ISSUER + path, now, nonce=self.gate.proofs.nonces.now(now), token=token)
        signed = self.company.signed_question(ISSUER, consent, question_id, body, now)
        return {"authorization": f"DPoP {token}", "dpop": proof, "question-signature": signed} | forged

    def ask(
        self, consent: ConsentVersion | bytes, question: Question | bytes = NEXT, question_id: bytes | None = None,
        **forged: Any,
    ) -> httpx.Response:  # fmt: skip
        consent_id = consent if isinstance(consent, bytes) else consent.consent_id
        question_id = question_id or new_id()
        body = question if isinstance(question, bytes) else dump_json(dump_question(question))
        path = f"/v1/consents/{b64u(consent_id)}/answers/{b64u(question_id)}"
        headers = forged.pop("headers", None) or self.headers(path, consent_id, question_id, body, **forged)
        return self.client.put(path, content=body, headers=headers)

    def session_token(self) -> str:
        token = new_id() * 2
        with self.database.transaction() as session:
            until = self.clock.at + timedelta(minutes=15)
            session.add(SessionRow(token_hash=sha256(token), vault_id=self.owner.vault, expires_at=until))
        return b64u(token)

    def ask_own(
        self, consent: ConsentVersion, question: Question = NEXT, question_id: bytes | None = None
    ) -> httpx.Response:
        return self.ask(consent, question, question_id, headers={"authorization": f"Bearer {self.session_token()}"})


def neighbour(like: Service) -> Service:
    """Return a second owner, with a company, at the same running service."""
    found = Service(
        like.database, like.shortkeys, processor=like.processor, serving=like.serving, service=like.service,
        clock=like.clock, worker_key=like.worker_key, operator=like.operator, log_key=like.log_key, keyring=like.keyring,
        cadence=like.cadence,
    )  # fmt: skip
    found.sequencer = like.sequencer
    found.client = TestClient(found.app(), base_url=ISSUER)
    return found


def become(service: Service, profile: Profile) -> None:
    """Put the owner's signed profile in force."""
    with service.database.transaction() as session:
        sequence = people.get(session, service.owner.vault).sequence + 1
        signed = sign_profile(service.owner.key, profile, vault_id=service.owner.vault, sequence=sequence)
        people.set_profile(session, service.owner.vault, signed, now=service.clock.at)


def freeze(service: Service, state: VaultState = VaultState.FROZEN) -> None:
    cause = sign_record(PayloadType.FREEZE, {"why": "test"}, SigningKey(new_seed()))
    with service.database.transaction() as session:
        people.freeze(session, service.owner.vault, state, cause, now=service.clock.at)


def suspend(service: Service, status: CompanyStatus = CompanyStatus.SUSPENDED) -> None:
    with service.database.transaction() as session:
        companies.set_status(session, CompanyId(service.company.company_id), status, now=service.clock.at)


@contextmanager
def running(service: Service) -> Iterator[Service]:
    service.sequencer.start()
    try:
        with service.client:
            yield service
    finally:
        service.sequencer.stop()


def answer_in(response: httpx.Response) -> tuple[Answer, Bundle]:
    """Return the answer that a response carries."""
    assert response.status_code == 200, response.text
    bundle = parse_bundle(response.content)
    for record in bundle.records.values():
        if b"twinvault-answer/1" in record:
            return parse_answer(record), bundle
    raise AssertionError("no answer in the bundle")


def slug_of(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("/problems/")
