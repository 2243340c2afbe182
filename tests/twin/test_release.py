"""A model answers only under a signature and a certificate that hold; the built-in one only where there is no cohort."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy

from tests.leaves import leaves
from tests.twin.worker_kit import RETAIL
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import b64u
from vault.proof.certificate import Certificate, Manifest, verify_certificate
from vault.proof.charge import epsilon_of
from vault.seal.ids import sha256
from vault.seal.signing import SigningKey, new_seed
from vault.twin import release
from vault.twin.certify import CHARGES
from vault.twin.reader import Backbone, closed_form, closed_form_manifest
from vault.twin.release import NoCertifiedModel

KEY = SigningKey(new_seed())
GOOD = Certificate(1_000_000, 0, 4_000, 1_000_000, 0, 1_000_000, 1_000_000, 0, 1_000_000, 50_000, 0, 1_000, 100)


def trained(offset: float = 0.5, certificate: Certificate = GOOD) -> tuple[Backbone, Manifest]:
    built_in = closed_form(RETAIL)
    backbone = replace(built_in, scalars=(built_in.scalars + np.float32(offset)).astype(np.float32))
    manifest = Manifest(
        model_sha256=backbone.digest,
        map_sha256=RETAIL.digest,
        code_sha256=bytes(32),
        trained_at=unix_s(NOW),
        cohort=500,
        epsilon_ppm=int(np.ceil(epsilon_of(CHARGES, 1e-6) * 1e6)),
        delta_inverse=1_000_000,
        charges=CHARGES,
        certificate=certificate,
    )
    return backbone, manifest


def publish(database: Database, made: tuple[Backbone, Manifest], key: SigningKey = KEY) -> None:
    with database.transaction() as session:
        release.publish(session, *made, key)


def current(database: Database, key: bytes = KEY.public_key, days: float = 0) -> release.Model:
    with database.snapshot() as session:
        return release.current(session, RETAIL, [key], NOW + timedelta(days=days))


def test_without_any_model_nothing_answers(database: Database) -> None:
    with pytest.raises(NoCertifiedModel) as refusal:
        current(database)
    assert refusal.value.status == 409
    assert refusal.value.retry_after_s


def test_the_newest_certified_model_answers(database: Database) -> None:
    with database.transaction() as session:
        release.publish_built_in(session, RETAIL, KEY)
    assert current(database).manifest == closed_form_manifest(RETAIL)
    publish(database, trained(0.1))
    newest = trained(0.2)
    publish(database, newest)
    found = current(database)
    assert (found.manifest, found.backbone.digest) == (newest[1], newest[0].digest)
    with database.snapshot() as session:
        public = [public for _, public, _ in leaves(session)][-1]
    assert public == {"kind": "manifest", "model": b64u(newest[1].digest), "record": b64u(sha256(found.envelope))}


def test_the_built_in_model_does_not_step_in_for_a_lapsed_one(sqlite_database: Database) -> None:
    with sqlite_database.transaction() as session:
        release.publish_built_in(session, RETAIL, KEY)
    publish(sqlite_database, trained())
    assert current(sqlite_database, days=399).manifest.cohort == 500
    with pytest.raises(NoCertifiedModel):
        current(sqlite_database, days=401)


def test_a_newer_model_without_a_valid_certificate_does_not_answer(sqlite_database: Database) -> None:
    good = trained(0.1)
    verify_certificate(good[1], NOW)
    publish(sqlite_database, good)
    publish(sqlite_database, trained(0.2, replace(GOOD, audit_lower_bound_ppm=2_000_000)))
    assert current(sqlite_database).manifest == good[1]


def test_a_manifest_by_another_key_does_not_answer(sqlite_database: Database) -> None:
    publish(sqlite_database, trained(), SigningKey(new_seed()))
    with pytest.raises(NoCertifiedModel):
        current(sqlite_database)


def test_an_answer_reads_a_models_bytes_once(sqlite_database: Database) -> None:
    for offset in (0.71, 0.72, 0.73):
        publish(sqlite_database, trained(offset))
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    sqlalchemy.event.listen(sqlite_database.engine, "before_cursor_execute", note)
    first, second = current(sqlite_database), current(sqlite_database)
    assert first.backbone is second.backbone
    assert sum("model.model" in statement for statement in asked) == 1
    assert len([statement for statement in asked if "FROM model" in statement]) == 3


def test_a_model_put_under_anothers_manifest_does_not_answer(sqlite_database: Database) -> None:
    publish(sqlite_database, trained(0.74))
    with sqlite_database.transaction() as session:
        connection = session.connection()
        connection.execute(sqlalchemy.text("DROP TRIGGER model_no_update"))
        other = release.dump_backbone(trained(0.3)[0])
        connection.execute(sqlalchemy.text("UPDATE model SET model = :other"), {"other": other})
    with pytest.raises(NoCertifiedModel):
        current(sqlite_database)


def test_a_withdrawn_model_answers_no_more_and_the_built_in_one_does_not_step_in(database: Database) -> None:
    with database.transaction() as session:
        release.publish_built_in(session, RETAIL, KEY)
    older, newer = trained(0.1), trained(0.2)
    for made in (older, newer):
        publish(database, made)
    for made in (newer, older):
        assert current(database).manifest == made[1]
        with database.transaction() as session:
            assert release.withdraw(session, made[1].digest, "It was refuted.", now=NOW) is not None
            assert release.withdraw(session, made[1].digest, "Again.", now=NOW) is None
    with pytest.raises(NoCertifiedModel):
        current(database)
    with database.snapshot() as session:
        said = [public for kind, public, _ in leaves(session) if kind == "model-withdrawn"]
        assert release.withdrawn(session) == {older[1].digest, newer[1].digest}
    assert [one["model"] for one in said] == [b64u(made[1].digest) for made in (newer, older)]
    with pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
        session.connection().execute(sqlalchemy.text("DELETE FROM model_withdrawal"))


def test_a_model_that_was_never_released_is_not_withdrawn(sqlite_database: Database) -> None:
    with pytest.raises(NoCertifiedModel), sqlite_database.transaction() as session:
        release.withdraw(session, bytes(32), "Why not.", now=NOW)
