"""Whether a visit ends in a purchase: answered from the visit alone, under consent, quota, certificate and log."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.answer_kit import Service, answer_in, slug_of
from tests.answers.test_ask import events
from tests.answers.test_invariant_7 import Pair, another, put_equal, same_work, watched
from tests.consent_kit import PURPOSE
from tests.twin.worker_kit import OCTOBER, RETAIL
from tests.vault_kit import PURCHASE
from vault.answers import ask as asking
from vault.clock import unix_s
from vault.consent.restoring import end_again
from vault.encoding import JsonObject, b64u
from vault.imprint import funnel
from vault.proof.certificate import VISITS, CertificateInvalid, verify_certificate
from vault.proof.verify import verify_bundle
from vault.schema.answer import Confidence, Prediction
from vault.schema.consent import ConsentEvent
from vault.schema.question import NextChoice, Propensity, QuestionKind
from vault.schema.session import Session, Visitor
from vault.seal.signing import SigningKey, new_seed
from vault.twin import release
from vault.twin.funnel import foretell, shipped

BROWSING = Session(product_pages=3, product_s=60, exit_rate_ppm=120_000, bounce_rate_ppm=80_000, month=3)
BUYING = Session(
    administrative_pages=4, administrative_s=120, product_pages=40, product_s=1_800, exit_rate_ppm=10_000,
    page_value_milli=40_000, month=11, visitor=Visitor.NEW,
)  # fmt: skip
ASKED = frozenset({QuestionKind.PROPENSITY})


def about(session: Session) -> Propensity:
    return Propensity(PURCHASE, PURPOSE, session)


@pytest.fixture
def shop(quick: Service) -> Service:
    """Return a service with the shipped head, as if it had been trained that day."""
    head, manifest = shipped()
    with quick.database.transaction() as session:
        release.publish(session, head, replace(manifest, trained_at=unix_s(quick.clock.at)), quick.worker_key)
    return quick


def test_an_answer_gives_the_probability_of_a_purchase_and_verifies(shop: Service) -> None:
    consent = shop.consent(questions=ASKED)
    given = {}
    for session in (BROWSING, BUYING):
        answer, bundle = answer_in(shop.ask(consent, about(session)))
        assert verify_bundle(bundle, shop.trust).failures == ()
        assert answer.kind is QuestionKind.PROPENSITY
        assert answer.releases == frozenset(), "no row of the person was read"
        (given[session],) = answer.predictions
        assert answer.predictions == foretell(shipped()[0], session).predictions
    assert {prediction.code for prediction in given.values()} == {"purchase"}
    assert given[BROWSING].score_ppm < 100_000
    assert given[BUYING].score_ppm > 400_000
    logged = events(shop, "answer")
    assert [one["public"]["question_kind"] for one in logged] == ["propensity"] * 2
    assert logged[-1]["quota_left"] == consent.terms.quota_per_month - 2


def test_a_visit_without_a_page_is_abstained_about(shop: Service) -> None:
    answer, bundle = answer_in(shop.ask(shop.consent(questions=ASKED), about(Session(month=5))))
    assert answer.abstained
    assert answer.confidence is Confidence.NONE
    assert verify_bundle(bundle, shop.trust).failures == ()


def test_what_a_restored_backup_forgot_was_narrowed_away_is_not_answered(shop: Service) -> None:
    """No key is opened for this answer, so that keys that are gone do not keep it from being given."""
    consent = shop.consent(questions=ASKED)
    answer_in(shop.ask(consent, about(BUYING)))
    narrowed: JsonObject = {"consent": b64u(consent.consent_id), "version": consent.version + 1}
    with shop.database.transaction() as session:
        end_again(
            session, [({"event_state": ConsentEvent.NARROWED.state}, narrowed, b"")], service=shop.worker_key,
            now=shop.clock.at,
        )  # fmt: skip
    assert slug_of(shop.ask(consent, about(BUYING))) == "keys-gone"


def test_a_consent_that_does_not_name_the_kind_refuses_it(shop: Service) -> None:
    consent = shop.consent(questions=frozenset({QuestionKind.NEXT_CHOICE}))
    assert slug_of(shop.ask(consent, about(BUYING))) == "not-covered"
    assert events(shop, "denial")[-1]["rules"] == ["question-not-covered"]
    only = shop.consent(questions=ASKED)
    assert slug_of(shop.ask(only, NextChoice(PURCHASE, PURPOSE, 3))) == "not-covered"


def test_no_head_without_a_certificate_answers(quick: Service) -> None:
    consent = quick.consent(questions=ASKED)
    nothing = quick.ask(consent, about(BUYING))
    assert (slug_of(nothing), "has trained one" in nothing.json()["detail"]) == ("no-certified-model", True)
    head, manifest = shipped()
    stale = replace(manifest, trained_at=unix_s(quick.clock.at - timedelta(days=401)))
    with quick.database.transaction() as session:
        release.publish(session, head, stale, quick.worker_key)
        release.publish(session, head, replace(manifest, trained_at=unix_s(quick.clock.at)), SigningKey(new_seed()))
    lapsed = quick.ask(consent, about(BUYING))
    assert (slug_of(lapsed), "operator models list" in lapsed.json()["detail"]) == ("no-certified-model", True)


def test_the_shipped_head_has_a_certificate_that_holds() -> None:
    head, manifest = shipped()
    assert manifest.model_sha256 == head.digest
    trained_at = datetime.fromtimestamp(manifest.trained_at, UTC)
    verify_certificate(manifest, trained_at)
    with pytest.raises(CertificateInvalid, match="too long ago"):
        verify_certificate(manifest, trained_at + timedelta(days=401))
    assert manifest.map_sha256 == head.map_digest == funnel.DIGEST
    assert funnel.DIGEST in VISITS


def test_an_answer_that_names_something_else_does_not_verify(shop: Service) -> None:
    consent = shop.consent(questions=ASKED)
    real = foretell(shipped()[0], BUYING)
    for codes in (["completejourney:bread"], ["purchase", "more"]):
        forged = replace(real, predictions=tuple(Prediction(code, 400_000 - at) for at, code in enumerate(codes)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asking, "foretell", lambda *_, forged=forged: forged)
            _, bundle = answer_in(shop.ask(consent, about(BUYING)))
        assert [failure.step.name for failure in verify_bundle(bundle, shop.trust).failures] == ["QUESTION"]


def test_what_the_person_left_behind_changes_neither_bytes_nor_work(shop: Service) -> None:
    rich, empty = another(shop), another(shop)
    put_equal({OCTOBER: RETAIL.day_vector([RETAIL.codes[3]]) * 9}, rich)  # unequal rows: none is read
    for day in range(1, 15):
        rich.buy(RETAIL.codes[day], day=day)
    pair = Pair(rich, empty)
    answer_in(shop.ask(shop.consent(questions=ASKED), about(BUYING)))
    with watched(shop, pair.works):
        pair.consent(questions=ASKED)
        first, second = pair.masked(pair.ask(about(BUYING)))
    assert first[0] == 200
    assert first == second
    same_work(*pair.works)
