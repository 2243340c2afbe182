"""A consent comes with the keys it covers: no others, to no other identity, and for no longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.consent_kit import World
from tests.vault_kit import Owner
from vault.consent import handovers
from vault.consent.errors import BadHandover
from vault.consent.handovers import REQUIRED
from vault.consent.versions import Submission
from vault.db import Database
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.seal.errors import SealError
from vault.seal.handover import KeyKind
from vault.seal.identity import Identity
from vault.seal.ids import ConsentId, sha256
from vault.seal.ring import Compartment, extend_page
from vault.seal.signing import SigningKey, new_seed

BREAD, HEALTH = Category("pd:Purchase"), Category("pd:Health")


def test_a_raw_handover_under_a_company_consent_is_refused(world: World) -> None:
    version, request = world.first()
    imprint = world.handover(KeyKind.IMPRINT, version)
    raw = world.handover(KeyKind.RAW, version)
    for sent in ([raw], [imprint, raw], [raw, raw], [imprint, imprint], []):
        with pytest.raises(BadHandover, match="exactly one handover"):
            world.give_this(world.submission(version, request, handovers=tuple(sent)))


def test_raw_keys_never_go_to_the_serving_identity(world: World) -> None:
    version, _ = world.first(ConsentKind.COHORT)
    raw = world.handover(KeyKind.RAW, version, to=world.serving)
    with pytest.raises(BadHandover, match="another key"):
        world.give_this(world.submission(version, handovers=(raw,)))


def _last_bit_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


Forge = Callable[[World, Any], bytes]
FORGERIES: dict[str, Forge] = {
    "another consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, consent=ConsentId(b"x" * 16)),
    "another vault": lambda w, v: w.handover(KeyKind.IMPRINT, v, vault=b"x" * 16),
    "another signer": lambda w, v: w.handover(KeyKind.IMPRINT, v, signer=SigningKey(new_seed())),
    "another identity": lambda w, v: w.handover(KeyKind.IMPRINT, v, to=Identity(new_seed())),
    "before the consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, not_before_s=v.terms.not_before - 1),
    "after the consent": lambda w, v: w.handover(KeyKind.IMPRINT, v, not_after_s=v.terms.not_after + 1),
    "cut short": lambda w, v: w.handover(KeyKind.IMPRINT, v)[:-1],
    "altered": lambda w, v: _last_bit_flipped(w.handover(KeyKind.IMPRINT, v)),
    "empty": lambda w, v: b"",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_handover_that_is_not_this_consents_is_refused(world: World, forge: Forge) -> None:
    version, request = world.first()
    with pytest.raises((BadHandover, SealError)):
        world.give_this(world.submission(version, request, handovers=(forge(world, version),)))


def test_keys_beyond_the_consent_are_refused(database: Database, shortkeys: Database) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    version, request = world.first()
    health = world.owner.compartment(HEALTH)
    wider = world.handover(KeyKind.IMPRINT, version, compartments=[world.owner.compartment(), health])
    with pytest.raises(BadHandover, match="does not cover"):
        world.give_this(world.submission(version, request, handovers=(wider,)))
    october = Period("2026-10")
    version, request = world.first(data_from=october, data_to=october)
    handed = world.handover(KeyKind.IMPRINT, version, compartments=[world.owner.compartment()])
    envelope, certificate = world.signed(version), world.certificate(version)
    with pytest.raises(BadHandover, match="does not cover"):
        world.give_this(Submission(envelope, (handed,), certificate, request))


@pytest.mark.parametrize("kind", ConsentKind)
def test_keys_to_a_special_category_that_the_terms_do_not_allow_are_refused(
    database: Database, shortkeys: Database, kind: ConsentKind
) -> None:
    world = World(database, shortkeys, (BREAD, HEALTH))
    both, allowed = frozenset({BREAD, HEALTH}), frozenset({HEALTH})
    places = [world.owner.compartment(), world.owner.compartment(HEALTH)]
    version, request = world.first(kind, necessary=both)

    def handed(about: ConsentVersion, compartments: list[Compartment]) -> tuple[bytes, ...]:
        return tuple(world.handover(one, about, compartments=compartments) for one in sorted(REQUIRED[kind]))

    with pytest.raises(BadHandover, match=r"pd:Health, a special category .* leave its compartments out"):
        world.give_this(world.submission(version, request, handovers=handed(version, places)))
    world.give_this(world.submission(version, request, handovers=handed(version, places[:1])))

    # An opt-in comes with the keys, and they go with it.
    opted = replace(version.terms, explicit_special=allowed)
    asked = world.request(opted) if request else ""
    renewed = world.next(version, ConsentEvent.RENEWED, terms=opted)
    if request:
        renewed = replace(renewed, request_sha256=sha256(asked.encode()))
    world.amend(renewed, asked, handovers=handed(renewed, places))
    narrowed = world.next(renewed, ConsentEvent.NARROWED, terms=version.terms)
    with pytest.raises(BadHandover, match="a special category"):
        world.amend(narrowed, handovers=handed(narrowed, places))
    world.amend(narrowed, handovers=handed(narrowed, places[:1]))
    with world.database.snapshot() as session:
        held = [handovers.compartments(session, world.shortkeys, ConsentId(version.consent_id), n) for n in (1, 2, 3)]
    assert held == [frozenset(), frozenset(), frozenset({places[0].id})]


def test_a_handover_that_is_sent_once_more_is_refused_and_what_it_handed_over_stays(world: World) -> None:
    version, request = world.first()
    sent = (world.handover(KeyKind.IMPRINT, version),)
    world.give_this(world.submission(version, request, handovers=sent))
    renewed = world.next(version, ConsentEvent.RENEWED)
    with pytest.raises(BadHandover, match="seal the keys anew"):
        world.amend(renewed, handovers=sent)
    with world.database.snapshot() as session:
        handovers.read(session, world.shortkeys, ConsentId(version.consent_id), 1, KeyKind.IMPRINT)
    world.amend(renewed)
    again = world.next(renewed, ConsentEvent.RENEWED)
    with pytest.raises(BadHandover, match="seal the keys anew"):
        world.amend(again, handovers=sent)
    world.amend(again)


def test_a_compartment_that_the_ring_does_not_list_is_refused(world: World) -> None:
    version, request = world.first()
    elsewhere = Owner(root=world.owner.root, seeds=world.owner.seeds)
    page, locked = extend_page(
        None,
        bytes(32),
        vault=world.owner.vault,
        period=version.terms.data_from,
        categories=[BREAD],
        root=elsewhere.root,
    )
    world.owner.locked |= locked
    handed = world.handover(KeyKind.IMPRINT, version, compartments=list(page.compartments.values()))
    with pytest.raises(BadHandover, match="does not list"):
        world.give_this(world.submission(version, request, handovers=(handed,)))
