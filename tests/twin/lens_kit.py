"""A made-up cohort's backbone that brings a lens, released as if it had been trained here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.twin.worker_kit import RETAIL_DAILY
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.imprint.features import FeatureMap
from vault.imprint.lens import Lens, make_lens, through
from vault.proof.certificate import Certificate, Manifest
from vault.proof.charge import epsilon_of
from vault.seal.signing import Signer
from vault.twin import release
from vault.twin.certify import CHARGES
from vault.twin.reader import Backbone, closed_form

GOOD = Certificate(1_000_000, 0, 4_000, 1_000_000, 0, 1_000_000, 1_000_000, 0, 1_000_000, 50_000, 0, 1_000, 100)


def with_habits(mapped: FeatureMap = RETAIL_DAILY, *, directions: int = 12, seed: int = 1) -> Backbone:
    """Return a backbone whose people differ along a few directions, and the lens of these."""
    rng, public = np.random.default_rng(seed), closed_form(mapped)
    axes = np.linalg.qr(rng.normal(size=(mapped.size - 1, directions)))[0].T.astype(np.float32)
    variance = (0.04 / np.arange(1, directions + 1)).astype(np.float32)
    lens = make_lens(public.popularity, axes, variance)
    return Backbone(mapped.digest, public.scalars, public.popularity, axes, variance, lens)


def later(model: Backbone) -> Backbone:
    """Return a backbone that was trained after another and keeps its lens."""
    return replace(model, scalars=(model.scalars + np.float32(0.125)).astype(np.float32))


def lens_of(model: Backbone) -> Lens:
    assert model.lens is not None
    return model.lens


def seen_through(model: Backbone, mapped: FeatureMap = RETAIL_DAILY) -> FeatureMap:
    """Return the map of days that are seen through a model's lens."""
    return through(mapped, lens_of(model))


def manifest_of(model: Backbone, certificate: Certificate = GOOD) -> Manifest:
    epsilon_ppm = int(np.ceil(epsilon_of(CHARGES, 1e-6) * 1e6))
    return Manifest(
        model.digest, model.map_digest, bytes(32), unix_s(NOW), 500, epsilon_ppm, 1_000_000, CHARGES, certificate
    )


def release_trained(database: Database, model: Backbone, signer: Signer) -> Manifest:
    """Release a backbone that people were charged for."""
    manifest = manifest_of(model)
    with database.transaction() as session:
        release.publish(session, model, manifest, signer)
    return manifest


def withdraw_model(database: Database, manifest: Manifest) -> None:
    with database.transaction() as session:
        release.withdraw(session, manifest.digest, "It was refuted.", now=NOW)
