"""An owner whose key was stolen replaces it, and keeps vault, consents and twin; nobody else can, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.client_kit import PURCHASE, Service, Tamper, json_answer, purchases
from tests.waiting import until
from twinvault.api import Api, ApiError, Unreachable
from twinvault.device import Device
from twinvault.executor import Executor
from twinvault.owner import Owner
from twinvault.profile import MEMORY, Profile, RolledBack
from twinvault.receipts import NoReceipt
from twinvault.successions import WrongKit
from twinvault.terms import OWN_PURPOSE
from twinvault.vaults import WrongVault
from vault.clock import SystemClock
from vault.encoding import b64u, parse_b64u
from vault.parties import sessions
from vault.proof.bundle import parse_bundle
from vault.proof.verify import Step, verify_bundle
from vault.schema.question import NextChoice
from vault.schema.terms import ConsentKind
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.kit import RecoveryKit, new_kit
from vault.seal.person import sign_succession
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import new_device_secret

Begin = Callable[..., tuple[Owner, RecoveryKit]]


def next_kit() -> RecoveryKit:
    return new_kit(new_device_secret())


def slug(act: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as refusal:
        act()
    return refusal.value.slug


def test_with_a_new_key_everything_goes_on_and_with_the_old_one_nothing(
    new_owner: Begin, new_device: Callable[[Owner], Device], api: Api, work: Callable[[], None]
) -> None:
    thief, kit = new_owner()  # who copied profile and keys out of the owner's memory
    thief.import_traces(purchases(20))
    given = thief.give(thief.terms_for(ConsentKind.SELF, [PURCHASE])).version
    other = new_device(thief)
    new = next_kit()
    owner = Owner.succeed(Profile.load(thief.profile.folder), kit, new, api=api)
    assert owner.vault == thief.vault
    for ended in (thief.consents, thief.devices, lambda: thief.freeze(frozen=True)):
        assert slug(ended) == "sign-in-refused"
    assert slug(lambda: Owner.unlock(owner.profile, kit=kit, api=api)) == "not-stored"
    # What the former key handed over is still the owner's, and so is what was consented.
    (consent,) = owner.consents()
    assert (consent.current, consent.live) == (given, True)
    assert [one.compartments for one in owner.handed_over(consent.id)]
    owner.refresh()
    work()
    assert owner.twin()["releases"]
    assert owner.ask(NextChoice(PURCHASE, OWN_PURPOSE, 3)).answer
    # And the owner goes on: seals, publishes months, renews under the new key; other devices follow by themselves.
    assert owner.import_traces(purchases(2, month=2)).sent == 2
    other.add(purchases(3, month=2))
    assert other.flush().sent == 3
    owner.publish([PURCHASE], owner._rings.read().ring.pages)
    assert owner._rings.next_epoch([PURCHASE], min(owner._rings.read().ring.pages))
    terms = replace(given.terms, not_after=given.terms.not_after + 60)
    assert owner.renew(consent.id, terms).version.terms == terms
    again = next_kit()
    last = Owner.succeed(Profile.load(thief.profile.folder), new, again, api=api)
    assert Owner.unlock(last.profile, kit=again, api=api).devices() == last.devices()


def test_the_passphrase_goes_with_the_key_and_another_machine_follows_by_the_new_kit(
    new_owner: Begin, service: Service, api: Api, tmp_path: Path
) -> None:
    owner, kit = new_owner(passphrase="before")
    elsewhere = Owner.recover(tmp_path / "elsewhere", service.trust, kit, api=api).profile
    new = next_kit()
    owner = Owner.succeed(Profile.load(owner.profile.folder), kit, new, passphrase="after", api=api)
    assert Owner.unlock(Profile.load(owner.profile.folder), passphrase="after", api=api).vault == owner.vault
    for profile, passphrase in ((owner.profile, "before"), (elsewhere, "before"), (elsewhere, "after")):
        with pytest.raises(ApiError) as refusal:
            Owner.unlock(profile, passphrase=passphrase, api=api)
        assert "owner unlock --kit" in refusal.value.next_step
    assert Owner.unlock(elsewhere, kit=new, api=api).devices() == owner.devices()
    assert Owner.unlock(Profile.load(elsewhere.folder), passphrase="after", api=api).vault == owner.vault


def test_another_kit_replaces_nothing(new_owner: Begin, api: Api) -> None:
    owner, kit = new_owner()
    _, anothers = new_owner()
    profile, new = Profile.load(owner.profile.folder), next_kit()
    for wrong, made, error in (
        (kit, kit, WrongKit),
        (kit, replace(new, recovery_code=kit.recovery_code), WrongKit),
        (next_kit(), new, WrongKit),
        (replace(kit, next_owner_seed=new.next_owner_seed), next_kit(), WrongKit),
        (anothers, new, WrongVault),
        (next_kit(), anothers, WrongVault),
    ):
        with pytest.raises(error):
            Owner.succeed(profile, wrong, made, api=api)
    owner.consents()  # the key in force is as before
    Owner.succeed(profile, kit, new, api=api)
    with pytest.raises(WrongKit, match="made last"):
        Owner.succeed(profile, kit, next_kit(), api=api)
    with pytest.raises(WrongKit, match="the owner's already"):
        Owner.succeed(profile, new, replace(next_kit(), next_owner_seed=kit.next_owner_seed), api=api)


def test_interrupted_anywhere_it_goes_on_with_the_same_kits(new_owner: Begin, api: Api, tamper: Tamper) -> None:
    owner, kit = new_owner()
    folder, new = owner.profile.folder, next_kit()
    tamper.lose("POST", "/successions")
    with pytest.raises(Unreachable):
        Owner.succeed(Profile.load(folder), kit, new, api=api)
    owner.consents()  # nothing happened yet
    tamper.lost.clear()

    def lost(_answer: httpx.Response) -> httpx.Response:
        raise httpx.ReadError("the acknowledgement is lost")

    tamper.on("POST", "/successions", lost)
    with pytest.raises(Unreachable):
        Owner.succeed(Profile.load(folder), kit, new, api=api)
    with pytest.raises(ApiError):
        owner.consents()  # it happened
    tamper.rules.clear()
    after = Owner.succeed(Profile.load(folder), kit, new, passphrase="after", api=api)
    assert after.consents() == []
    assert Owner.unlock(Profile.load(folder), passphrase="after", api=api).vault == owner.vault
    assert Owner.succeed(Profile.load(folder), kit, new, api=api).vault == owner.vault  # as often as it takes


def test_a_service_that_acknowledges_something_else_is_not_believed(new_owner: Begin, api: Api, tamper: Tamper) -> None:
    owner, kit = new_owner()
    other, others_kit = new_owner()
    shown: list[httpx.Response] = []

    def keep(answer: httpx.Response) -> httpx.Response:
        shown.append(answer)
        return answer

    tamper.on("POST", "/successions", keep)
    Owner.succeed(other.profile, others_kit, next_kit(), api=api)
    tamper.rules.clear()
    tamper.on("POST", "/successions", lambda _: json_answer(shown[0].json()))
    with pytest.raises(NoReceipt):
        Owner.succeed(owner.profile, kit, next_kit(), api=api)


def test_who_publishes_rings_meanwhile_delays_it_only(
    new_owner: Begin, service: Service, api: Api, tamper: Tamper, tmp_path: Path
) -> None:
    thief, kit = new_owner()
    profile = Owner.recover(tmp_path / "elsewhere", service.trust, kit, api=api).profile
    tried: list[str] = []

    def faster(answer: httpx.Response) -> httpx.Response:
        if len(tried) < 2:
            tried.append("ring")
            tamper.rules, rules = [], tamper.rules  # the thief's own reading is left alone
            thief.enrol(SigningKey(new_seed()).public_key)
            tamper.rules = rules
        return answer

    tamper.on("GET", "/ring", faster)
    owner = Owner.succeed(profile, kit, next_kit(), api=api)
    assert len(tried) == 2
    assert len(owner.devices()) == 4  # the owner sees what the thief listed, and revokes it


def test_a_device_takes_no_owner_key_that_does_not_follow_and_none_from_before(
    new_owner: Begin, new_device: Callable[[Owner], Device], api: Api, tamper: Tamper
) -> None:
    owner, kit = new_owner()
    device = new_device(owner)
    device._api = api
    device.add(purchases(1))
    owner.publish([PURCHASE], [period for _, periods in device.months().items() for period in periods])
    old: list[httpx.Response] = []
    tamper.on("GET", "/ring", lambda answer: old.append(answer) or answer)  # type: ignore[func-returns-value]
    assert device.flush().sent == 1
    tamper.rules.clear()
    stranger, _ = new_owner()
    theirs = stranger._api.get(f"/v1/vaults/{b64u(stranger.vault)}/ring", auth=stranger._auth)
    device.add(purchases(2, month=1))
    for identity, error in ((theirs["identity"], SealError), ([], SealError)):
        tamper.rules.clear()
        tamper.on("GET", "/ring", lambda answer, shown=identity: json_answer({**answer.json(), "identity": shown}))
        with pytest.raises(error):
            device.flush()
    tamper.rules.clear()
    Owner.succeed(owner.profile, kit, next_kit(), api=api)
    assert device.flush().sent == 1
    device.add(purchases(3, month=1))
    tamper.on("GET", "/ring", lambda _: json_answer(old[0].json()))
    (device._profile.folder / MEMORY).unlink()  # even where only the key itself is known
    with pytest.raises(SealError, match="not among those"):
        device.flush()
    assert device.waiting == 1


def test_of_two_successions_by_one_key_a_device_believes_the_one_that_it_saw(
    new_owner: Begin, new_device: Callable[[Owner], Device], api: Api, tamper: Tamper
) -> None:
    owner, kit = new_owner()
    device = new_device(owner)
    device._api = api
    device.add(purchases(1))
    owner = Owner.succeed(owner.profile, kit, next_kit(), api=api)
    owner.publish([PURCHASE], [period for _, periods in device.months().items() for period in periods])
    assert device.flush().sent == 1
    device.add(purchases(2, month=1))

    def fork(answer: httpx.Response) -> httpx.Response:
        shown = answer.json()
        genesis = parse_envelope(parse_b64u(shown["identity"][0]))
        other = sign_succession(
            owner._keys.signer, SigningKey(new_seed()).public_key, vault_id=owner.vault, prev=genesis.digest
        )
        return json_answer({**shown, "identity": [shown["identity"][0], b64u(other.encoded)]})

    tamper.on("GET", "/ring", fork)
    with pytest.raises(RolledBack):
        device.flush()
    assert device.waiting == 1


def test_a_shown_owner_key_from_before_is_refused(new_owner: Begin, api: Api, tamper: Tamper) -> None:
    owner, kit = new_owner()
    new = next_kit()
    Owner.succeed(owner.profile, kit, new, api=api)

    def forget(answer: httpx.Response) -> httpx.Response:
        return json_answer({**answer.json(), "successions": []})

    tamper.on("GET", "", forget)  # under it the account record is nobody's
    with pytest.raises(SealError):
        Owner.unlock(owner.profile, kit=new, api=api)


def test_proofs_from_before_still_hold_and_those_from_after_follow_the_new_key(
    new_owner: Begin, service: Service, api: Api
) -> None:
    owner, kit = new_owner()
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    executor = Executor(shares, api, SystemClock())
    before, report = executor.bundle()
    assert report.failures == ()
    owner = Owner.succeed(owner.profile, kit, next_kit(), api=api)
    with service.app.state.database.transaction() as session:
        sessions.end_sessions(session, owner.vault)
    executor.declare()
    owner.history()  # signs in, by the new key
    until(lambda: executor.bundle()[1].checked[Step.LEGACY] == 3, "the sign of life is logged")
    _, report = executor.bundle()
    assert report.failures == ()
    assert verify_bundle(parse_bundle(before), service.trust).failures == ()
    found = owner.legacy.read()
    assert found is not None
    assert found.state == "ended"
    shares = owner.legacy.plan(threshold=2, shares=2, waiting_days=7)
    _, report = Executor(shares, api, SystemClock()).bundle()
    assert (report.failures, report.checked[Step.LEGACY]) == ((), 4)
