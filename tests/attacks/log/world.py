"""A service with a life in its log, its witness and its published files; and copies of it to tamper with."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.audit_kit import Audited, audited, training_row
from tests.clients.test_witness import listening
from tests.proof.test_certificate import _manifest
from tests.verifying import verify_both
from twinvault.witness import Witness
from vault.answers.floods import ALONE
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import JsonObject, parse_json
from vault.errors import VaultError
from vault.evidence import bundles
from vault.proof.bundle import Bundle, dump_bundle, parse_bundle
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.leaf import LeafKind, make_entry
from vault.proof.merkle import Edge, leaf_hash
from vault.proof.note import sign_note
from vault.proof.report import Report, Step
from vault.proof.trust import TrustedRoot
from vault.proof.witness import WitnessPolicy
from vault.schema.consent import ConsentVersion
from vault.store.shortkeys import create_table
from vault.tlog import groups
from vault.tlog.anchor import Anchor
from vault.tlog.errors import NotInLog
from vault.tlog.files import LogFiles
from vault.tlog.tree import require_later, verify_tree
from vault.tlog.witnesses import Witnesses, WitnessPlan, WitnessSite

MODEL = _manifest()


@dataclass(frozen=True)
class World:
    """What was true before anybody tampered.

    Args:
        site: The running service and its auditor.
        consent: The first version of a company's consent: two answers, a denial, withdrawn, a denial.
        folder: Database, published files, witness and anchor, as they were.
        checkpoint: The newest checkpoint, which anchor, files and witness have.
    """

    site: Audited
    consent: ConsentVersion
    folder: Path
    checkpoint: Checkpoint


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def flood(site: Audited, consent: ConsentVersion) -> None:
    """Let a company ask so often under its withdrawn consent that its denials share a leaf."""
    for _ in range(ALONE + 3):
        assert site.service.ask(consent).status_code == 403
    with site.service.database.transaction() as session:
        [group] = groups.publish(session, LeafKind.DENIALS, unix_s(site.service.clock.at) + 60)
    site.service.sequencer.wait(group, 20)


@contextmanager
def lived(sqlite_template: Path, folder: Path) -> Iterator[World]:
    """Build the world once; the copies are cheap."""
    shutil.copy(sqlite_template, folder / "live.sqlite")
    database, shortkeys = Database(f"sqlite:///{folder}/live.sqlite"), Database(f"sqlite:///{folder}/short.sqlite")
    create_table(shortkeys)
    with audited(database, shortkeys, folder) as site:
        consent = site.live()
        flood(site, consent)
        site.publish_trained(MODEL)
        site.log_training(MODEL, training_row(MODEL))
        key = site.service.log
        Witness.init(folder / "witness", "witness.example/1").watch(key)
        found = Tampered(World(site, consent, folder, Checkpoint(key.name, 0, b"")), folder)
        assert found.cosign(database) == 1
        with database.snapshot() as session:
            checkpoint = LogFiles(folder / "public", key).publish(session)
        Anchor(folder / "anchor", key).write((folder / "public/checkpoint").read_text())
        with (
            closing(sqlite3.connect(folder / "live.sqlite")) as live,
            closing(sqlite3.connect(folder / "vault.sqlite")) as copy,
        ):
            live.backup(copy)
        yield World(site, consent, folder, checkpoint)
    database.close()
    shortkeys.close()


class Tampered:
    """A copy of the world, and who notices what was done to it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.service = world.site.service
        self.key = self.service.log
        self.path = folder / "vault.sqlite"

    @classmethod
    def copy(cls, world: World, folder: Path) -> Tampered:
        for name in ("vault.sqlite", "anchor"):
            shutil.copy(world.folder / name, folder / name)
        for name in ("public", "witness"):
            shutil.copytree(world.folder / name, folder / name)
        found = cls(world, folder)
        for (trigger,) in found.sql("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            found.sql(f"DROP TRIGGER {trigger}")  # they keep the service from mistakes, and nobody else from anything
        return found

    @property
    def trust(self) -> TrustedRoot:
        witness = Witness(self.folder / "witness")
        return replace(self.service.trust, witnesses=WitnessPolicy((witness.key,), 1, 600))

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement as whoever has the database file."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def leaf(self, kind: LeafKind, place: int = 0) -> int:
        """Return the index of a leaf about the consent."""
        found = self.sql(
            "SELECT leaf_index FROM log_entry WHERE kind = ? AND member IS NULL ORDER BY leaf_index", kind.value
        )
        return int(found[place][0])

    def opening(self, index: int, column: str) -> bytes:
        """Return the salt or body of one half of a leaf."""
        query = f"SELECT {column} FROM log_opening JOIN log_entry ON id = entry_id WHERE leaf_index = ?"
        [[value]] = self.sql(query, index)
        return bytes(value)

    def set_opening(self, index: int, column: str, value: bytes | None) -> None:
        entry = "(SELECT id FROM log_entry WHERE leaf_index = ?)"
        self.sql(f"UPDATE log_opening SET {column} = ? WHERE entry_id = {entry}", value, index)

    def halves(self, index: int) -> tuple[JsonObject, JsonObject]:
        """Return what a leaf says in public, without its kind, and of a person."""
        public = parse_json(self.opening(index, "public_body"))
        del public["kind"]
        return public, parse_json(self.opening(index, "personal_body"))

    def remove(self, index: int) -> None:
        """Take a leaf out of the database and close the gap behind it."""
        [[row]] = self.sql("SELECT id FROM log_entry WHERE leaf_index = ?", index)
        self.sql("DELETE FROM log_opening WHERE entry_id = ?", row)
        self.sql("DELETE FROM log_entry WHERE id = ?", row)
        self.close_gap(index)

    def close_gap(self, index: int) -> None:
        """Number what follows a missing leaf one lower."""
        for (later,) in self.sql("SELECT leaf_index FROM log_entry WHERE leaf_index > ? ORDER BY leaf_index", index):
            self.sql("UPDATE log_entry SET leaf_index = ? WHERE leaf_index = ?", later - 1, later)

    def add(self, kind: LeafKind, public: JsonObject, personal: JsonObject, index: int | None = None) -> int:
        """Put a new leaf at the end, or into the middle."""
        [[size]] = self.sql("SELECT count(*) FROM log_entry WHERE leaf_index IS NOT NULL")
        place = size if index is None else index
        for (later,) in self.sql("SELECT leaf_index FROM log_entry WHERE leaf_index >= ? ORDER BY 1 DESC", place):
            self.sql("UPDATE log_entry SET leaf_index = ? WHERE leaf_index = ?", later + 1, later)
        entry, opened = make_entry({"kind": kind.value, **public}, personal)
        self.sql("INSERT INTO log_entry (kind, entry, leaf_index) VALUES (?, ?, ?)", kind.value, entry, place)
        [[row]] = self.sql("SELECT id FROM log_entry WHERE leaf_index = ?", place)
        self.sql(
            "INSERT INTO log_opening VALUES (?, ?, ?, ?, ?)",
            row, opened.public.salt, opened.public.body, opened.personal.salt, opened.personal.body,
        )  # fmt: skip
        return place

    def sign_again(self) -> None:
        """Sign whatever the database holds with the log's own key, as only its operator can."""
        rows = self.sql("SELECT entry FROM log_entry WHERE leaf_index IS NOT NULL ORDER BY leaf_index")
        edge = Edge().extend(leaf_hash(entry) for (entry,) in rows)
        text = Checkpoint(self.key.name, edge.size, edge.root).text
        note = sign_note(text, self.key, self.service.log_key.sign)
        self.sql("UPDATE log_head SET size = ?, edge = ?, checkpoint = ?", edge.size, b"".join(edge.hashes), note)

    def cosign(self, database: Database) -> int:
        """Ask the witness to cosign what a database holds."""
        witness = Witness(self.folder / "witness")
        with listening(witness) as url:
            return Witnesses(self.key, WitnessPlan((WitnessSite(witness.key, url),), 1, 600)).ask(database)

    def bundle(self, database: Database) -> Bundle:
        """Return what the service's own code shows an auditor of the altered database."""
        [[size]] = self.sql("SELECT size FROM log_head")
        serving = self.service.client.app.state.answer_desk.serving  # type: ignore[attr-defined]
        with database.snapshot() as session:
            return parse_bundle(dump_bundle(bundles.build(session, serving, 0, size - 1)))

    def verify(self, bundle: Bundle) -> Report:
        """Verify it under the pinned keys, the witness among them."""
        return verify_both(bundle, self.trust)

    def caught(self) -> tuple[set[str], set[Step]]:
        """Return who notices, and by which of its steps the verifier does."""
        database = Database(f"sqlite:///{self.path}")
        found: set[str] = set()
        steps: set[Step] = set()
        with database.snapshot() as session:
            try:
                head = verify_tree(session, self.key)
            except VaultError:
                found.add("boot")
            else:
                try:
                    anchored = Anchor(self.folder / "anchor", self.key).read()
                    if anchored is not None:
                        require_later(session, head, anchored)
                except VaultError:
                    found.add("anchor")
            try:
                LogFiles(self.folder / "public", self.key).recover(session)
            except VaultError:
                found.add("files")
        try:
            steps = {failure.step for failure in self.verify(self.bundle(database)).failures}
            if steps:
                found.add("verifier")
        except VaultError:  # the service's own code does not get as far as showing it
            found.add("unshown")
        try:
            if not self.cosign(database):
                found.add("witness")
        except (VaultError, NotInLog):
            found.add("witness")
        database.close()
        return found, steps

    def head(self) -> Checkpoint:
        """Return the signed head of the altered database."""
        [[note]] = self.sql("SELECT checkpoint FROM log_head")
        return verify_checkpoint(note, self.key, self.key.name)
