"""Invariant 2: the app, with its memory, environment, files, KMS and the whole database, opens no batch."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp
import pytest
from sqlalchemy import inspect

from tests.consent_kit import World
from tests.site_kit import make_site, running_app
from tests.vault_kit import NOW
from vault.consent import handovers
from vault.db import Database
from vault.errors import VaultError
from vault.ingest.accept import accept
from vault.keys.identities import open_identity
from vault.keys.kms import LocalKeyring
from vault.keys.operator import APP, WORKER
from vault.ops.site import Site
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.batch import VerifiedBatch, open_batch, parse_batch
from vault.seal.derive import imprint_key
from vault.seal.handover import open_handover, verify_handover
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId
from vault.seal.statement import KeyName
from vault.seal.upload import parse_upload
from vault.store import batches

CANARY = "canary Kanarienvogel 7f3a"
_B64U = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass
class Story:
    """A site whose owner uploaded traces and gave each kind of consent."""

    site: Site
    world: World
    consents: dict[ConsentKind, ConsentVersion]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    site = make_site(tmp_path / "site")
    database, short = site.databases()
    keys = site.folder / "keys"
    world = World(
        database,
        short,
        processor=open_identity(keys / "worker", LocalKeyring(keys / "worker"), WORKER[KeyName.PROCESSOR]),
        serving=open_identity(keys / "app", LocalKeyring(keys / "app"), APP[KeyName.SERVING]),
    )
    upload = world.source.upload(world.owner.compartment(), count=3, text=CANARY)
    with database.transaction() as session:
        accept(session, world.source.caller, parse_upload(upload), now=NOW)
    yield Story(site, world, {kind: world.give(kind) for kind in ConsentKind})
    database.close()
    short.close()


def keys_in(data: bytes) -> set[bytes]:
    """Return what in some bytes can be a 32-byte key: themselves, base64url and hex fields."""
    found = {data} if len(data) == 32 else set()
    found |= {base64.urlsafe_b64decode(match + b"=") for match in _B64U.findall(data)}
    return found | {bytes.fromhex(match.decode()) for match in _HEX.findall(data)}


def every_window(data: bytes) -> set[bytes]:
    return {data[at : at + 32] for at in range(len(data) - 31)}


def values_of(database: Database) -> Iterator[bytes]:
    tables = inspect(database.engine).get_table_names()
    with database.snapshot() as session:
        for table in tables:
            for row in session.connection().exec_driver_sql(f'SELECT * FROM "{table}"'):
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)


def what_the_app_has(story: Story) -> set[bytes]:
    """Return every 32 bytes that the app could try as a key."""
    folder = story.site.folder / "keys/app"
    kms = LocalKeyring(folder)
    found: set[bytes] = set()
    for path in folder.iterdir():
        found |= every_window(path.read_bytes())
    for name in (APP[KeyName.SERVING], APP[KeyName.SERVICE], APP[KeyName.LOG]):
        wrapped = folder / f"{name.replace('/', '.')}.wrapped"
        if wrapped.exists():
            found.add(kms.unwrap(name, wrapped.read_bytes(), b"x-wing-seed"))
    for path in (story.site.folder / "app.env", story.site.trust_file):
        found |= keys_in(path.read_bytes())
    for database in (story.world.database, story.world.shortkeys):
        for value in values_of(database):
            found |= keys_in(value)
    return found


def opened_by(candidates: set[bytes], story: Story) -> tuple[set[bytes], list[str]]:
    """Try every candidate on every handover, then all that came out on every batch.

    Returns:
        The keys that handovers gave, and the texts of the traces that opened.
    """
    world = story.world
    identities = [Identity(candidate) for candidate in candidates]
    compartment = world.owner.compartment()
    gained: set[bytes] = set()
    for kind, version in story.consents.items():
        for key_kind in handovers.REQUIRED[kind]:
            with world.database.snapshot() as session:
                stored = handovers.read(
                    session, world.shortkeys, ConsentId(version.consent_id), version.version, key_kind
                )
            verified = verify_handover(stored.newest, world.owner.vault, world.owner.key.public_key)
            by_hash = {identity.recipient.key_hash: identity for identity in identities}
            opener = by_hash.get(verified.terms.to)
            if opener is not None:
                gained |= set(open_handover(verified, opener, {compartment.id: compartment}).values())
    texts = []
    with world.database.snapshot() as session:
        stored_batches = batches.read(session, world.owner.vault, compartment.id)
    assert len(stored_batches) == 3
    for seed in candidates | gained | {imprint_key(key) for key in gained}:
        opener = Identity(seed)
        for stored_batch in stored_batches:
            batch = VerifiedBatch(parse_batch(stored_batch.encoded))
            try:
                texts += [trace.text for trace in open_batch(batch, opener, compartment.category)]
            except VaultError:
                continue
    return gained, texts


def test_no_key_the_app_has_or_finds_opens_a_batch(story: Story) -> None:
    with running_app(story.site):
        held = what_the_app_has(story)
    assert len(held) > 50
    gained, texts = opened_by(held, story)
    seed = story.world.seed(story.world.owner.compartment())
    assert gained == {imprint_key(seed)}, "self and company consents gave it imprint keys, and the attack finds them"
    assert seed not in held | gained
    assert texts == []


def test_the_same_attack_with_the_workers_keyring_opens_everything(story: Story) -> None:
    """An attack that would not notice success shows nothing."""
    folder = story.site.folder / "keys/worker"
    name = WORKER[KeyName.PROCESSOR]
    wrapped = (folder / f"{name.replace('/', '.')}.wrapped").read_bytes()
    _, texts = opened_by({LocalKeyring(folder).unwrap(name, wrapped, b"x-wing-seed")}, story)
    assert texts == [CANARY] * 3


def test_a_seed_planted_in_the_database_is_found(story: Story) -> None:
    seed = story.world.seed(story.world.owner.compartment())
    with story.world.database.transaction() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO slot (locator_hash, vault_id, slot) VALUES (?, ?, ?)",
            (b"n", b"n", b'{"seed":"' + base64.urlsafe_b64encode(seed).rstrip(b"=") + b'"}'),
        )
    _, texts = opened_by(what_the_app_has(story), story)
    assert texts == [CANARY] * 3


def test_the_app_opens_no_file_of_the_worker(story: Story) -> None:
    """With the worker's and the operator's keyrings gone, the app starts and serves."""
    for part in ("worker", "operator"):
        (story.site.folder / "keys" / part).rename(story.site.folder.parent / part)
    with running_app(story.site) as client:
        assert client.get("/readyz").status_code == 200
        assert story.world.processor.recipient is not None


def test_the_app_reaches_no_code_that_opens_traces() -> None:
    graph = grimp.build_graph("vault", cache_dir=None)
    reached = graph.find_upstream_modules("vault.app")
    assert not reached & {"vault.keys.processor", "vault.worker", "vault.ops"}
    assert not reached & {
        f"vault.twin.{name}" for name in ("train", "refresh", "audit", "cohort", "opening", "children")
    }
    importers = graph.find_modules_that_directly_import("vault.seal.identity") & reached
    assert importers <= {module for module in reached if module.startswith("vault.keys.")}
    assert importers, "serving needs it"


def test_importing_the_app_loads_no_opener_and_no_trainer() -> None:
    code = "import sys, vault.app; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(run.stdout.split())
    assert "vault.answers.ask" in loaded
    assert not loaded & {
        *("vault.keys.processor", "vault.keys.compartment", "vault.twin.refresh", "vault.twin.cohort"),
        *("vault.twin.train", "vault.twin.audit", "vault.twin.certify", "vault.twin.opening", "vault.worker"),
        *("opacus", "dp_accounting"),
    }
