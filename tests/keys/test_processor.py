"""The processor opens seeds for a refresh or a training, and only what owner, ring and permit agree on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy

from tests.consent_kit import NOW, Held, World
from tests.policy_kit import ask_permit, refresh_permit, train_permit
from tests.vault_kit import begin
from vault.consent.errors import KeysGone
from vault.db import Database
from vault.keys.opening import KeysRefused
from vault.keys.processor import Processor
from vault.policy.permits import Permit
from vault.schema.category import Category
from vault.schema.consent import ConsentVersion
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.chain import Chain
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind, parse_handover
from vault.seal.identity import Identity
from vault.seal.ids import CompartmentId, ConsentId
from vault.seal.ring import Page
from vault.seal.signing import new_seed
from vault.seal.wrap import lock_short
from vault.store import shortkeys as short_key_store

BREAD, HEALTH = Category("pd:Purchase"), Category("pd:Health")


@pytest.fixture
def world(sqlite_database: Database, shortkeys: Database) -> World:
    return World(sqlite_database, shortkeys, (BREAD, HEALTH))


def seeds(world: World, permit: Permit, **late: int) -> dict[CompartmentId, bytes]:
    with world.database.snapshot() as session:
        return world.opener.seeds(session, permit, NOW + timedelta(**late))


def swap(world: World, version: ConsentVersion, encoded: bytes) -> None:
    """Put another handover into the database, rightly locked: what an operator with all server keys can do."""
    with world.database.transaction() as session:
        row = session.connection().execute(
            sqlalchemy.text("SELECT digest FROM handover WHERE consent_id = :id AND key_kind = 'raw'"),
            {"id": version.consent_id},
        )
        digest = row.scalar_one()
        name = short_key_store.handover_key(digest)
        chain = Chain((), parse_handover(encoded)).encoded
        locked = lock_short(short_key_store.read(world.shortkeys, [name])[name], chain, version.consent_id)
        session.connection().execute(
            sqlalchemy.text("UPDATE handover SET locked = :locked WHERE digest = :digest"),
            {"locked": locked, "digest": digest},
        )


@pytest.mark.parametrize(("kind", "decide"), [(ConsentKind.SELF, refresh_permit), (ConsentKind.COHORT, train_permit)])
def test_seeds_open_for_the_work_that_was_consented(world: World, kind: ConsentKind, decide: object) -> None:
    version = world.give(kind)
    compartment = world.owner.compartment()
    opened = seeds(world, decide(world, version))  # type: ignore[operator]  # one of two functions of one form
    assert opened == {compartment.id: world.seed(compartment)}


def test_a_question_opens_no_trace(world: World) -> None:
    world.give(ConsentKind.SELF)
    with pytest.raises(KeysRefused, match="never to answer"):
        seeds(world, ask_permit(world, world.give()))


def test_only_the_permitted_categories_and_months_come_out(world: World) -> None:
    both = frozenset({BREAD, HEALTH})
    version = world.give(ConsentKind.SELF, necessary=both, explicit_special=frozenset({HEALTH}))
    assert set(seeds(world, refresh_permit(world, version))) == {world.owner.compartment(BREAD).id}
    assert len(seeds(world, refresh_permit(world, version, categories=both))) == 2
    other_month = replace(refresh_permit(world, version), data_from=Period("2026-12"), data_to=Period("2026-12"))
    assert seeds(world, other_month) == {}


def test_withdrawn_keys_are_gone(world: World) -> None:
    version = world.give(ConsentKind.SELF)
    permit = refresh_permit(world, version)
    world.withdraw(version)
    with pytest.raises(KeysGone):
        seeds(world, permit)


def test_a_deleted_short_key_closes_a_restored_row(world: World) -> None:
    """A backup of the main database brings the row back; without its short key it stays shut."""
    version = world.give(ConsentKind.SELF)
    permit = refresh_permit(world, version)
    restore = "SELECT locked FROM handover WHERE key_kind = 'raw'"
    with world.database.snapshot() as session:
        backup = session.connection().execute(sqlalchemy.text(restore)).scalar_one()
    world.withdraw(version)
    with world.database.transaction() as session:
        session.connection().execute(
            sqlalchemy.text("UPDATE handover SET live = TRUE, locked = :locked WHERE key_kind = 'raw'"),
            {"locked": backup},
        )
    with pytest.raises(KeysGone):
        seeds(world, permit)


def test_keys_end_with_their_handover(world: World) -> None:
    version, _ = world.first(ConsentKind.SELF)
    short = world.handover(KeyKind.RAW, version, not_after_s=version.terms.not_before + 60)
    imprint = world.handover(KeyKind.IMPRINT, version)
    world.give_this(world.submission(version, handovers=(short, imprint)))
    permit = refresh_permit(world, version)
    assert seeds(world, permit, seconds=59)
    for late in (60, -1):
        with pytest.raises(KeysRefused, match="at this time"):
            seeds(world, permit, seconds=late)


def test_a_wrong_seed_inside_an_honest_looking_handover_is_detected(world: World) -> None:
    version, _ = world.first(ConsentKind.SELF)
    wrong = {world.owner.compartment().id: new_seed()}
    raw = world.handover(KeyKind.RAW, version, keys=wrong)
    world.give_this(world.submission(version, handovers=(raw, world.handover(KeyKind.IMPRINT, version))))
    with pytest.raises(SealError, match="public key in the ring"):
        seeds(world, refresh_permit(world, version))


def test_a_handover_of_another_consent_or_kind_swapped_in_is_refused(world: World) -> None:
    version, other = world.give(ConsentKind.SELF), world.give(ConsentKind.COHORT)
    permit = refresh_permit(world, version)
    for encoded in (world.handover(KeyKind.RAW, other), world.handover(KeyKind.IMPRINT, version, to=world.processor)):
        swap(world, version, encoded)
        with pytest.raises(KeysRefused, match="another consent"):
            seeds(world, permit)


def test_a_handover_of_another_vault_or_identity_swapped_in_is_refused(world: World) -> None:
    version = world.give(ConsentKind.SELF)
    permit = refresh_permit(world, version)
    stranger = begin(world.database, world.shortkeys)[0]
    for encoded in (
        world.handover(KeyKind.RAW, version, owner=stranger),
        world.handover(KeyKind.RAW, version, signer=stranger.key),
        world.handover(KeyKind.RAW, version, to=Identity(new_seed())),
    ):
        swap(world, version, encoded)
        with pytest.raises(SealError):
            seeds(world, permit)


def test_another_identity_opens_nothing(world: World) -> None:
    version = world.give(ConsentKind.SELF)
    permit = refresh_permit(world, version)
    with pytest.raises(SealError, match="another identity"), world.database.snapshot() as session:
        Processor(Held((world.serving,)), world.shortkeys, world.operator.public_key).seeds(session, permit, NOW)


def test_a_locked_handover_under_another_consents_name_does_not_open(world: World) -> None:
    version, other = world.give(ConsentKind.SELF), world.give(ConsentKind.COHORT)
    with world.database.transaction() as session:
        session.connection().execute(
            sqlalchemy.text("DELETE FROM handover WHERE consent_id = :id"), {"id": version.consent_id}
        )
        session.connection().execute(
            sqlalchemy.text("UPDATE handover SET consent_id = :id WHERE consent_id = :other"),
            {"id": version.consent_id, "other": other.consent_id},
        )
    with pytest.raises(SealError):
        seeds(world, refresh_permit(world, version))


def test_a_public_key_swapped_in_the_lookup_table_is_not_believed(world: World) -> None:
    """The processor reads the owner-signed page: the database cannot tell it which keys are right."""
    version, _ = world.first(ConsentKind.SELF)
    compartment = world.owner.compartment()
    evil = new_seed()
    raw = world.handover(KeyKind.RAW, version, keys={compartment.id: evil})
    world.give_this(world.submission(version, handovers=(raw, world.handover(KeyKind.IMPRINT, version))))
    with world.database.transaction() as session:
        session.connection().execute(
            sqlalchemy.text("UPDATE compartment SET public_key = :key WHERE compartment_id = :id"),
            {"key": Identity(evil).recipient.public, "id": compartment.id},
        )
    with pytest.raises(SealError, match="public key in the ring"):
        seeds(world, refresh_permit(world, version))


def test_a_forged_ring_page_in_the_database_is_refused(world: World) -> None:
    version = world.give(ConsentKind.SELF)
    permit = refresh_permit(world, version)
    page, _ = world.owner.pages[version.terms.data_from]
    other = Page(page.vault, page.version + 1, b"p" * 32, page.period, {})
    forged = world.owner.sign_page(other).encoded
    with world.database.transaction() as session:
        session.connection().execute(sqlalchemy.text("UPDATE ring_page SET envelope = :page"), {"page": forged})
    with pytest.raises(SealError, match="not the one that the ring head names"):
        seeds(world, permit)
    assert ConsentId(version.consent_id) == permit.consent_id
