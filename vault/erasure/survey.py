"""What an erasure would destroy, and which models may have learned from it: the preview, and the certificate's counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session

from vault.answers import records
from vault.consent import consents, handovers
from vault.consent.consents import Consent
from vault.db import Database
from vault.schema.category import Category
from vault.schema.terms import ConsentKind
from vault.seal.erasure import Counted, Scope, TouchedModel
from vault.seal.ids import CompartmentId, ConsentId
from vault.seal.ring import Compartment
from vault.store import batches, rings
from vault.twin import rows


@dataclass(frozen=True)
class Survey:
    """What lies in a scope.

    Args:
        compartments: Those that nobody erased yet.
        consents: Whose keys open some of it: they lose their keys, or everything.
        counts: How many of each.
        models: Released models that may have learned from it.
    """

    compartments: Mapping[CompartmentId, Compartment]
    consents: tuple[ConsentId, ...]
    counts: Mapping[Counted, int]
    models: tuple[TouchedModel, ...]


def survey(session: Session, short_keys: Database, scope: Scope) -> Survey:
    """Look at what an erasure would destroy.

    Args:
        session: Any transaction; to destroy exactly this, the one that holds the vault's locks.
        short_keys: Database of the short keys.
        scope: What is to be erased.
    """
    found = rings.listed(session, scope.vault)
    if scope.compartments is not None:
        found = {name: found[name] for name in scope.compartments if name in found}
    own = consents.list_for(session, scope.vault)
    if scope.whole:
        named = tuple(consent.consent_id for consent in own)
    else:
        live = [consent for consent in own if consent.live]
        named = tuple(one.consent_id for one in live if _opens(session, short_keys, one, set(found)))
    counts = {
        Counted.COMPARTMENTS: len(found),
        Counted.BATCHES: sum(map(len, batches.digests(session, scope.vault, found).values())),
        Counted.ROWS: rows.count(session, scope.vault, None if scope.whole else found),
        Counted.CONSENTS: len(named),
        Counted.ANSWERS: records.count(session, named) if scope.whole else 0,
    }
    return Survey(found, named, counts, _touched(session, own, {c.category for c in found.values()}))


def _opens(session: Session, short_keys: Database, consent: Consent, wanted: set[CompartmentId]) -> bool:
    held = handovers.compartments(session, short_keys, consent.consent_id, consent.current.version)
    return not wanted.isdisjoint(held)


def _touched(session: Session, own: list[Consent], categories: set[Category]) -> tuple[TouchedModel, ...]:
    """Return trained models that were released under a cohort consent, since it first handed over keys to these categories.

    One that was narrowed since counts until it ends: what was learned before, or was being learned, stays learned.
    """
    from vault.twin import release  # noqa: PLC0415  it brings torch, which takes every operator's command seconds to load

    spans = []
    for consent in own:
        if consent.current.terms.kind is ConsentKind.COHORT:
            versions = consents.history(session, consent.consent_id)
            handed = [one.leaf_id for one in versions if consents.parse(one).terms.usable & categories]
            spans += [(first, None if consent.live else versions[-1].leaf_id) for first in handed[:1]]
    return tuple(
        TouchedModel(model.manifest.digest, model.manifest.epsilon_ppm, model.manifest.delta_inverse)
        for model in release.trained(session)
        if any(first < model.leaf_id and (end is None or model.leaf_id < end) for first, end in spans)
    )
