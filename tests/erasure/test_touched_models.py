"""A certificate of erasure names every shared model that may have learned from what is gone, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.answer_kit import running
from tests.erasure_kit import Erasing
from tests.twin.test_release import trained
from tests.vault_kit import MONTH, PURCHASE
from vault.db import Database
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind
from vault.seal.dsse import parse_envelope
from vault.seal.erasure import Scope, verify_certificate
from vault.twin import release

HEALTH = Category("pd:Health")
BOTH = frozenset({PURCHASE, HEALTH})


@pytest.fixture
def site(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Erasing]:
    with running(Erasing(sqlite_database, shortkeys, (PURCHASE, HEALTH), keyring=tmp_path / "keyring")) as found:
        assert isinstance(found, Erasing)
        yield found


def released(site: Erasing, offset: float) -> bytes:
    """Release a model that was trained on people; return what names it."""
    made = trained(offset)
    with site.database.transaction() as session:
        release.publish(session, *made, site.worker_key)
    return made[1].digest


def touched(site: Erasing, category: Category) -> list[bytes]:
    """Erase the month of a category; return the models that the certificate names."""
    done = site.erase(Scope(site.owner.vault, (site.owner.compartment(category, MONTH).id,)))
    said = verify_certificate(parse_envelope(done.certificate), site.service.public_key)
    return [model.manifest for model in said.models]


def test_a_model_is_named_that_learned_from_it_before_the_consent_was_narrowed(site: Erasing) -> None:
    released(site, 0.1)
    given = site.give(ConsentKind.COHORT, necessary=BOTH, explicit_special=frozenset({HEALTH}))
    learned = released(site, 0.2)
    narrow = replace(given.terms, necessary=frozenset({PURCHASE}), explicit_special=frozenset())
    narrowed = site.next(given, ConsentEvent.NARROWED, terms=narrow)
    site.amend(narrowed)
    begun = released(site, 0.3)  # whose training may have begun before
    site.withdraw(narrowed)
    released(site, 0.4)
    assert touched(site, HEALTH) == [learned, begun]
    assert touched(site, PURCHASE) == [learned, begun]


def test_no_model_is_named_that_was_handed_no_key_to_it(site: Erasing) -> None:
    given = site.give(ConsentKind.COHORT, necessary=BOTH)
    first = released(site, 0.1)
    site.amend(site.next(given, ConsentEvent.RENEWED, terms=replace(given.terms, explicit_special=frozenset({HEALTH}))))
    second = released(site, 0.2)
    assert touched(site, HEALTH) == [second]
    assert touched(site, PURCHASE) == [first, second]
