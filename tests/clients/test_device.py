"""A device seals and sends what it is given, loses nothing, and ends when its owner says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.client_kit import PURCHASE, Service, Tamper, json_answer, purchases
from twinvault import device as devices
from twinvault.api import Api, ApiError, Unreachable
from twinvault.device import Device, ForgedAcknowledgement
from twinvault.owner import Owner
from twinvault.rings import RevokedDevice, StillSealing, UnknownDevice
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.schema.trace import Period, Trace
from vault.seal.batch import open_batch, parse_batch, verify_batch
from vault.seal.dsse import parse_envelope, sign_record, unverified_record
from vault.seal.errors import SealError
from vault.seal.identity import Identity
from vault.seal.ids import DeviceId
from vault.seal.ring import open_seed
from vault.seal.signing import SigningKey, new_seed
from vault.seal.statement import KeyName, verify_key_statement

MONTH = Period("2026-01")


def stored(owner: Owner) -> list[Trace]:
    """What the vault holds, as only its owner can read it: every batch of every compartment, chains verified."""
    own = owner._rings.read()
    found: list[Trace] = []
    key = SigningKey(owner.profile.binary("device_seed", 32)).public_key
    for compartment in own.ring.compartments.values():
        path = f"/v1/vaults/{b64u(owner.vault)}/batches"
        answer = owner._api.get(path, auth=owner._auth, params={"compartment": b64u(compartment.id)})
        seed = open_seed(owner.vault, compartment, owner._keys.root, own.locked[compartment.id])
        head = None
        for item in answer["batches"]:
            batch = parse_batch(parse_b64u(item))
            verified = verify_batch(batch, owner.vault, compartment.recipient.key_hash, key, head)
            found += open_batch(verified, Identity(seed), compartment.category)
            head = batch.head
    return found


@pytest.fixture
def ready(owner: Owner) -> Owner:
    owner.publish([PURCHASE], [MONTH])
    return owner


def test_what_is_sent_is_stored_once_and_only_the_owner_reads_it(ready: Owner, tamper: Tamper) -> None:
    device = ready.device
    traces = purchases(50)
    assert device.add(traces) == 50
    assert device.add(traces) == 0
    counted: list[int] = []
    assert device.flush(counted.append) == devices.Flushed(50, 0)
    assert sum(counted) == 50
    assert device.flush() == devices.Flushed(0, 0)
    assert sorted(stored(ready), key=lambda t: t.occurred_at) == traces
    assert not any(b"line-2026" in request.content for request in tamper.sent)


def test_many_traces_are_split_into_uploads_on_one_chain(ready: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MAX_TRACES", 7)
    ready.device.add(purchases(20))
    assert ready.device.flush().sent == 20
    monkeypatch.setattr(devices, "MAX_SPOOL_BYTES", 10)
    ready.device.add(purchases(25))
    assert ready.device.flush().sent == 5
    assert len(stored(ready)) == 25


def test_without_a_compartment_traces_wait(ready: Owner) -> None:
    ready.device.add(purchases(3) + purchases(2, month=5, year=2016))
    assert ready.device.flush() == devices.Flushed(3, 2)
    assert ready.device.months() == {PURCHASE: {"2016-05"}}
    ready.publish([PURCHASE], [Period("2016-05")])
    assert ready.device.flush() == devices.Flushed(2, 0)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_lost_request_or_answer_loses_and_doubles_nothing(ready: Owner, tamper: Tamper, lost: str, api: Api) -> None:
    def drop(response: httpx.Response) -> httpx.Response:
        raise httpx.ReadError("connection reset")

    if lost == "answer":
        tamper.on("POST", "/batches", drop)
    else:
        tamper.on("GET", "/ring", drop)
    ready.device.add(purchases(9))
    with pytest.raises(Unreachable):
        ready.device.flush()
    tamper.rules.clear()
    ready.device.close()
    after_crash = Device(ready.profile, api)
    assert after_crash.waiting == 9
    after_crash.add(purchases(12))
    assert after_crash.flush() == devices.Flushed(12, 0)
    assert len(stored(ready)) == 12
    after_crash.close()


def test_a_closed_epoch_is_sealed_anew_to_the_newest_one(ready: Owner) -> None:
    ready.device.add(purchases(4))
    assert ready.device._seal_next()
    ready._rings.next_epoch([PURCHASE], MONTH)
    assert ready.device.flush() == devices.Flushed(4, 0)
    assert len(stored(ready)) == 4


def forge(service: Service, change: Callable[[Any], Any], signer: SigningKey | None) -> Any:
    def forged(response: httpx.Response) -> httpx.Response:
        envelope = parse_envelope(response.content)
        record = change(dict(unverified_record(envelope)))
        return httpx.Response(
            200, content=sign_record(envelope.payload_type, record, signer or service.app.state.service).encoded
        )

    return forged


@pytest.mark.parametrize("how", ["stranger", "upload", "vault", "heads", "empty", "flipped"])
def test_a_forged_acknowledgement_is_refused_and_the_traces_stay(
    ready: Owner, tamper: Tamper, service: Service, how: str
) -> None:
    zeros = b64u(bytes(32))
    heads = {b64u(bytes(16)): {"seq": 1, "head": zeros}}
    changes: dict[str, Any] = {
        "stranger": forge(service, lambda r: r, SigningKey(new_seed())),
        "upload": forge(service, lambda r: {**r, "upload": zeros}, None),
        "vault": forge(service, lambda r: {**r, "vault": b64u(bytes(16))}, None),
        "heads": forge(service, lambda r: {**r, "heads": heads}, None),
        "empty": lambda _: httpx.Response(200, content=b""),
        "flipped": lambda r: httpx.Response(200, content=r.content[:-1] + bytes([r.content[-1] ^ 1])),
    }
    tamper.on("POST", "/batches", changes[how])
    ready.device.add(purchases(3))
    with pytest.raises(VaultError) as refusal:
        ready.device.flush()
    assert isinstance(refusal.value, ForgedAcknowledgement | SealError)
    assert ready.device.waiting == 3
    tamper.rules.clear()
    assert ready.device.flush() == devices.Flushed(3, 0)


def test_a_service_key_stated_since_the_keys_were_fetched_is_found(
    ready: Owner, tamper: Tamper, service: Service
) -> None:
    def without_service(response: httpx.Response) -> httpx.Response:
        tamper.rules.clear()
        shown = response.json()["statements"]
        verified = [verify_key_statement(parse_envelope(parse_b64u(item)), service.trust.operator) for item in shown]
        known = zip(shown, verified, strict=True)
        return httpx.Response(200, json={"statements": [i for i, key in known if key.name is not KeyName.SERVICE]})

    tamper.on("GET", "/v1/keys", without_service)
    assert ready.import_traces(purchases()).sent == 3
    assert not tamper.rules


def test_a_device_that_the_ring_does_not_list_seals_nothing(ready: Owner, tamper: Tamper) -> None:
    path = f"/v1/vaults/{b64u(ready.vault)}/ring"
    answer = ready._api.get(path, auth=ready._auth)
    tamper.on("GET", "/ring", lambda _: httpx.Response(200, json={**answer, "pages": []}))
    ready.device.add(purchases(2))
    assert ready.device.flush() == devices.Flushed(0, 2)  # no page, so nothing to seal to


def test_an_older_ring_is_refused(ready: Owner, tamper: Tamper) -> None:
    path = f"/v1/vaults/{b64u(ready.vault)}/ring"
    old = ready._api.get(path, auth=ready._auth, params={"period": [MONTH]})
    ready.publish([PURCHASE], [Period("2025-12")])
    tamper.on("GET", "/ring", lambda _: httpx.Response(200, json=old))
    ready.device.add(purchases(2))
    with pytest.raises(SealError, match="older record"):
        ready.device.flush()
    assert ready.device.waiting == 2


def test_a_session_that_ended_is_opened_again(ready: Owner, service: Service) -> None:
    from vault.parties import sessions

    ready.device.add(purchases(1))
    ready.device.flush()
    with service.app.state.database.transaction() as session:
        sessions.end_sessions(session, ready.vault)
    ready.device.add(purchases(2))
    assert ready.device.flush().sent == 1
    assert ready.consents() == []


def test_a_refusal_carries_slug_status_and_sentence(ready: Owner) -> None:
    with pytest.raises(ApiError) as refusal:
        ready._api.get(f"/v1/vaults/{b64u(bytes(16))}/ring", auth=ready._auth)
    assert (refusal.value.slug, refusal.value.status) == ("not-your-vault", 403)
    assert refusal.value.detail.endswith(".")


def test_a_revoked_device_seals_nothing_more_and_keeps_what_was_acknowledged(owner: Owner) -> None:
    owner.import_traces(purchases())
    (mine,) = owner.devices()
    assert mine.accepted is None
    revoked = owner.revoke_device(mine.id)
    assert revoked.accepted is not None
    assert {head.seq for head in revoked.accepted.values()} == {1}
    (listed,) = owner.devices()
    assert listed == revoked
    with pytest.raises(VaultError):
        owner.import_traces(purchases(2, month=2))
    with pytest.raises(RevokedDevice):
        owner.revoke_device(mine.id)
    with pytest.raises(RevokedDevice):
        owner.enrol(mine.public_key)
    with pytest.raises(UnknownDevice):
        owner.revoke_device(DeviceId(bytes(16)))


def test_what_a_device_is_acknowledged_for_while_it_is_revoked_stays(
    owner: Owner, new_device: Callable[[Owner], Device], tamper: Tamper
) -> None:
    owner.publish([PURCHASE], [MONTH])
    phone, traces = new_device(owner), purchases(4)
    phone.add(traces[:2])
    phone.flush()

    def meanwhile(response: httpx.Response) -> httpx.Response:
        if phone.add(traces):
            assert phone.flush().sent == 2
        return response

    tamper.on("GET", "/heads", meanwhile)
    revoked = owner.revoke_device(phone.id)
    assert {head.seq for head in (revoked.accepted or {}).values()} == {2}
    assert {trace.id for trace in owner.erasures.traces.month(PURCHASE, MONTH)} == {trace.id for trace in traces}


def test_a_device_that_goes_on_sending_is_revoked_at_once_if_its_owner_says_so(
    owner: Owner, new_device: Callable[[Owner], Device], tamper: Tamper
) -> None:
    owner.publish([PURCHASE], [MONTH])
    phone, left = new_device(owner), iter(purchases(8))

    def one_more(response: httpx.Response) -> httpx.Response:
        phone.add([next(left)])
        assert phone.flush().sent == 1
        return response

    tamper.on("GET", "/heads", one_more)
    with pytest.raises(StillSealing, match="--at-once"):
        owner.revoke_device(phone.id)
    assert [device.accepted for device in owner.devices()] == [None, None]
    assert owner.revoke_device(phone.id, at_once=True).accepted is not None


def test_a_device_that_never_sealed_is_revoked_with_no_batch(owner: Owner) -> None:
    key = SigningKey(new_seed()).public_key
    owner.enrol(key)
    assert len(owner.devices()) == 2
    device = next(device for device in owner.devices() if device.public_key == key)
    assert owner.revoke_device(device.id).accepted == {}


def test_a_forged_head_list_revokes_nothing(owner: Owner, new_owner: Callable[..., Any], tamper: Tamper) -> None:
    owner.import_traces(purchases())
    other, _ = new_owner()
    other.import_traces(purchases())
    theirs = other._api.get(f"{other._path}/heads", auth=other._auth)["heads"]
    (mine,) = owner.devices()
    tamper.on("GET", "/heads", lambda _: json_answer({"heads": {b64u(mine.id): next(iter(theirs.values()))}}))
    with pytest.raises(SealError):
        owner.revoke_device(mine.id)
    assert owner.devices() == [mine]
