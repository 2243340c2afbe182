"""What proves a legacy to its owner and executors: who the vault belongs to, and every step with what was signed."""

from __future__ import annotations

from typing import Final

from sqlmodel import Session

from vault.legacy import steps
from vault.parties import people
from vault.proof.bundle import Bundle, LoggedLeaf, dump_bundle, records_by_hash
from vault.proof.leaf import LeafKind
from vault.proof.merkle import inclusion_proof
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.ids import VaultId
from vault.tlog import log
from vault.tlog.witnesses import witnessed

_STEPS: Final = (
    LeafKind.VAULT_GENESIS, LeafKind.SUCCESSION,
    LeafKind.LEGACY_PLAN, LeafKind.LEGACY_CLAIM, LeafKind.LEGACY_FORCE, LeafKind.LEGACY_OPEN,
    LeafKind.LEGACY_VETO, LeafKind.FREEZE, LeafKind.PROFILE,
)  # fmt: skip
_ABOUT: Final = frozenset({LeafKind.FREEZE, LeafKind.PROFILE})
_OWN: Final = frozenset({PayloadType.FREEZE, PayloadType.PROFILE})
_IDENTITY: Final = frozenset({PayloadType.GENESIS, PayloadType.SUCCESSION})


def identity(session: Session, vault_id: VaultId) -> list[bytes]:
    """Return the signed records from which the owner's key follows: genesis, then successions."""
    return [one for one in people.records(session, vault_id) if parse_envelope(one).payload_type in _IDENTITY]


def bundle(session: Session, vault_id: VaultId) -> bytes:
    """Return the logged steps of a vault's legacies, proven under the newest checkpoint, with the signed records.

    Args:
        session: A snapshot.
        vault_id: Whose.
    """
    size, note = log.head(session)
    hash_at = log.hashes_at(session, size)
    found = [leaf for kind in _STEPS for leaf in log.find(session, kind=kind, about=vault_id, limit=size)]
    orders = people.envelopes(session, [leaf.pending_id for leaf in found if leaf.kind in _ABOUT])
    # What the owner ordered is none of the executors' business.
    orders = {leaf_id: one for leaf_id, one in orders.items() if parse_envelope(one).payload_type not in _OWN}
    found = [leaf for leaf in found if leaf.kind not in _ABOUT or leaf.pending_id in orders]
    leaves = tuple(
        LoggedLeaf(
            leaf.index, leaf.entry, tuple(inclusion_proof(leaf.index, size, hash_at)), leaf.public, leaf.personal
        )
        for leaf in sorted(found, key=lambda leaf: leaf.index)
    )
    logged = {leaf.pending_id for leaf in found}
    signed = [record for leaf_id, record in steps.records(session, vault_id).items() if leaf_id in logged]
    records = records_by_hash(
        [*identity(session, vault_id), *signed, *orders.values(), *steps.waited(session, vault_id)]
    )
    return dump_bundle(Bundle(note, leaves, records, witnessed=witnessed(session, size, hash_at)))
