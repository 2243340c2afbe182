"""Routes of vaults: creating one, its slots, account record and ring."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from vault.db import Database
from vault.encoding import b64u, parse_b64u
from vault.errors import VaultError
from vault.http.edge import ClockDep, DatabaseDep, documented, read_late
from vault.parties import people, sessions, succession
from vault.parties.caller import DeviceCaller, OwnerCaller
from vault.parties.routes import CallerDep, OwnerDep, require_still
from vault.schema.trace import parse_period
from vault.seal.dsse import parse_envelope_text
from vault.seal.errors import as_seal_error
from vault.seal.fields import parse_hash, parse_id
from vault.seal.ids import CompartmentId, VaultId
from vault.seal.person import Profile, verify_genesis
from vault.seal.slot import Slot, parse_slot
from vault.store import accounts, rings, slots
from vault.store.errors import NotStored
from vault.store.rings import VerifiedRing
from vault.tlog.log import PendingId
from vault.tlog.shown import receipt_json

vaults_router = APIRouter(prefix="/v1", tags=["vaults"])

MAX_TEXT = 1_500_000  # an envelope of 1 MiB as base64url


class NotYours(VaultError):
    """A session of one vault in a request about another."""

    slug = "not-your-vault"
    title = "Not your vault"
    status = 403


class MisnamedSlot(VaultError):
    """A slot sent under another locator than its own."""

    slug = "misnamed-slot"
    title = "Misnamed slot"
    status = 422


class NoCompartment(VaultError):
    """A month for which the owner has published no compartment; keep the traces and ask again later."""

    slug = "no-compartment"
    title = "No compartment for that month"
    status = 503


class Body(BaseModel):
    """A JSON body with the fields of its route and no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


class PageBody(Body):
    """A ring page and the locked seeds of its new compartments, by compartment id."""

    page: str = Field(max_length=MAX_TEXT)
    locked: dict[str, str]


class RingBody(Body):
    """A ring head and the pages that change with it."""

    head: str = Field(max_length=MAX_TEXT)
    pages: list[PageBody] = Field(max_length=rings.MAX_PAGES)
    at_once: bool = Field(
        default=False, description="Revoke devices even without what they sealed since their head lists were read."
    )


class AccountBody(Body):
    """An account record."""

    account: str = Field(max_length=4096)


class FreezeBody(Body):
    """A signed order to freeze or unfreeze."""

    order: str = Field(max_length=4096)


class ProfileBody(Body):
    """A signed profile."""

    profile: str = Field(max_length=4096)


class SlotBody(Body):
    """A slot."""

    slot: str = Field(max_length=1024)


class NamedSlotBody(SlotBody):
    """A slot and what it is found by."""

    locator_hash: str


class VaultBody(Body):
    """Everything a vault begins with."""

    genesis: str = Field(max_length=4096)
    account: str = Field(max_length=4096)
    slots: list[NamedSlotBody] = Field(min_length=1, max_length=slots.MAX_SLOTS)
    ring: RingBody


class SignedByTheDead(VaultError):
    """An owner's own profile that says that the owner has died."""

    slug = "signed-by-the-dead"
    title = "Profile says that its owner has died"
    status = 422


class VaultAnswer(BaseModel):
    """The id of a vault."""

    vault: str


async def _shortkeys(request: Request) -> Database:
    shortkeys = request.app.state.shortkeys
    assert isinstance(shortkeys, Database)
    return shortkeys


ShortKeysDep = Annotated[Database, Depends(_shortkeys)]


def own(vault: str, caller: OwnerCaller | DeviceCaller) -> VaultId:
    """Return the vault of the path if it is the caller's.

    Raises:
        NotYours: It is another's, whether or not that exists.
    """
    if b64u(caller.vault_id) != vault:
        raise NotYours("This session belongs to another vault; sign in to the one you ask about.")
    return caller.vault_id


@vaults_router.post("/vaults", status_code=201)
def create(body: VaultBody, database: DatabaseDep, shortkeys: ShortKeysDep, clock: ClockDep) -> VaultAnswer:
    """Begin a vault: genesis, account record, slots and first ring, all or nothing."""
    genesis, account = parse_envelope_text(body.genesis), parse_envelope_text(body.account)
    person = verify_genesis(genesis)
    _refuse_dead(person.profile)
    ring = _ring(body.ring, person.vault_id, person.owner_key, shortkeys)
    found = [slot_of(slot.slot, slot.locator_hash) for slot in body.slots]
    now = clock.now()
    with database.transaction() as session:
        people.create(session, genesis, now=now)
        accounts.publish(session, person.vault_id, person.owner_key, account, now=now)
        for slot in sorted(found, key=lambda slot: slot.slot_id):  # one order, so that no two wait for each other
            slots.put(session, person.vault_id, slot)
        rings.publish(session, person.vault_id, ring, now=now)
    return VaultAnswer(vault=b64u(person.vault_id))


@vaults_router.get("/slots/{locator_hash}")
def find_slot(locator_hash: str, database: DatabaseDep) -> dict[str, Any]:
    """Return what unlocking needs, to whoever knows the locator; nothing tells why there is none."""
    with database.snapshot() as session:
        found = slots.find(session, parse_hash(locator_hash))
        if found is None:
            raise NotStored("No slot lies there; the passphrase, device secret or recovery code may be mistyped.")
        vault_id, slot = found
        account = accounts.find(session, vault_id)
        identity = succession.identity(session, vault_id)
    return {
        "vault": b64u(vault_id),
        "genesis": b64u(identity[0]),
        "successions": [b64u(record) for record in identity[1:]],
        "slot": b64u(slot),
        "account": b64u(account or b""),
    }


@vaults_router.put("/vaults/{vault}/slots/{locator_hash}", status_code=204)
def put_slot(
    *, vault: str, locator_hash: str, body: SlotBody, caller: OwnerDep, request: Request, database: DatabaseDep,
    clock: ClockDep,
) -> None:  # fmt: skip
    """Add or replace a slot."""
    vault_id, slot = own(vault, caller), slot_of(body.slot, locator_hash)
    with database.transaction() as session:
        people.stay(session, vault_id)
        require_still(session, request, caller, clock)
        slots.put(session, vault_id, slot)


@vaults_router.delete("/vaults/{vault}/slots/{locator_hash}", status_code=204)
def delete_slot(
    *, vault: str, locator_hash: str, caller: OwnerDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> None:
    """Delete a slot; deleting one that does not exist changes nothing."""
    vault_id = own(vault, caller)
    with database.transaction() as session:
        people.stay(session, vault_id)
        require_still(session, request, caller, clock)
        slots.remove(session, vault_id, parse_hash(locator_hash))


@vaults_router.get("/vaults/{vault}/account")
def get_account(
    *, vault: str, caller: OwnerDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> AccountBody:
    """Return the account record in force."""
    vault_id = own(vault, caller)
    with database.snapshot() as session:
        require_still(session, request, caller, clock)
        account = accounts.find(session, vault_id)
    if account is None:
        raise NotStored("This vault has no account record.")
    return AccountBody(account=b64u(account))


@vaults_router.put("/vaults/{vault}/account", status_code=204)
def put_account(vault: str, body: AccountBody, caller: OwnerDep, database: DatabaseDep, clock: ClockDep) -> None:
    """Publish the next account record."""
    vault_id, account = own(vault, caller), parse_envelope_text(body.account)
    with database.transaction() as session:
        people.stay(session, vault_id)
        owner_key = people.get(session, vault_id).owner_key
        accounts.publish(session, vault_id, owner_key, account, now=clock.now())


@vaults_router.get("/vaults/{vault}/ring")
def get_ring(
    vault: str,
    caller: CallerDep,
    database: DatabaseDep,
    shortkeys: ShortKeysDep,
    period: Annotated[list[str] | None, Query(max_length=1200)] = None,
) -> dict[str, Any]:
    """Return the ring head and its pages, or only those of some months; locked seeds go to the owner alone.

    `identity` is genesis and successions: whose vault it is, and whose signature the head has now.
    """
    vault_id = own(vault, caller)
    with as_seal_error():
        periods = None if period is None else [parse_period(month) for month in period]
    with database.snapshot() as session:
        match caller:
            case OwnerCaller():
                stored = rings.read(session, vault_id, periods, short_key_database=shortkeys)
            case DeviceCaller():
                stored = rings.read(session, vault_id, periods)
        identity = succession.identity(session, vault_id)
    if isinstance(caller, DeviceCaller) and periods is not None and len(stored.pages) < len(set(periods)):
        raise NoCompartment(
            "The owner has published no compartment for that month yet; keep the traces.", retry_after_s=3600
        )
    pages = [
        {"page": b64u(page), "locked": {b64u(name): b64u(seed) for name, seed in locked.items()}}
        for page, locked in stored.pages
    ]
    return {"head": b64u(stored.head), "pages": pages, "identity": [b64u(record) for record in identity]}


@vaults_router.put(
    "/vaults/{vault}/ring",
    status_code=204,
    openapi_extra=documented(takes="application/json", body={"$ref": "#/components/schemas/RingBody"}),
)
def put_ring(
    *,
    vault: str,
    caller: OwnerDep,
    body: Annotated[RingBody, read_late(RingBody)],
    database: DatabaseDep,
    shortkeys: ShortKeysDep,
    clock: ClockDep,
) -> None:
    """Publish the next ring head with the pages that change.

    A head that revokes a device must accept every batch that the device was acknowledged for; where it sealed more
    since `GET heads`, the answer is 409 `version-conflict`.
    """
    vault_id = own(vault, caller)
    with database.snapshot() as session:
        owner_key = people.get(session, vault_id).owner_key
    ring = _ring(body, vault_id, owner_key, shortkeys)
    with database.transaction() as session:
        people.stay(session, vault_id)
        if people.get(session, vault_id).owner_key != ring.owner_key:
            raise NotYours("The owner key was replaced meanwhile; sign in with the new one.")
        rings.publish(session, vault_id, ring, now=clock.now(), at_once=body.at_once)
        for device in ring.ring.head.devices.values():
            if device.accepted is not None:
                sessions.end_sessions(session, vault_id, device.id)


@vaults_router.get("/vaults/{vault}/person")
def person(vault: str, caller: OwnerDep, database: DatabaseDep) -> dict[str, Any]:
    """Return whether the vault is frozen, its profile, and the sequence number of its last profile or freeze record."""
    vault_id = own(vault, caller)
    with database.snapshot() as session:
        return _person_json(people.get(session, vault_id))


@vaults_router.post("/vaults/{vault}/freezes")
def freeze(
    *, vault: str, body: FreezeBody, caller: OwnerDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Follow the owner's signed order to freeze or unfreeze; acknowledged once it is logged.

    Nothing is answered, refreshed or trained while frozen.
    """
    vault_id = own(vault, caller)
    order = parse_envelope_text(body.order)
    with database.transaction() as session:
        pending = people.follow_freeze(session, vault_id, order, now=clock.now())
        followed = _person_json(people.get(session, vault_id))
    return {**followed, "receipt": receipt(request, database, pending.id)}


@vaults_router.post("/vaults/{vault}/profiles")
def set_profile(
    *, vault: str, body: ProfileBody, caller: OwnerDep, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Put the owner's signed profile in force; acknowledged once it is logged. Nothing decided on another is answered."""
    vault_id = own(vault, caller)
    profile = parse_envelope_text(body.profile)
    with database.transaction() as session:
        pending = people.set_profile(session, vault_id, profile, now=clock.now())
        person = people.get(session, vault_id)
        _refuse_dead(person.profile)
        followed = _person_json(person)
    return {**followed, "receipt": receipt(request, database, pending.id)}


def _refuse_dead(profile: Profile) -> None:
    if profile.deceased:  # the next sign-in would end what no executors declared, which no bundle explains
        raise SignedByTheDead("That you have died, your executors say; sign the profile without it.")


def receipt(request: Request, database: Database, pending_id: PendingId) -> dict[str, Any]:
    """Wait until the log shows a leaf, and return what proves it."""
    state = request.app.state
    state.sequencer.wait(pending_id, state.settings.checkpoint_wait_s)
    with database.snapshot() as session:
        return receipt_json(session, pending_id)


def _person_json(found: people.Person) -> dict[str, Any]:
    profile = {name: int(value) for name, value in asdict(found.profile).items()}
    return {"state": found.state, "sequence": found.sequence, "profile": profile}


def _ring(body: RingBody, vault: VaultId, owner_key: bytes, shortkeys: Database) -> VerifiedRing:
    with as_seal_error():
        locked = {
            CompartmentId(parse_id(name)): parse_b64u(seed) for page in body.pages for name, seed in page.locked.items()
        }
    pages = [parse_envelope_text(page.page) for page in body.pages]
    return rings.verify_publish(
        vault, owner_key, parse_envelope_text(body.head), pages, locked_seeds=locked, short_key_database=shortkeys
    )


def slot_of(text: str, locator_hash: str) -> Slot:
    """Return a slot that arrived.

    Raises:
        SealError: It is none.
        MisnamedSlot: It lies under another locator than its request says.
    """
    with as_seal_error():
        slot = parse_slot(parse_b64u(text))
    if slot.slot_id != parse_hash(locator_hash):
        raise MisnamedSlot("The slot names another locator than the request; send it under its own.")
    return slot
