"""A service with two owners whose consents were given, asked under, denied and withdrawn; and its auditor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from tests.answer_kit import ISSUER, Service, running
from tests.consent_kit import NOW
from tests.twin.worker_kit import RETAIL, SEPTEMBER
from tests.vault_kit import MONTH, PURCHASE, Owner, begin
from tests.verifying import verify_both
from vault.budget.charge import LedgerCharge, person_year
from vault.budget.charge import dump_charge as ledger_row
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import JsonObject, JsonValue, b64u, parse_json
from vault.evidence.auditors import register_auditor
from vault.evidence.routes import AuditDesk, evidence_router
from vault.notices.routes import notices_router
from vault.proof.accounting import person_curve
from vault.proof.bundle import Bundle, LoggedLeaf, dump_bundle, parse_bundle
from vault.proof.certificate import Manifest
from vault.proof.charge import dump_charge
from vault.proof.leaf import LeafKind
from vault.proof.verify import Report, Step
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.audit import AuditRequest, sign_audit_request
from vault.seal.ids import new_id
from vault.seal.signing import Signer, SigningKey, new_seed
from vault.tlog import log
from vault.twin import release
from vault.twin.reader import closed_form

OPENED = {"consent", "answer", "denial"}
"""The kinds of leaves whose personal halves an auditor is shown."""


class Audited:
    """A running service with one owner's life in its log, and a registered auditor."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.auditor = SigningKey(new_seed())
        app = service.client.app
        assert isinstance(app, FastAPI)
        desk = app.state.answer_desk
        app.state.audit_desk = AuditDesk(ISSUER, desk.serving, service.sequencer, 10.0)
        app.include_router(evidence_router)
        app.include_router(notices_router)
        self.register(self.auditor)

    def live(self) -> ConsentVersion:
        """Give consents, ask, be denied, narrow, ask again, withdraw, be denied; return the first version."""
        service = self.service
        self.own = service.give(ConsentKind.SELF, data_from=SEPTEMBER, data_to=MONTH)
        service.give(ConsentKind.COHORT, data_from=SEPTEMBER, data_to=MONTH)
        consent = service.consent(quota_per_month=2)
        assert service.ask(consent).status_code == 200
        assert service.ask_own(self.own).status_code == 200
        narrowed = service.next(consent, ConsentEvent.NARROWED)
        service.amend(narrowed)
        assert service.ask(consent).status_code == 200
        assert service.ask(consent).status_code == 429
        service.withdraw(narrowed)
        assert service.ask(consent).status_code == 403
        assert service.ask(new_id()).status_code == 403
        self.settle()
        return consent

    def publish_trained(self, manifest: Manifest) -> int:
        """Publish a model that was learned from people; return the index of its leaf."""
        service = self.service
        with service.database.transaction() as session:
            published = release.publish(session, closed_form(RETAIL), manifest, service.worker_key)
        return service.sequencer.wait(published, 20)

    def log_training(self, manifest: Manifest, row: JsonObject, **changed: JsonValue) -> int:
        """Log the training of a model with its row of the ledger, as the worker does; return its index."""
        said: JsonObject = {
            "map": b64u(manifest.map_sha256),
            "code": b64u(manifest.code_sha256),
            "cohort": manifest.cohort,
            "epsilon_ppm": manifest.epsilon_ppm,
            "delta_inverse": manifest.delta_inverse,
            "release_id": row["release"],
            "model": b64u(manifest.digest),
            "outcome": "released",
        }
        with self.service.database.transaction() as session:
            pending = log.append(session, LeafKind.TRAINING, said | changed, {"charge": row})
        return self.service.sequencer.wait(pending.id, 20)

    def stranger(self) -> Owner:
        """Begin another vault, with nothing in it but its ring."""
        owner, _ = begin(self.service.database, self.service.shortkeys)
        self.settle()
        return owner

    def register(self, key: SigningKey, days: int = 1) -> None:
        with self.service.database.transaction() as session:
            register_auditor(session, "Auditors Inc", key.public_key, NOW + timedelta(days=days))

    def settle(self) -> int:
        """Wait until all that was recorded is in the signed log; return its size."""
        with self.service.database.transaction() as session:
            last = register_auditor(session, "Auditors Inc", self.auditor.public_key, NOW + timedelta(days=1))
        return self.service.sequencer.wait(last.id, 20) + 1

    def size(self) -> int:
        with self.service.database.snapshot() as session:
            return log.head(session)[0]

    def request(self, first: int = 0, last: int | None = None, signer: Signer | None = None, **changed: Any) -> bytes:
        """Sign a request; the keyword arguments forge it."""
        values = {
            "origin": ISSUER,
            "nonce": new_id() * 2,
            "issued_at": unix_s(NOW),
            "first": first,
            "last": self.size() - 1 if last is None else last,
        }
        return sign_audit_request(AuditRequest(**values | changed), signer or self.auditor).encoded

    def send(self, body: bytes) -> httpx.Response:
        return self.service.client.post("/v1/audit/bundle", content=body)

    def bundle(self, first: int = 0, last: int | None = None) -> Bundle:
        response = self.send(self.request(first, last))
        assert response.status_code == 200, response.text
        return parse_bundle(response.content)


def training_row(manifest: Manifest, **changed: JsonValue) -> JsonObject:
    """Return the row of the ledger that a training of a model pays."""
    mechanism: JsonObject = {
        "name": "backbone/1",
        "map": b64u(manifest.map_sha256),
        "charges": [dump_charge(charge) for charge in manifest.charges],
    }
    curve = person_curve(manifest.charges)
    paid = LedgerCharge(person_year(NOW.year), PURCHASE, new_id() * 2, mechanism, curve, manifest.code_sha256)
    return {**ledger_row(paid), **changed}


@contextmanager
def audited(database: Database, shortkeys: Database, folder: Path) -> Iterator[Audited]:
    service = Service(database, shortkeys, keyring=folder / "keyring")
    service.release_model()
    service.put_rows("completejourney:bread")
    with running(service):
        yield Audited(service)


def verify(site: Audited, bundle: Bundle) -> Report:
    """Verify a bundle under the pinned keys, as it comes over the wire."""
    return verify_both(parse_bundle(dump_bundle(bundle)), site.service.trust)


def kind_of(leaf: LoggedLeaf) -> str:
    return str(parse_json(leaf.public.body)["kind"])


def leaf_of(bundle: Bundle, kind: LeafKind, place: int = 0, **personal: str | int) -> LoggedLeaf:
    """Return one leaf of a kind whose personal half says this."""
    found = [leaf for leaf in bundle.leaves if kind_of(leaf) == kind]
    said = [
        leaf for leaf in found if personal.items() <= (parse_json(leaf.personal.body) if leaf.personal else {}).items()
    ]
    return said[place]


def without(bundle: Bundle, *gone: LoggedLeaf) -> Bundle:
    return replace(bundle, leaves=tuple(leaf for leaf in bundle.leaves if leaf not in gone))


def closed(bundle: Bundle, *hidden: LoggedLeaf) -> Bundle:
    """Keep the leaves but not what opens their personal halves."""
    shown = (replace(leaf, personal=None) if leaf in hidden else leaf for leaf in bundle.leaves)
    return replace(bundle, leaves=tuple(shown))


def failed(report: Report) -> set[tuple[Step, int | None]]:
    return {(failure.step, failure.leaf_index) for failure in report.failures}


def bodies(bundle: Bundle) -> list[bytes]:
    return [leaf.personal.body for leaf in bundle.leaves if leaf.personal is not None]
