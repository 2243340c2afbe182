"""Replacing the owner key by the one in the recovery kit: what an owner does whose device or signing key was stolen.

The old kit and the new one are all that it takes, and nothing else is kept meanwhile: whoever has both goes on after a crash
anywhere, on any machine.
"""

from __future__ import annotations

from typing import Any, Final

from twinvault.api import Api, ApiError, ClientError, field, json_of
from twinvault.profile import Profile
from twinvault.receipts import NoReceipt, remember_checkpoint, verify_logged
from twinvault.rings import RingKeeper
from twinvault.signin import SignedIn
from twinvault.vaults import FoundVault, Keys, WrongVault, find_vault, take_note
from vault.clock import Clock, unix_s
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.seal.account import OwnerSeeds, seal_account
from vault.seal.dsse import Envelope
from vault.seal.ids import sha256
from vault.seal.kit import RecoveryKit
from vault.seal.person import Role, sign_succession
from vault.seal.ring import Head, sign_head
from vault.seal.signing import SigningKey
from vault.seal.slot import Slot, passphrase_key, recovery_key, seal_slot

_TRIES: Final = 8  # whoever has the stolen key may publish rings meanwhile
_CONFLICT: Final = "version-conflict"
_MISSING: Final = "not-stored"


class WrongKit(ClientError):
    """A recovery kit whose owner key is not the one that comes next."""

    slug = "wrong-kit"
    title = "Another recovery kit is needed"


def replace_owner_key(
    api: Api,
    profile: Profile,
    kit: RecoveryKit,
    new_kit: RecoveryKit,
    *,
    passphrase: str | None,
    restored: bool,
    clock: Clock,
) -> Keys:
    """Make the kit's key the owner key; the new kit takes the old one's place.

    Run again with the same two kits after a failure anywhere, it goes on where it was.

    Args:
        api: The service.
        profile: Of the vault on this machine.
        kit: The newest until now.
        new_kit: Must lie where a crash does not take it: from the service's next commit on, only this one opens the vault.
        passphrase: Opens the vault on this machine from now on; None for a vault that only the recovery kit opens.
        restored: Take over a ring that a former key signed: the service was set back, and knows no newer one.
        clock: Tells the time.

    Returns:
        The vault's secrets, with the new signing key.

    Raises:
        WrongKit: Neither kit opens anything, the first one's key does not come next, or both hold the same one.
        WrongVault: The kit is another vault's than the profile's.
        SealError: What the service returned is forged.
        RolledBack: The service shows an older owner key, account record or ring than this client has seen.
        NoReceipt: The log does not show the succession.
        ApiError: The service refuses; `version-conflict` where somebody changed the ring each time.
        Unreachable: No answer came.

    Guarantees: when this returns, the former key opens no session and signs nothing that counts, no other slot opens the
        vault, and the log shows it. The root, the compartment seeds and the pairwise seed stay: consents and
        pseudonyms do, and what somebody copied of the root opens what it opened.
    """
    if new_kit.next_owner_seed == kit.next_owner_seed or new_kit.recovery_code == kit.recovery_code:
        raise WrongKit("The new recovery kit is the old one; name another file for it with --kit-file.")
    for left in reversed(range(_TRIES)):
        found = _found(api, kit)
        if found is None:
            return _go_on(api, profile, kit, new_kit, passphrase)
        body = _body(api, profile, found, kit, new_kit, passphrase=passphrase, restored=restored, clock=clock)
        try:
            api.request("POST", _path(found), json=body, repeatable=True)
            break
        except ApiError as refusal:
            if refusal.slug != _CONFLICT or not left:
                raise
    return _finish(api, profile, kit, new_kit)


def _found(api: Api, kit: RecoveryKit) -> FoundVault | None:
    try:
        return find_vault(api, recovery_key(kit.recovery_code))
    except ApiError as refusal:
        if refusal.slug != _MISSING:
            raise
        return None


def _body(
    api: Api, profile: Profile, found: FoundVault, kit: RecoveryKit, new_kit: RecoveryKit, *, passphrase: str | None,
    restored: bool, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    _refuse_other(profile, found)
    keys, new_key = found.keys, SigningKey(kit.next_owner_seed)
    next_key = SigningKey(new_kit.next_owner_seed).public_key
    if sha256(new_key.public_key) != found.next_owner_key_hash:
        raise WrongKit("The kit's owner key is not the one that comes next; use the recovery kit that was made last.")
    if next_key in keys.owner_keys:
        raise WrongKit(
            "The new recovery kit holds a key that was the owner's already; name another file with --kit-file."
        )
    take_note(profile, found)
    session = SignedIn(profile.trust, keys.vault, keys.signer, Role.OWNER)
    own = RingKeeper(api, session, profile, keys, clock).read(former=restored)
    old = own.ring.head
    head = Head(keys.vault, old.version + 1, own.head.digest, unix_s(clock.now()), old.pages, old.devices)
    seeds = OwnerSeeds(kit.next_owner_seed, keys.pairwise_seed)
    account = seal_account(
        seeds, keys.root, vault=keys.vault, version=found.account.version + 1, prev=found.account.digest
    )
    signed = sign_succession(new_key, next_key, vault_id=keys.vault, prev=found.identity[-1].digest)
    opening = [recovery_key(new_kit.recovery_code)]
    if passphrase is not None:
        opening.append(passphrase_key(passphrase, new_kit.device_secret))
    slots = [_slot_json(seal_slot(keys.root, key)) for key in opening]
    return _request(signed, account, slots, sign_head(head, new_key))


def _go_on(api: Api, profile: Profile, kit: RecoveryKit, new_kit: RecoveryKit, passphrase: str | None) -> Keys:
    """Finish what the service followed before this was interrupted; the passphrase may have been another one then."""
    keys = _finish(api, profile, kit, new_kit)
    if passphrase is not None:
        slot = _slot_json(seal_slot(keys.root, passphrase_key(passphrase, new_kit.device_secret)))
        path = f"/v1/vaults/{b64u(keys.vault)}/slots/{slot.pop('locator_hash')}"
        api.request("PUT", path, auth=SignedIn(profile.trust, keys.vault, keys.signer, Role.OWNER), json=slot)
    return keys


def _finish(api: Api, profile: Profile, kit: RecoveryKit, new_kit: RecoveryKit) -> Keys:
    """Take note of what the service followed, and have it acknowledged."""
    found = _found(api, new_kit)
    if found is None:
        raise WrongKit(
            "The service keeps no vault under this recovery kit: it is mistyped, or another one took its place. Use the"
            " kit that was made last; if this was interrupted before, name the file that it wrote with --kit-file."
        )
    _refuse_other(profile, found)
    if found.keys.signer.public_key != SigningKey(kit.next_owner_seed).public_key:
        raise WrongKit("The owner key in force is neither recovery kit's; use the kit that was made last.")
    profile.keep({"owner_key": b64u(found.keys.signer.public_key), "device_secret": b64u(new_kit.device_secret)})
    take_note(profile, found)
    # What the service has followed it acknowledges again, whatever comes with it.
    slot = _slot_json(seal_slot(found.keys.root, recovery_key(new_kit.recovery_code)))
    signed = found.identity[-1]
    body = _request(signed, found.sealed, [slot], found.sealed)
    done = json_of(api.request("POST", _path(found), json=body, repeatable=True))
    shown = verify_logged(field(done, "receipt", dict), profile.trust)
    if (shown.kind, shown.personal.get("record")) != (LeafKind.SUCCESSION.value, b64u(signed.digest)):
        raise NoReceipt("The log's entry is not about the succession.")
    remember_checkpoint(api, profile, shown.checkpoint)
    return found.keys


def _path(found: FoundVault) -> str:
    return f"/v1/vaults/{b64u(found.keys.vault)}/successions"


def _request(signed: Envelope, account: Envelope, slots: list[dict[str, str]], head: Envelope) -> dict[str, Any]:
    return {
        "succession": b64u(signed.encoded),
        "account": b64u(account.encoded),
        "slots": slots,
        "head": b64u(head.encoded),
    }


def _slot_json(slot: Slot) -> dict[str, str]:
    return {"locator_hash": b64u(slot.slot_id), "slot": b64u(slot.encoded)}


def _refuse_other(profile: Profile, found: FoundVault) -> None:
    if found.keys.vault != profile.binary("vault", 16):
        raise WrongVault("This recovery kit is another vault's than the profile's; check --profile.")
