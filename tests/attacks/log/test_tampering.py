"""Whatever is done to database, files, notes, keys or history, somebody who does not trust the service notices.

An outsider has the files but no key. An insider is the service itself: it signs whatever it likes with
the log's key, so that its own checks pass; then the verifier finds what does not fit together, and the
witness and everybody who saw an earlier checkpoint that history changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Final

import pytest

from tests.attacks.log import insider, outsider, published
from tests.attacks.log.world import Tampered, World, lived
from vault.proof.report import Step

Attack = Callable[[Tampered], None]


@pytest.fixture(scope="module")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with lived(sqlite_template, tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def tampered(world: World, tmp_path: Path) -> Tampered:
    return Tampered.copy(world, tmp_path)


S = Step
OUTSIDER: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    outsider.entry_changed: ({"boot", "files"}, {S.INCLUSION}),
    outsider.answer_deleted: ({"boot", "files"}, set()),
    outsider.denial_deleted: ({"boot", "files"}, set()),
    outsider.withdrawal_deleted: ({"boot", "files"}, set()),
    outsider.two_leaves_swapped: ({"boot", "files"}, {S.INCLUSION}),
    outsider.leaf_added_unsigned: ({"boot"}, set()),
    outsider.leaf_inserted_unsigned: ({"boot", "files"}, {S.INCLUSION}),
    outsider.head_shortened: ({"boot"}, set()),
    outsider.edge_changed: ({"boot"}, set()),
    outsider.head_signed_by_another_key: ({"boot", "files", "verifier"}, {S.CHECKPOINT}),
    outsider.head_signature_flipped: ({"boot", "files", "verifier"}, {S.CHECKPOINT}),
    outsider.head_of_another_size: ({"boot", "files", "verifier", "witness"}, {S.CHECKPOINT}),
    outsider.public_opening_changed: ({"verifier"}, {S.OPENINGS}),
    outsider.personal_opening_changed: ({"verifier"}, {S.OPENINGS}),
    outsider.salt_changed: ({"verifier"}, {S.OPENINGS}),
    outsider.opening_taken_from_another_leaf: ({"verifier"}, {S.OPENINGS}),
    outsider.denial_shut: ({"verifier"}, {S.ERASURE}),
    outsider.withdrawal_shut: ({"verifier"}, {S.ERASURE, S.ORDER}),
    outsider.answer_shut: ({"verifier"}, {S.ERASURE}),
    outsider.flood_denial_deleted: ({"verifier"}, {S.GROUPS}),
    outsider.flood_denial_shut: ({"verifier"}, {S.GROUPS}),
    outsider.flood_denial_exchanged: ({"verifier"}, {S.GROUPS}),
    outsider.policy_set_swapped: ({"verifier"}, {S.DECISION}),
    outsider.manifest_signed_again: ({"verifier"}, {S.CERTIFICATE}),
    outsider.key_statement_by_another_operator: ({"verifier"}, {S.KEYS}),
    outsider.consent_widened: ({"verifier"}, {S.CONSENT}),
}
INSIDER: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    insider.answer_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    insider.denial_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    insider.withdrawal_removed: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    insider.last_leaves_cut_off: ({"anchor", "files", "witness"}, set()),
    insider.answer_inserted_late: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    insider.answered_after_the_withdrawal: ({"verifier"}, {S.ORDER}),
    insider.answered_dated_back: ({"verifier"}, {S.TIME}),
    insider.answered_for_another_purpose: ({"verifier"}, {S.DECISION}),
    insider.answered_by_an_unpublished_model: ({"verifier"}, {S.CERTIFICATE}),
    insider.answered_by_unpublished_rules: ({"verifier"}, {S.DECISION}),
    insider.answered_without_a_decision: ({"verifier"}, {S.DECISION}),
    insider.answered_somebody_else: ({"verifier"}, {S.DECISION}),
    insider.denied_for_another_reason: ({"anchor", "files", "witness", "verifier"}, {S.DECISION, S.WITNESSES}),
    insider.rewritten_without_its_chain: ({"anchor", "files", "witness", "verifier"}, {S.ORDER, S.WITNESSES}),
    insider.rewritten_with_another_quota: ({"anchor", "files", "witness", "verifier"}, {S.QUOTA, S.WITNESSES}),
    insider.answered_without_counting: ({"verifier"}, {S.QUOTA}),
    insider.answered_by_a_withdrawn_model: ({"verifier"}, {S.CERTIFICATE}),
    insider.published_with_a_lower_epsilon: ({"verifier"}, {S.LEDGER}),
    insider.published_twice_and_charged_once: ({"verifier"}, {S.LEDGER}),
    insider.trained_beyond_the_cap_of_the_year: ({"verifier"}, {S.LEDGER}),
    insider.training_charged_too_little: ({"anchor", "files", "witness", "verifier"}, {S.LEDGER, S.WITNESSES}),
    insider.released_for_too_little: ({"verifier"}, {S.LEDGER}),
    insider.released_beyond_the_cap_of_a_day: ({"verifier"}, {S.LEDGER}),
    insider.flood_counted_lower: ({"anchor", "files", "witness", "verifier"}, {S.WITNESSES}),
    insider.flood_counted_higher: ({"anchor", "files", "witness", "verifier"}, {S.GROUPS, S.WITNESSES}),
    insider.flood_of_another_company: ({"anchor", "files", "witness", "verifier"}, {S.GROUPS, S.WITNESSES}),
    insider.begun_anew: ({"anchor", "files", "witness"}, set()),
    insider.set_back_whole: ({"anchor", "files", "witness"}, set()),
}
FILES: Final[dict[Attack, tuple[set[str], set[Step]]]] = {
    published.tile_flipped: ({"files"}, set()),
    published.entries_flipped: ({"files"}, set()),
    published.entries_shortened: ({"files"}, set()),
    published.published_head_forged: ({"files"}, set()),
    published.published_head_of_a_longer_log: ({"files"}, set()),
    published.anchor_of_another_log: ({"anchor"}, set()),
}
ATTACKS: Final = {attack.__name__: (attack, *expected) for attack, expected in (OUTSIDER | INSIDER | FILES).items()}


def test_an_untouched_copy_is_noticed_by_nobody(tampered: Tampered) -> None:
    assert tampered.caught() == (set(), set())
    assert tampered.head() == tampered.world.checkpoint


def test_what_the_insider_could_honestly_have_logged_is_noticed_by_nobody(tampered: Tampered) -> None:
    insider.answered_again_rightly(tampered)
    assert tampered.caught() == (set(), set())


def test_there_are_at_least_thirty() -> None:
    assert len(ATTACKS) >= 30


def test_every_attack_is_tried() -> None:
    made = {
        attack
        for module in (outsider, insider, published)
        for name, attack in vars(module).items()
        if isinstance(attack, FunctionType) and attack.__module__ == module.__name__ and not name.startswith("_")
    }
    assert made - {insider.answered_again_rightly} == OUTSIDER.keys() | INSIDER.keys() | FILES.keys()


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_noticed(tampered: Tampered, name: str) -> None:
    attack, by, steps = ATTACKS[name]
    attack(tampered)
    noticed, failed = tampered.caught()
    assert by <= noticed, f"{by - noticed} did not notice; {noticed} did"
    assert steps <= failed
