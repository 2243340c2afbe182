"""A service that has the log's own key and logs what it likes about a legacy."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy

from tests.legacy_kit import DAY, LATER, ORIGIN, Heirs
from tests.vault_kit import NOW
from tests.verifying import verify_both
from vault.clock import unix_s
from vault.encoding import JsonObject, JsonValue, b64u, parse_json
from vault.legacy import shown
from vault.legacy.models import legacy_record
from vault.parties.models import PersonRecordRow
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.checkpoint import parse_checkpoint, verify_checkpoint
from vault.proof.leaf import LeafKind
from vault.proof.merkle import inclusion_proof
from vault.proof.note import COSIGNATURE, VerifierKey, parse_note
from vault.proof.report import Report
from vault.proof.trust import TrustedRoot
from vault.proof.waited import Waited
from vault.proof.witness import WitnessPolicy, cosign
from vault.seal.dsse import Envelope
from vault.seal.ids import new_id, sha256
from vault.seal.legacy import Act, Choice
from vault.seal.signing import SigningKey, new_seed
from vault.tlog import log, witnesses
from vault.tlog.log import PendingId, append
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
    witnessed: bytes = b""
    erasure: tuple[PendingId, bytes] | None = None
    witness_key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))

    def step(self, kind: LeafKind, at: datetime, signed: Envelope, **said: Any) -> None:
        seq, prev = self.last
        personal: JsonObject = {
            "vault": b64u(self.owner.vault), "plan": b64u(self.prev), "record": b64u(signed.digest), "at": unix_s(at),
            "seq": seq + 1, "prev": b64u(prev), **said,
        }  # fmt: skip
        with self.database.transaction() as session:
            pending = append(session, kind, {"period": "2026-11"}, personal, about=self.owner.vault)
            kept = {
                "pending_id": pending.id,
                "vault_id": self.owner.vault,
                "envelope": signed.encoded,
                "witnessed": self.witnessed,
            }
            session.connection().execute(sqlalchemy.insert(legacy_record), kept)
        self.last = seq + 1, sha256(pending.openings.personal.body)

    def planned(self, signed: Envelope | None = None, at: datetime = NOW, **said: Any) -> None:
        signed = signed or self.plan(self.terms())
        self.prev, self.version = signed.digest, self.version + 1
        terms: Any = parse_json(signed.payload)["terms"]
        counted = {"version": self.version, "sealed": len(terms.get("sealed", []))}
        self.step(LeafKind.LEGACY_PLAN, at, signed, **counted | said)

    def claimed(self, at: datetime = LATER, signed: Envelope | None = None, **said: Any) -> None:
        self.declared = signed or self.statement(now=at, claim=self.claim)
        until = unix_s(at) + 30 * 86_400
        self.step(LeafKind.LEGACY_CLAIM, at, self.declared, **{"claim": b64u(self.claim), "until": until} | said)

    def forced(self, at: datetime = IN_FORCE, witnessed: bytes = b"", **said: Any) -> None:
        assert self.declared is not None
        self.witnessed, said = witnessed, ({"witnessed": b64u(sha256(witnessed))} if witnessed else {}) | said
        self.step(LeafKind.LEGACY_FORCE, at, self.declared, **{"claim": b64u(self.claim)} | said)

    def opened(self, at: datetime = IN_FORCE, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.statement(now=at, claim=self.claim, act=Act.OPEN)
        named: list[JsonValue] = [b64u(SEALED)]
        self.step(LeafKind.LEGACY_OPEN, at, signed, **{"claim": b64u(self.claim), "consents": named, "count": 1} | said)

    def vetoed(self, at: datetime = LATER + DAY, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.answered(at)
        self.step(LeafKind.LEGACY_VETO, at, signed, **{"claim": b64u(self.claim)} | said)

    def ordered(self, kind: LeafKind, signed: Envelope | None, at: datetime = IN_FORCE, **said: int) -> None:
        """Do something to the vault on the word of a record."""
        signed = signed or self.declared
        assert signed is not None
        personal: JsonObject = {
            "vault": b64u(self.owner.vault),
            "record": b64u(signed.digest),
            "at": unix_s(at),
            **said,
        }
        with self.database.transaction() as session:
            pending = append(session, kind, {"period": "2026-11"}, personal, about=self.owner.vault)
            record = PersonRecordRow(
                pending_id=pending.id, vault_id=self.owner.vault, envelope=signed.encoded, identity=False
            )
            session.add(record)

    def erased(self, signed: Envelope, at: datetime = IN_FORCE, **said: Any) -> None:
        """Erase everything on executors' word."""
        personal: JsonObject = {
            "vault": b64u(self.owner.vault), "whole": 1, "compartments": [], "erasure": b64u(self.claim),
            "order": b64u(signed.digest), "reason": "", "identity_check": "", "at": unix_s(at), **said,
        }  # fmt: skip
        with self.database.transaction() as session:
            leaf = append(session, LeafKind.ERASURE, {"scope": "person", "author": "executors"}, personal)
        self.erasure = leaf.id, signed.encoded

    def seen(self, at: datetime) -> str:
        """Let the log number what happened, and its witness cosign it; return the note, which the service keeps too."""
        self.sequence()
        with self.database.transaction() as session:
            size, note = log.head(session)
            checkpoint = verify_checkpoint(note, self.log, self.log.name)
            note += cosign(checkpoint, self.witness, self.witness_key.sign, unix_s(at)).line
            witnesses._keep(session, size, note)
        return note

    def saw(self, begun: str, over: str) -> bytes:
        """Return what a step names to show how long the newest claim waited."""
        with self.database.snapshot() as session:
            size = parse_checkpoint(parse_note(begun).unverified_text).size
            index = max(leaf.index for leaf in log.find(session, kind=LeafKind.LEGACY_CLAIM))
            path = tuple(inclusion_proof(index, size, log.hashes_at(session, size)))
        return Waited(begun, path, over).dump()

    @property
    def log(self) -> VerifierKey:
        return VerifierKey("log.example/test", self.log_key.public_key)

    @property
    def witness(self) -> VerifierKey:
        return VerifierKey("witness.example/one", self.witness_key.public_key, COSIGNATURE)

    def sequence(self) -> None:
        sequencer = Sequencer(self.database, self.log, self.log_key.sign)
        sequencer.start()
        try:
            with self.database.transaction() as session:
                last = append(session, LeafKind.POLICY_SET, {}, {})
            sequencer.wait(last.id, 20)
        finally:
            sequencer.stop()

    def report(self, *, watched: bool = False) -> Report:
        """Verify everything, as somebody who trusts the witness too if it is `watched`."""
        return verify_both(*self.shown(watched=watched))

    def shown(self, *, watched: bool = False) -> tuple[Bundle, TrustedRoot]:
        """Return everything that is shown of the legacy, and what whoever sees it trusts."""
        self.sequence()
        policy = WitnessPolicy((self.witness,), 1, 10**9) if watched else None
        trust = TrustedRoot(ORIGIN, self.log.name, self.log, new_seed(), policy)
        with self.database.snapshot() as session:
            data = shown.prove(session, shown.collect(session, self.owner.vault), *(self.erasure or ()))
            return parse_bundle(data), trust


def in_force(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.forced()


def in_force_for_answers(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ANSWER, sealed=(SEALED,))))
    liar.claimed()
    liar.forced()
