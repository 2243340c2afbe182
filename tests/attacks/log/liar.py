"""A service that has the log's own key and logs what it likes about a legacy."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy

from tests.legacy_kit import DAY, LATER, ORIGIN, Heirs
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.encoding import JsonObject, JsonValue, b64u
from vault.legacy import shown
from vault.legacy.models import legacy_record
from vault.proof.bundle import parse_bundle
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.proof.report import Report
from vault.proof.trust import TrustedRoot
from vault.proof.verify import verify_bundle
from vault.seal.dsse import Envelope
from vault.seal.ids import new_id, sha256
from vault.seal.legacy import Act
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.log import append
from vault.tlog.sequencer import Sequencer

IN_FORCE: Final = LATER + 30 * DAY
SEALED: Final = b"s" * 32


@dataclass
class Liar(Heirs):
    """A service that logs what it likes about a legacy, rightly numbered and chained unless told otherwise."""

    log_key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    last: tuple[int, bytes] = (0, b"")
    claim: bytes = field(default_factory=new_id)
    declared: Envelope | None = None

    def step(self, kind: LeafKind, at: datetime, signed: Envelope, **said: Any) -> None:
        seq, prev = self.last
        personal: JsonObject = {
            "vault": b64u(self.owner.vault), "plan": b64u(self.prev), "record": b64u(signed.digest), "at": unix_s(at),
            "seq": seq + 1, "prev": b64u(prev), **said,
        }  # fmt: skip
        with self.database.transaction() as session:
            pending = append(session, kind, {"period": "2026-11"}, personal, about=self.owner.vault)
            kept = {"pending_id": pending.id, "vault_id": self.owner.vault, "envelope": signed.encoded}
            session.connection().execute(sqlalchemy.insert(legacy_record), kept)
        self.last = seq + 1, sha256(pending.openings.personal.body)

    def planned(self, signed: Envelope | None = None, at: datetime = NOW, **said: Any) -> None:
        signed = signed or self.plan(self.terms())
        self.prev, self.version = signed.digest, self.version + 1
        self.step(LeafKind.LEGACY_PLAN, at, signed, **{"version": self.version} | said)

    def claimed(self, at: datetime = LATER, signed: Envelope | None = None, **said: Any) -> None:
        self.declared = signed or self.statement(now=at, claim=self.claim)
        until = unix_s(at) + 30 * 86_400
        self.step(LeafKind.LEGACY_CLAIM, at, self.declared, **{"claim": b64u(self.claim), "until": until} | said)

    def forced(self, at: datetime = IN_FORCE, **said: Any) -> None:
        assert self.declared is not None
        self.step(LeafKind.LEGACY_FORCE, at, self.declared, **{"claim": b64u(self.claim)} | said)

    def opened(self, at: datetime = IN_FORCE, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.statement(now=at, claim=self.claim, act=Act.OPEN)
        named: list[JsonValue] = [b64u(SEALED)]
        self.step(LeafKind.LEGACY_OPEN, at, signed, **{"claim": b64u(self.claim), "consents": named, "count": 1} | said)

    def vetoed(self, at: datetime = LATER + DAY, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.answered(at)
        self.step(LeafKind.LEGACY_VETO, at, signed, **{"claim": b64u(self.claim)} | said)

    def report(self) -> Report:
        key = VerifierKey("log.example/test", self.log_key.public_key)
        sequencer = Sequencer(self.database, key, self.log_key.sign)
        sequencer.start()
        try:
            with self.database.transaction() as session:
                last = append(session, LeafKind.POLICY_SET, {}, {})
            sequencer.wait(last.id, 20)
        finally:
            sequencer.stop()
        trust = TrustedRoot(ORIGIN, key.name, key, new_seed())
        with self.database.snapshot() as session:
            return verify_bundle(parse_bundle(shown.bundle(session, self.owner.vault)), trust)
