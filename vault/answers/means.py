"""What a question is answered with: a model and what is public or the asker's own; nothing of the person's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from sqlmodel import Session

from vault.answers.asked import Asked
from vault.answers.reveals import Narrowed, narrow
from vault.imprint.features import FeatureMap
from vault.schema import session as visits
from vault.schema.category import Category
from vault.schema.question import NextChoice, Propensity, Recommend
from vault.twin import release
from vault.twin.funnel import Head
from vault.twin.reader import Backbone
from vault.twin.release import Model


@dataclass(frozen=True, slots=True)
class Choice:
    """What answers a question about codes: a backbone, which reads rows."""

    model: Model[Backbone]
    narrowed: Narrowed

    @property
    def reveals(self) -> frozenset[Category]:
        """Special categories that the answer could reveal."""
        return self.narrowed.reveals


@dataclass(frozen=True, slots=True)
class Visit:
    """What answers a question about a visit: a head, which reads the visit and no row of the person's."""

    model: Model[Head]
    session: visits.Session
    reveals: frozenset[Category] = frozenset()


Means: TypeAlias = Choice | Visit


def find_means(
    session: Session,
    asked: Asked,
    feature_map: FeatureMap,
    opted_in: frozenset[Category],
    worker_keys: Collection[bytes],
) -> Means:
    """Return what a question is answered with.

    Args:
        session: Any transaction.
        asked: The question.
        feature_map: Of its category.
        opted_in: The consent's explicit special categories.
        worker_keys: Every `processor-sign` key that the operator stated.

    Raises:
        NoCertifiedModel: No model may answer now.
    """
    match asked.question:
        case Propensity():
            return Visit(release.current_head(session, worker_keys, asked.at), asked.question.session)
        case NextChoice() | Recommend():
            narrowed = narrow(asked.question, feature_map, opted_in, asked.consent_id)
            return Choice(release.current(session, feature_map, worker_keys, asked.at), narrowed)
        case _:
            assert_never(asked.question)
