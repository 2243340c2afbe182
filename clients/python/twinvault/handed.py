"""What the owner can check about keys that were handed over: to which of the service's keys, and on whose word since.

Keys are resealed when the service rolls its own keys over. The service shows the signed records only,
never what is sealed; each reseal must carry on the terms of the one before, be signed by the process that
could open it, go to a key that the pinned operator stated, and stand in the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twinvault.api import Api, ClientError, field
from twinvault.consents import OwnConsent
from twinvault.keys import key_statements
from twinvault.profile import Profile
from twinvault.receipts import NoReceipt, verify_logged
from vault.encoding import JsonObject, b64u, parse_b64u
from vault.proof.leaf import LeafKind
from vault.schema.category import Category
from vault.schema.terms import ConsentKind
from vault.seal.chain import verify_envelopes
from vault.seal.dsse import parse_envelope
from vault.seal.handover import KeyKind, VerifiedHandover, parse_link
from vault.seal.ids import ConsentId, VaultId, sha256
from vault.seal.statement import KeyName
from vault.seal.version import Remembered

_HOLDERS: Final = {KeyKind.RAW: KeyName.PROCESSOR, KeyKind.IMPRINT: KeyName.SERVING}
_RESEALERS: Final = {KeyKind.RAW: KeyName.PROCESSOR_SIGN, KeyKind.IMPRINT: KeyName.SERVICE}


class BrokenChain(ClientError):
    """Keys that the service holds under a consent, on nobody's word that counts."""

    slug = "broken-chain"
    title = "Handed-over keys do not descend from your handover"


@dataclass(frozen=True, slots=True)
class Handed:
    """One kind of keys that a consent handed over, as it stands.

    Args:
        keys: Which kind.
        compartments: Of how many compartments.
        epochs: To which epochs of the service's key they were sealed, the owner's own handover first.
        indexes: The leaves that show each step.
    """

    keys: KeyKind
    compartments: int
    epochs: tuple[int, ...]
    indexes: tuple[int, ...]


def verify_handed(
    unverified: Any, api: Api, profile: Profile, *, vault: VaultId, owner_keys: Sequence[bytes], consent: ConsentId
) -> Handed:
    """Return one kind of keys, if its records are an unbroken and logged chain from the owner's handover.

    Args:
        unverified: {"keys", "steps": [{"envelope", "receipt"}, ...]}, the owner's handover first.
        api: Shows the service's keys.
        profile: Pins the operator and the log.
        vault: Whose.
        owner_keys: Every signing key that the owner has had.
        consent: Under which consent.

    Raises:
        SealError: A record or key that its signer did not sign, or terms that are not carried on.
        BrokenChain: About another consent or kind, or to a key that is not the service's for it.
        NoReceipt: The log does not show a step.
    """
    steps = field(unverified, "steps", list)
    links = [parse_link(parse_envelope(parse_b64u(field(step, "envelope")))) for step in steps]
    if not links or links[0].terms.kind.value != field(unverified, "keys"):
        raise BrokenChain("The service shows handed-over keys without your handover of them.")
    kind = links[0].terms.kind
    stated = key_statements(api, profile, at_most_s=0)
    resealers = [one.public_key for one in stated if one.name is _RESEALERS[kind]]
    past = tuple(link.envelope for link in links[:-1])
    newest: VerifiedHandover = verify_envelopes(past, links[-1], vault, owner_keys, resealers)
    if newest.terms.consent != consent:
        raise BrokenChain("The service shows the keys of another consent.")
    holders = {sha256(one.public_key): one.epoch for one in stated if one.name is _HOLDERS[kind]}
    if any(link.terms.to not in holders for link in links):
        raise BrokenChain(f"Keys were sealed to one that the operator never stated as a {_HOLDERS[kind]} key.")
    indexes = []
    for step, link in zip(steps, links, strict=True):
        shown = verify_logged(field(step, "receipt", dict), profile.trust)
        expected = LeafKind.HANDOVER if link.terms.prev is None else LeafKind.RESEAL
        if shown.kind != expected.value or b64u(link.envelope.digest) not in _named(shown.personal):
            raise NoReceipt("The log's entry is not about the step that the service shows.")
        indexes.append(shown.index)
    epochs = tuple(holders[link.terms.to] for link in links)
    return Handed(kind, len(newest.terms.compartments), epochs, tuple(indexes))


def former(consents: Iterable[OwnConsent], now_s: int) -> dict[Category, Remembered]:
    """Return the categories whose keys self or cohort consents handed over and none does any more.

    By what the owner signed: a service that would rather keep its keys good is not asked.

    Args:
        consents: All of a vault, verified.
        now_s: Unix seconds.

    Returns:
        Each with what names the versions that handed them over: it changes when one does so once more.
    """
    handed: defaultdict[Category, list[bytes]] = defaultdict(list)
    now_handed: set[Category] = set()
    for own in consents:
        if own.current.terms.kind is ConsentKind.COMPANY:  # it never opens a trace
            continue
        for version in own.versions:
            for category in version.terms.usable if version.event.live else ():
                handed[category].append(own.id + version.version.to_bytes(8, "big"))
        if own.current.event.live and now_s < own.current.terms.not_after:
            now_handed |= own.current.terms.usable
    named = {category: names for category, names in handed.items() if category not in now_handed}
    return {category: Remembered(len(names), sha256(b"".join(sorted(names)))) for category, names in named.items()}


def _named(personal: JsonObject) -> set[str]:
    """Return the records that a leaf of a handover or reseal names."""
    handovers = personal.get("handovers")
    listed = handovers if isinstance(handovers, list) else []
    named = {str(item["record"]) for item in listed if isinstance(item, dict) and "record" in item}
    return named | ({str(personal["record"])} if "record" in personal else set())
