"""The serving identity opens imprint keys for one question, forgets them with their handover, and locks answers."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.consent_kit import NOW, Held, World
from tests.policy_kit import ask_permit, refresh_permit
from vault.consent.errors import KeysGone
from vault.db import Database
from vault.keys.kms import LocalKeyring, NoSuchKey
from vault.keys.opening import KeysRefused
from vault.keys.serving import Serving
from vault.policy.permits import Permit
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.derive import imprint_key
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.identity import Identity
from vault.seal.ids import CompartmentId, ConsentId
from vault.seal.recipient import Recipient


class CountingIdentity:
    """A real identity that counts how often it is used."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.opened = 0

    @property
    def recipient(self) -> Recipient:
        return self.identity.recipient

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        self.opened += 1
        return self.identity.open(ciphertext, info)


@pytest.fixture
def world(sqlite_database: Database, shortkeys: Database) -> World:
    return World(sqlite_database, shortkeys)


@pytest.fixture
def identity(world: World) -> CountingIdentity:
    return CountingIdentity(world.serving)


@pytest.fixture
def kms(tmp_path: Path) -> LocalKeyring:
    keyring = LocalKeyring.create(tmp_path / "app")
    keyring.generate("serving/1")
    return keyring


@pytest.fixture
def serving(world: World, identity: CountingIdentity, kms: LocalKeyring) -> Serving:
    return Serving(Held((identity,)), kms, "serving/1", world.shortkeys, world.operator.public_key)


def keys(world: World, serving: Serving, permit: Permit, **late: int) -> dict[CompartmentId, bytes]:
    with world.database.snapshot() as session:
        return serving.imprint_keys(session, permit, NOW + timedelta(**late))


def test_imprint_keys_open_for_a_question_and_no_seed_is_among_them(world: World, serving: Serving) -> None:
    compartment = world.owner.compartment()
    seed = world.seed(compartment)
    opened = keys(world, serving, ask_permit(world, world.give()))
    assert opened == {compartment.id: imprint_key(seed)}
    assert seed not in opened.values()


def test_a_refresh_gets_no_imprint_keys_here(world: World, serving: Serving) -> None:
    with pytest.raises(KeysRefused, match="to answer a question only"):
        keys(world, serving, refresh_permit(world, world.give(ConsentKind.SELF)))


def test_opened_keys_are_kept_until_the_handover_changes(
    world: World, serving: Serving, identity: CountingIdentity
) -> None:
    version = world.give()
    permit = ask_permit(world, version)
    first = keys(world, serving, permit)
    assert keys(world, serving, permit) == first
    assert identity.opened == 1
    narrowed = world.next(version, ConsentEvent.NARROWED)
    world.amend(narrowed)
    with pytest.raises(KeysGone):  # the old permit finds nothing, in memory or in the store
        keys(world, serving, permit)
    assert keys(world, serving, ask_permit(world, narrowed)) == first
    assert identity.opened == 2


def test_withdrawn_keys_are_not_served_from_memory(world: World, serving: Serving) -> None:
    version = world.give()
    permit = ask_permit(world, version)
    assert keys(world, serving, permit)
    world.withdraw(version)
    with pytest.raises(KeysGone):
        keys(world, serving, permit)


def test_forgetting_drops_the_opened_copy(world: World, serving: Serving, identity: CountingIdentity) -> None:
    permit = ask_permit(world, world.give())
    keys(world, serving, permit)
    serving.forget(permit.consent_id)
    serving.forget(ConsentId(b"x" * 16))
    keys(world, serving, permit)
    assert identity.opened == 2


def test_kept_keys_end_with_their_handover(world: World, serving: Serving) -> None:
    version, request = world.first()
    short = world.handover(KeyKind.IMPRINT, version, not_after_s=version.terms.not_before + 60)
    world.give_this(world.submission(version, request, handovers=(short,)))
    permit = ask_permit(world, version)
    assert keys(world, serving, permit, seconds=59)
    with pytest.raises(KeysRefused, match="at this time"):
        keys(world, serving, permit, seconds=60)


def test_only_the_permitted_category_and_months_come_out(sqlite_database: Database, shortkeys: Database) -> None:
    health = Category("pd:Health")
    world = World(sqlite_database, shortkeys, (Category("pd:Purchase"), health))
    kms = LocalKeyring.create(Path(f"{sqlite_database.url.database}.ring"))
    serving = Serving(Held((world.serving,)), kms, "serving/1", shortkeys, world.operator.public_key)
    permit = ask_permit(world, world.give(optional=frozenset({health}), explicit_special=frozenset({health})))
    assert set(keys(world, serving, permit)) == {world.owner.compartment().id}
    assert keys(world, serving, replace(permit, data_to=Period("2026-10"))) == {}


def test_another_identity_opens_nothing(world: World, kms: LocalKeyring) -> None:
    permit = ask_permit(world, world.give())
    with pytest.raises(SealError, match="another identity"):
        other = Serving(Held((world.processor,)), kms, "serving/1", world.shortkeys, world.operator.public_key)
        keys(world, other, permit)


def test_memory_is_bounded(
    world: World, serving: Serving, identity: CountingIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault.keys.serving._MAX_OPENED", 1)
    first, second = (ask_permit(world, world.give()) for _ in range(2))
    for permit in (first, second, second, first):
        keys(world, serving, permit)
    assert identity.opened == 3


def test_many_threads_get_the_same_keys(world: World, serving: Serving) -> None:
    permit = ask_permit(world, world.give())
    found: list[dict[CompartmentId, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(keys(world, serving, permit))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert all(item == found[0] for item in found)


def test_a_bundle_opens_only_for_its_question_and_consent(serving: Serving, kms: LocalKeyring) -> None:
    question, consent = b"q" * 16, ConsentId(b"c" * 16)
    wrapped = serving.wrap_bundle(b"the answer", question, consent)
    assert b"the answer" not in wrapped
    assert serving.unwrap_bundle(wrapped, question, consent) == b"the answer"
    for wrong in ((b"x" * 16, consent), (question, ConsentId(b"x" * 16)), (consent, ConsentId(question))):
        with pytest.raises(SealError):
            serving.unwrap_bundle(wrapped, *wrong)
    with pytest.raises(SealError):
        serving.unwrap_bundle(wrapped[:-1], question, consent)
    kms.destroy("serving/1")
    with pytest.raises(NoSuchKey):
        serving.unwrap_bundle(wrapped, question, consent)
