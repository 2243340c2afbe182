"""Beginning, unlocking and recovering a vault: from passphrase and device, or from the recovery kit, to its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinvault.api import Api, ApiError, ClientError, field
from twinvault.profile import BadProfile, Profile
from vault.clock import Clock, unix_s
from vault.encoding import JsonObject, b64u, parse_b64u
from vault.proof.trust import TrustedRoot
from vault.schema.category import Category
from vault.schema.language import Language
from vault.schema.trace import Period
from vault.seal.account import OwnerSeeds, open_account, seal_account, verify_account
from vault.seal.derive import pairwise_key
from vault.seal.device import Device, DeviceRole
from vault.seal.dsse import Envelope, parse_envelope, unverified_record
from vault.seal.errors import SealError
from vault.seal.ids import CompartmentId, VaultId
from vault.seal.kit import RecoveryKit, new_kit
from vault.seal.person import Profile as Person
from vault.seal.person import sign_genesis, verify_genesis, verify_identity
from vault.seal.ring import Head, extend_page, sign_head, sign_page
from vault.seal.signing import SigningKey, new_seed
from vault.seal.slot import SlotKey, new_device_secret, open_slot, parse_slot, passphrase_key, recovery_key, seal_slot
from vault.seal.version import NO_PREV, Remembered


class WrongVault(ClientError):
    """What lies under this passphrase or code is another vault than the profile's."""

    slug = "wrong-vault"
    title = "Another vault"


@dataclass(frozen=True, repr=False)
class Keys:
    """An unlocked vault's secrets; they live in memory only.

    Args:
        vault: Whose.
        root: Opens everything that the owner keeps, 32 bytes.
        signer: The owner's signing key in force.
        pairwise_seed: Makes the key towards each grantee.
        owner_keys: Every public key that was the owner's, the one in force last.
    """

    vault: VaultId
    root: bytes
    signer: SigningKey
    pairwise_seed: bytes
    owner_keys: tuple[bytes, ...]

    def towards(self, grantee: str) -> SigningKey:
        """Return the key that signs consents to one grantee."""
        return pairwise_key(self.pairwise_seed, grantee)


def create_vault(
    api: Api,
    folder: Path,
    trust: TrustedRoot,
    *,
    passphrase: str | None,
    time_zone: str,
    categories: Iterable[Category],
    periods: Iterable[Period],
    person: Person,
    clock: Clock,
    language: Language = Language.EN,
) -> tuple[Profile, Keys, RecoveryKit]:
    """Begin a vault on the service and its profile on this machine.

    Args:
        api: The service.
        folder: Where the profile will lie.
        trust: What to pin.
        passphrase: Opens the vault on this machine; None for a vault that only the recovery kit opens.
        time_zone: IANA name that decides the local date of every trace, for good.
        categories: Get a compartment in each of the periods.
        periods: The first months.
        person: What policy must know about the owner.
        clock: Tells the time.
        language: In which the owner reads notices on this machine.

    Raises:
        ApiError: The service refuses.
        Unreachable: No answer; run it again, an empty vault left behind harms nobody.
        BadProfile: The profile exists.
    """
    if folder.exists():
        raise BadProfile(f"A profile lies in {folder} already; choose another name with --profile.")
    kit = new_kit(new_device_secret())
    seeds, root, device_seed = OwnerSeeds(new_seed(), new_seed()), new_seed(), new_seed()
    signer, device = SigningKey(seeds.signing), Device(SigningKey(device_seed).public_key, DeviceRole.OWNER)
    now_s = unix_s(clock.now())
    next_key = SigningKey(kit.next_owner_seed).public_key
    genesis = sign_genesis(signer, next_key, created_at=now_s, time_zone=time_zone, profile=person)
    vault = verify_genesis(genesis).vault_id
    slots = [seal_slot(root, key) for key in _slot_keys(passphrase, kit)]
    pages: list[tuple[Envelope, Mapping[CompartmentId, bytes]]] = []
    named: dict[Period, bytes] = {}
    for period in periods:
        page, locked = extend_page(None, NO_PREV, vault=vault, period=period, categories=categories, root=root)
        envelope = sign_page(page, signer)
        pages.append((envelope, locked))
        named[period] = envelope.digest
    head = sign_head(Head(vault, 1, NO_PREV, now_s, named, {device.id: device}), signer)
    account = seal_account(seeds, root, vault=vault, version=1, prev=NO_PREV)
    body = {
        "genesis": b64u(genesis.encoded),
        "account": b64u(account.encoded),
        "slots": [{"locator_hash": b64u(slot.slot_id), "slot": b64u(slot.encoded)} for slot in slots],
        "ring": ring_body(head, pages),
    }
    api.request("POST", "/v1/vaults", json=body)
    record = _record(vault, signer.public_key, time_zone, kit.device_secret, device_seed) | {"language": language.value}
    profile = Profile.create(folder, trust, record)
    profile.remember_all({
        "ring": Remembered(1, head.digest), "account": Remembered(1, account.digest),
        "identity": Remembered(1, genesis.digest),
    })  # fmt: skip
    return profile, Keys(vault, root, signer, seeds.pairwise, (signer.public_key,)), kit


def unlock_vault(api: Api, profile: Profile, key: SlotKey) -> Keys:
    """Return the secrets of the profile's vault.

    Args:
        api: The service.
        profile: Names the vault and remembers its newest account record.
        key: From the passphrase and the profile's device secret, or from the recovery kit.

    Raises:
        ApiError: No slot lies under this passphrase or code (`not-stored`).
        SealError: What the service returned is forged, older than before, or opens under other keys.
        WrongVault: It is another vault.
        RolledBack: An older account record or owner key than this client has seen.
    """
    found = find_vault(api, key)
    take_note(profile, found)
    return found.keys


def take_note(profile: Profile, found: FoundVault) -> None:
    """Remember what a service shows of the profile's vault, and follow its owner key.

    Raises:
        WrongVault: It is another vault.
        SealError: The owner key that this client knows never was this vault's.
        RolledBack: An older account record or owner key than this client has seen.
    """
    if found.keys.vault != profile.binary("vault", 16):
        raise WrongVault("This passphrase or recovery kit opens another vault than the profile's; check --profile.")
    follow_identity(profile, found.identity)
    profile.remember("account", found.account)


def follow_identity(profile: Profile, records: Sequence[Envelope]) -> bytes:
    """Return the key in force of the profile's owner, and keep it: each successor was committed to by the key before.

    Args:
        profile: Of a device or an owner; pins the key that it knew last.
        records: Genesis and successions, as the service shows them.

    Raises:
        SealError: They are another vault's, do not follow, or the key that this client knows is not among theirs.
        RolledBack: Fewer successions than this client has seen, or others.
    """
    keys = verify_identity(records, VaultId(profile.binary("vault", 16)))
    if profile.binary("owner_key", 32) not in keys:
        raise SealError("The owner key that this machine knows is not among those that the service shows.")
    profile.remember("identity", Remembered(len(keys), records[-1].digest))
    if keys[-1] != profile.binary("owner_key", 32):
        profile.keep({"owner_key": b64u(keys[-1])})
    return keys[-1]


def recover_vault(api: Api, folder: Path, trust: TrustedRoot, kit: RecoveryKit) -> tuple[Profile, Keys]:
    """Make a profile on this machine from the recovery kit; its device still has to be enrolled.

    Raises:
        ApiError: No slot lies under this code (`not-stored`).
        SealError: What the service returned is forged.
        BadProfile: The profile exists.
    """
    found = find_vault(api, recovery_key(kit.recovery_code))
    record = _record(found.keys.vault, found.keys.signer.public_key, found.time_zone, kit.device_secret, new_seed())
    profile = Profile.create(folder, trust, record)
    take_note(profile, found)
    return profile, found.keys


def ring_body(head: Envelope, pages: Iterable[tuple[Envelope, Mapping[CompartmentId, bytes]]]) -> dict[str, object]:
    """Return a ring head and its changed pages as the service takes them."""
    return {
        "head": b64u(head.encoded),
        "pages": [
            {"page": b64u(page.encoded), "locked": {b64u(name): b64u(seed) for name, seed in locked.items()}}
            for page, locked in pages
        ],
    }


@dataclass(frozen=True, repr=False)
class FoundVault:
    """What lies behind a slot, verified and opened.

    Args:
        keys: The vault's secrets.
        identity: Genesis and successions.
        next_owner_key_hash: What the newest of them commits to.
        account: The account record in force.
        sealed: Its envelope.
        time_zone: IANA name.
    """

    keys: Keys
    identity: tuple[Envelope, ...]
    next_owner_key_hash: bytes
    account: Remembered
    sealed: Envelope
    time_zone: str


def find_vault(api: Api, key: SlotKey) -> FoundVault:
    """Return the vault that a passphrase or recovery code opens.

    Raises:
        ApiError: No slot lies there (`not-stored`).
        SealError: What the service returned is forged.
    """
    try:
        answer = api.get(f"/v1/slots/{b64u(key.slot_id)}")
    except ApiError as refusal:
        if refusal.slug == "not-stored":
            refusal.next_step = (
                "Check the passphrase or recovery kit, and that this is the profile of that vault. Where the owner key was"
                " replaced since (`owner succeed`), only the kit made then opens it: run `owner unlock --kit` with that."
            )
        raise
    envelope = parse_envelope(parse_b64u(field(answer, "genesis")))
    genesis = verify_genesis(envelope)
    successions = [parse_envelope(parse_b64u(item)) for item in field(answer, "successions", list)]
    owner_keys = verify_identity([envelope, *successions], genesis.vault_id)
    owner_key, newest = owner_keys[-1], unverified_record([envelope, *successions][-1])  # verified just before
    root = open_slot(parse_slot(parse_b64u(field(answer, "slot"))), key)
    sealed = parse_envelope(parse_b64u(field(answer, "account")))
    account = verify_account(sealed, owner_key, genesis.vault_id)
    seeds = open_account(account, root, owner_key)
    keys = Keys(genesis.vault_id, root, SigningKey(seeds.signing), seeds.pairwise, tuple(owner_keys))
    next_hash = parse_b64u(newest["next_owner_key_hash"], size=32)
    remembered = Remembered(account.version, sealed.digest)
    return FoundVault(keys, (envelope, *successions), next_hash, remembered, sealed, genesis.time_zone)


def _slot_keys(passphrase: str | None, kit: RecoveryKit) -> list[SlotKey]:
    keys = [recovery_key(kit.recovery_code)]
    return keys if passphrase is None else [*keys, passphrase_key(passphrase, kit.device_secret)]


def _record(vault: VaultId, owner_key: bytes, time_zone: str, device_secret: bytes, device_seed: bytes) -> JsonObject:
    return {
        "kind": "owner",
        "vault": b64u(vault),
        "owner_key": b64u(owner_key),
        "time_zone": time_zone,
        "device_secret": b64u(device_secret),
        "device_seed": b64u(device_seed),
    }
