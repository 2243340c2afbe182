"""Once no consent hands keys over any more, those of the months to come are replaced: on the owner's own reckoning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.client_kit import PURCHASE, Tamper, json_answer, purchases
from twinvault.api import Unreachable
from twinvault.consents import OwnConsent
from twinvault.handed import former
from twinvault.owner import Owner
from vault.schema.category import Category
from vault.schema.consent import ConsentEvent
from vault.schema.terms import ConsentKind

HEALTH = Category("pd:Health")


def epochs(owner: Owner) -> set[int]:
    """Return which epochs of its newest months' keys a vault has: what a device seals to from now on."""
    pages = sorted(owner._rings.read().ring.pages.items())[-2:]
    return {key.epoch for _, page in pages if (key := page.current(PURCHASE)) is not None}


def given(owner: Owner, kind: ConsentKind = ConsentKind.SELF) -> OwnConsent:
    return owner.consent(owner.give(owner.terms_for(kind, [PURCHASE])).version.consent_id)  # type: ignore[arg-type]  # an id


def test_a_service_that_says_that_nothing_is_to_be_replaced_is_not_believed(owner: Owner, tamper: Tamper) -> None:
    tamper.on("POST", "/versions", lambda response: json_answer({**response.json(), "new_epoch_needed": []}, 201))
    own, cohort = given(owner), given(owner, ConsentKind.COHORT)
    assert (owner.withdraw(own.id).new_epoch, epochs(owner)) == ((), {1}), "the cohort's consent still hands them over"
    assert (owner.withdraw(cohort.id).new_epoch, epochs(owner)) == ((PURCHASE,), {2})


def test_what_broke_off_before_the_keys_were_replaced_is_done_before_anything_is_sealed(
    owner: Owner, tamper: Tamper
) -> None:
    own = given(owner)
    tamper.lose("PUT", "/ring")
    with pytest.raises(Unreachable):
        owner.withdraw(own.id)
    tamper.lost.clear()
    assert (owner.consent(own.id).live, epochs(owner)) == (False, {1})
    tamper.sent.clear()
    owner.import_traces(purchases())
    ways = [(one.method, one.url.path.rpartition("/")[2]) for one in tamper.sent]
    assert ways.index(("PUT", "ring")) < ways.index(("POST", "batches"))
    assert epochs(owner) == {2}
    owner.import_traces(purchases(2, month=2))
    assert epochs(owner) == {2}, "once is enough"
    again = given(owner)
    assert owner.withdraw(again.id).new_epoch == (PURCHASE,)
    assert epochs(owner) == {3}


def test_only_what_a_self_or_cohort_consent_hands_over_now_is_not_former(owner: Owner) -> None:
    own = given(owner)
    terms, s = own.current.terms, own.current.terms.not_after
    both = frozenset({PURCHASE, HEALTH})
    first = replace(own.current, terms=replace(terms, necessary=both, explicit_special=frozenset({HEALTH})))
    second = replace(
        own.current, version=2, prev=bytes(32), event=ConsentEvent.NARROWED, terms=replace(terms, necessary=both)
    )
    ended = replace(second, version=3, event=ConsentEvent.EXPIRED)

    def found(*versions: object, now_s: int = s - 1) -> set[str]:
        return set(former([replace(own, current=versions[-1], versions=versions)], now_s))  # type: ignore[arg-type]  # versions

    assert found(first) == set()
    assert found(first, second) == {HEALTH}, "an opt-in that was taken back"
    assert found(first, second, now_s=s) == both, "a window that is over, whether or not that was logged"
    assert found(first, second, ended) == both
    assert found(second, ended) == {PURCHASE}, "what was never handed over needs no other key"
    company = replace(
        first, terms=replace(first.terms, kind=ConsentKind.COMPANY, grantee="A" * 22), request_sha256=bytes(32)
    )
    assert found(company, replace(company, version=2, prev=bytes(32), event=ConsentEvent.WITHDRAWN)) == set()
