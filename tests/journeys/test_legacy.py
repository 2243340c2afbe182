"""A legacy from plan to freeze, and back: over HTTP, with the shipped app's own jobs, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from tests.client_kit import company_terms, json_answer
from tests.family_kit import DAY, SESSION, Family, Moved, kinds, told, wait_for, waiting_for_locks
from tests.http_kit import PURPOSE, QUESTION, House, new_databases, serving, slug
from tests.waiting import together, until
from twinvault.api import ApiError
from twinvault.consents import NothingToGive
from twinvault.erasures import ForgedCertificate
from twinvault.executor import NotThePlan
from twinvault.history import read_history
from twinvault.legacy import NotHeeded
from twinvault.receipts import NoReceipt
from twinvault.shares import BadShare, dump_share
from twinvault.signin import SignedIn
from vault.clock import unix_s
from vault.consent import consents
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.legacy import legacies, steps
from vault.parties import people
from vault.proof.bundle import parse_bundle
from vault.proof.report import Step
from vault.proof.verify import verify_bundle
from vault.schema.category import Purpose
from vault.schema.consent import ConsentEvent, parse_consent
from vault.seal.advance import unlock_advance
from vault.seal.dsse import unverified_record
from vault.seal.erasure import Author, Counted
from vault.seal.errors import SealError
from vault.seal.ids import ConsentId, new_id
from vault.seal.legacy import Choice
from vault.seal.person import Role
from vault.seal.signing import new_seed


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    sqlite = request.param == "sqlite"
    urls = (None, None) if sqlite else new_databases(request.getfixturevalue("postgresql_server"))
    with pytest.MonkeyPatch.context() as often:
        often.setattr(legacies, "EVERY_S", 0.1)
        with serving(tmp_path_factory.mktemp("legacy"), *urls) as house:
            clock = Moved()
            house.service.app.state.clock = house.clock = clock
            yield Family(house, clock)


@pytest.fixture
def family(served: Family) -> Iterator[Family]:
    """The house and its clock, which only goes on, as a test finds it."""
    yield served
    served.house.sent.rules.clear()


def test_enough_executors_freeze_a_vault_whose_owner_is_gone(family: Family) -> None:
    owner = family.owner()
    shares = owner.legacy.plan(threshold=2, shares=3, waiting_days=30)
    alone, two = family.executor(shares[2]), family.executor(shares[0], shares[2])
    assert alone.look().state == "ready"
    with pytest.raises(BadShare):
        alone.declare()
    with pytest.raises(ApiError, match="signed in"):
        two.declare()
    family.clock.by += SESSION
    assert two.declare("We buried her on Monday.").state == "waiting"
    family.clock.by += 29 * DAY
    assert alone.look().state == "waiting"
    family.clock.by += DAY
    wait_for("in-force", alone)
    with family.house.database.snapshot() as session:
        assert people.get(session, owner.vault).state == "frozen"
    # The owner comes back: this ends it, and only the owner's own order unfreezes.
    assert owner.frozen()
    found = told(owner, "legacy-veto")
    assert kinds(found) == ["legacy-plan", "legacy-claim", "legacy-force", "freeze", "legacy-veto"]
    owner.freeze(frozen=False)
    assert not owner.frozen()
    assert alone.look().state == "ended"
    data, report = alone.bundle()
    assert (report.failures, report.checked[Step.LEGACY]) == (
        (),
        5,
    )  # the freeze too; what the owner ordered is not shown
    other = replace(family.house.service.trust, issuer="https://another.example")
    assert {failure.step for failure in verify_bundle(parse_bundle(data), other).failures} == {Step.LEGACY}


def test_an_owner_who_signs_in_stops_it_and_is_told(family: Family) -> None:
    owner = family.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    family.clock.by += SESSION
    two = family.executor(*shares)
    two.declare()
    family.clock.by += 7 * DAY - timedelta(seconds=5)
    _, claimed, stopped = told(owner, "legacy-veto")
    assert "sign in, and it stops" in claimed["sentence"]
    assert "make a new plan" in stopped["sentence"]
    assert two.look().state == "ended"
    family.clock.by += SESSION + DAY
    with pytest.raises(ApiError, match="ended"):
        two.declare()
    assert not owner.frozen()
    own = owner.legacy.read()
    assert own is not None
    assert own.state == "ended"


def test_the_owners_program_tells_of_it_without_stopping_it(family: Family) -> None:
    owner = family.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    watcher = SignedIn(family.house.service.trust, owner.vault, owner._keys.signer, Role.WATCHER)
    path, api = f"/v1/vaults/{b64u(owner.vault)}", family.house.api()
    assert read_history(api, watcher, path, -1)
    family.clock.by += SESSION
    two = family.executor(*shares)
    two.declare()
    family.clock.by += DAY
    assert read_history(api, watcher, path, -1)[-1]["kind"] == "legacy-claim"
    assert api.get(f"{path}/history/ending", auth=watcher)["ending"] == []
    assert two.look().state == "waiting"
    for refused in ("consents", "ring", "account", "legacy", "person", "twin", "budget"):
        with pytest.raises(ApiError) as refusal:
            api.get(f"{path}/{refused}", auth=watcher)
        assert refusal.value.slug == "wrong-role", refused
    with pytest.raises(ApiError) as refusal:
        api.get(f"/v1/vaults/{b64u(new_id())}/history", auth=watcher)
    assert refusal.value.slug == "unknown-vault"
    assert two.look().state == "waiting"


def test_shares_of_a_plan_that_was_replaced_or_withdrawn_are_good_for_nothing(family: Family) -> None:
    owner = family.owner()
    assert owner.legacy.read() is None
    with pytest.raises(ApiError, match="no legacy plan"):
        owner.legacy.withdraw()
    old = owner.legacy.plan(threshold=2, shares=2, waiting_days=30)
    new = owner.legacy.plan(threshold=2, shares=2, waiting_days=60, choice=Choice.ERASE)
    family.clock.by += SESSION
    with pytest.raises(ApiError, match="changed or withdrew"):
        family.executor(*old).declare()
    with pytest.raises(BadShare):
        family.executor(new[0], replace(old[1], legacy_key=new[1].legacy_key)).declare()
    with pytest.raises(BadShare):
        family.executor(new[0], old[1]).declare()
    seen = family.executor(new[0]).look()
    assert (seen.plan.version, seen.terms.waiting_days, seen.terms.choice) == (2, 60, Choice.ERASE)
    owner.legacy.withdraw()
    with pytest.raises(ApiError, match="changed or withdrew"):
        family.executor(*new).look()
    assert kinds(told(owner, "legacy-plan")) == ["legacy-plan"] * 3


def test_a_service_cannot_pretend(family: Family) -> None:
    """What it shows must be the plan of the shares, signed by the owner; what it acknowledges must be in the log."""
    owner, stranger = family.owner(), family.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=30)
    other = stranger.legacy.plan(threshold=2, shares=2, waiting_days=30)
    family.clock.by += SESSION
    mine, theirs = family.executor(*shares), family.executor(*other)
    seen = theirs._api.get(theirs._path)
    with pytest.raises(VaultError):
        mine._seen(seen)
    honest = mine._api.get(mine._path)
    with pytest.raises(VaultError):
        mine._seen({**honest, "identity": seen["identity"]})
    with pytest.raises(VaultError):
        mine._seen({**honest, "identity": []})
    lying = family.executor(*(replace(share, legacy_key=new_seed()) for share in shares))
    with pytest.raises(NotThePlan):
        lying._seen(honest)
    answers: list[httpx.Response] = []

    def the_first_again(response: httpx.Response) -> httpx.Response:
        answers.append(response)
        return json_answer(answers[0].json(), 201)

    family.house.sent.on("POST", "/declarations", the_first_again)
    theirs.declare()
    with pytest.raises(NoReceipt):
        mine.declare()


@pytest.mark.parametrize("state", ["waiting", "in-force"])
def test_an_owner_notices_that_a_sign_of_life_is_not_heeded(family: Family, state: str) -> None:
    owner = family.owner()
    owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    family.house.sent.on("GET", "/legacy", lambda response: json_answer({**response.json(), "state": state}))
    with pytest.raises(NotHeeded):
        owner.legacy.read()


def test_an_owner_notices_an_older_plan(family: Family) -> None:
    owner = family.owner()
    owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    older = owner.legacy._api.get(owner.legacy._path, auth=owner._auth)
    owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    for lie in (json_answer(older), json_answer({"type": "/problems/unknown-legacy", "detail": "none"}, 404)):
        family.house.sent.rules.clear()
        family.house.sent.on("GET", "/legacy", lambda _, lie=lie: lie)
        with pytest.raises(VaultError):
            owner.legacy.read()


def test_executors_erase_everything_where_the_plan_lets_them(family: Family) -> None:
    owner = family.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ERASE)
    family.clock.by += SESSION
    two = family.executor(*shares)
    for too_early in (two.erase, lambda: two.declare() and two.erase()):
        with pytest.raises(ApiError, match="once their declaration is in force"):
            too_early()
    family.clock.by += 7 * DAY
    wait_for("in-force", two)
    sent = len(family.house.sent.sent)
    done = two.erase("As she wished.")
    assert (done.certificate.author, done.certificate.reason) == (Author.EXECUTORS, "As she wished.")
    assert done.certificate.destroyed[Counted.CONSENTS] == 1
    report = verify_bundle(parse_bundle(done.steps), two.trust)
    assert (report.failures, report.checked[Step.LEGACY]) == ((), 5)  # plan, declaration, in force, frozen, erased
    with family.house.database.snapshot() as session:
        assert people.find(session, owner.vault) is None
        assert steps.find(session, owner.vault) is None
    with pytest.raises(ApiError):
        owner.twin()
    order = next(one for one in family.house.sent.sent[sent:] if one.url.path.endswith("/erasures"))
    again = family.house.send(order)
    assert again.status_code == 201, "whoever got no answer asks again"
    assert parse_b64u(again.json()["certificate"]) == done.encoded
    assert "bundle" not in again.json(), "what proved it went with the vault"
    shown = family.house.http.get(f"/v1/erasures/{b64u(done.certificate.erasure_id)}")
    assert parse_b64u(shown.json()["certificate"]) == done.encoded
    with pytest.raises(ApiError, match="No plan in force"):
        two.erase()


def test_an_order_to_erase_that_arrives_twice_at_once_is_certified_twice(family: Family) -> None:
    """As where no answer came in time and the executor's client asks again."""
    owner, house = family.owner(), family.house
    two = family.executor(*owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ERASE))
    family.clock.by += SESSION
    two.declare()
    family.clock.by += 7 * DAY
    wait_for("in-force", two)
    order = house.sent.hold_back("POST", "/erasures", two.erase)
    with ThreadPoolExecutor(1) as pool:
        with house.database.transaction() as session:
            people.lock(session, owner.vault)
            running = pool.submit(together, *[lambda: house.send(order)] * 2)
            if not house.database.is_sqlite:  # where a second writer does not even begin
                # Not two exactly: the app's own turn at legacies may wait for the same person.
                until(lambda: waiting_for_locks(house.database) >= 2 or running.done(), "both wait for the person")
        answers = [_asked_until_logged(house, order, answer) for answer in running.result()]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["certificate"] == answers[1].json()["certificate"]


def _asked_until_logged(house: House, order: httpx.Request, answer: httpx.Response) -> httpx.Response:
    """Return the answer, or the one to asking again where a busy machine's log was late, as the answer then says."""
    if answer.status_code == 503 and slug(answer) == "log-busy":
        return until(lambda: None if (again := house.send(order)).status_code == 503 else again, "the log has it")
    return answer


def test_a_certificate_of_another_erasure_is_not_believed(family: Family) -> None:
    pairs = []
    for _ in range(2):
        owner = family.owner()
        pairs.append(family.executor(*owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ERASE)))
    family.clock.by += SESSION
    for two in pairs:
        two.declare()
    family.clock.by += 7 * DAY
    for two in pairs:
        wait_for("in-force", two)
    answers: list[httpx.Response] = []

    def the_first_again(response: httpx.Response) -> httpx.Response:
        answers.append(response)
        return json_answer(answers[0].json(), 201)

    family.house.sent.on("POST", "/erasures", the_first_again)
    pairs[0].erase()
    with pytest.raises(ForgedCertificate):
        pairs[1].erase()


def test_what_was_sealed_in_advance_answers_after_death_and_nothing_else_does(family: Family) -> None:
    owner, house = family.owner(), family.house
    shop, other = house.company("Shop", clock=family.clock), house.company("Other", clock=family.clock)
    now = unix_s(family.clock.now())
    asked_for = {"purposes": frozenset({PURPOSE, Purpose("dpv:Marketing")}), "not_after": now + 400 * 86_400}
    alive = replace(company_terms(other, owner), **{**asked_for, "post_mortem": frozenset()})
    theirs = owner.give_company(owner.read_request(other.sign_request(alive))).version.consent_id
    wanted = replace(company_terms(shop, owner), **{**asked_for, "post_mortem": frozenset({PURPOSE})})
    asked = owner.read_request(shop.sign_request(wanted))
    with pytest.raises(NothingToGive):
        owner.for_after_death(owner.read_request(other.sign_request(alive)))
    sealed = owner.seal(asked, owner.for_after_death(asked))
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ANSWER, sealed=[sealed])
    family.clock.by += SESSION
    two = family.executor(*shares)
    with pytest.raises(ApiError, match="in force"):
        two.open_sealed()
    two.declare()
    with pytest.raises(ApiError, match="in force"):
        two.open_sealed()
    assert other.ask(theirs, QUESTION).answer
    family.clock.by += 7 * DAY
    wait_for("in-force", two)
    with pytest.raises(ApiError) as refusal:
        other.ask(theirs, QUESTION)
    assert refusal.value.slug == "not-permitted"
    (given,) = two.open_sealed()
    assert two.open_sealed() == [given], "the same again changes nothing"
    assert shop.ask(given, QUESTION).answer
    for_marketing = replace(QUESTION, purpose=Purpose("dpv:Marketing"))
    with pytest.raises(ApiError):
        shop.ask(given, for_marketing)
    with pytest.raises(ApiError, match="does not let executors erase"):
        two.erase()
    two.freeze("Enough.")
    with pytest.raises(ApiError):
        shop.ask(given, QUESTION)
    # The owner is back: what executors gave is over, and what the owner gave goes on.
    assert owner.frozen()
    owner.freeze(frozen=False)
    with pytest.raises(ApiError):
        shop.ask(given, QUESTION)
    assert other.ask(theirs, QUESTION).answer
    found = [kind for kind in kinds(told(owner, "freeze")) if kind != "freeze"]
    assert found == ["legacy-plan", "legacy-claim", "legacy-force", "legacy-open", "legacy-veto"]
    assert next(one for one in owner.consents() if one.id == given).current.event is ConsentEvent.REVOKED
    _, report = two.bundle()
    assert (report.failures, report.checked[Step.LEGACY]) == ((), 8)  # the freeze, and the profile twice


def test_a_share_tells_nothing_of_what_is_sealed(family: Family) -> None:
    owner, house = family.owner(), family.house
    shop = house.company("Shop", clock=family.clock)
    wanted = replace(company_terms(shop, owner), post_mortem=frozenset({PURPOSE}))
    asked = owner.read_request(shop.sign_request(wanted))
    sealed = owner.seal(asked, owner.for_after_death(asked))
    share, _ = owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ANSWER, sealed=[sealed])
    for part in (sealed.version.payload, sealed.handover, sealed.request.encode(), sealed.version.encoded):
        assert part not in dump_share(share)
        assert all(part not in item for item in share.sealed)
    with family.house.database.snapshot() as session:
        assert consents.find(session, ConsentId(parse_consent(unverified_record(sealed.version)).consent_id)) is None
    with pytest.raises(SealError):
        unlock_advance(share.sealed[0], new_seed(), owner.vault)


def test_an_owner_who_erases_everything_leaves_no_plan(family: Family) -> None:
    owner = family.owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=30)
    owner.erasures.erase_everything()
    family.clock.by += SESSION
    for act in (family.executor(*shares).look, family.executor(*shares).declare, family.executor(*shares).bundle):
        with pytest.raises(ApiError, match="No plan in force"):
            act()
    with family.house.database.snapshot() as session:
        assert steps.find(session, owner.vault) is None
        assert steps.records(session, owner.vault) == {}
