"""What proves a legacy to its owner and executors: who the vault belongs to, and every step with what was signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from vault.legacy import steps
from vault.parties import people, succession
from vault.proof.bundle import Bundle, LoggedLeaf, dump_bundle, records_by_hash
from vault.proof.leaf import LeafKind
from vault.proof.merkle import inclusion_proof
from vault.seal.dsse import PayloadType, parse_envelope
from vault.seal.ids import VaultId
from vault.tlog import log
from vault.tlog.log import Leaf, PendingId
from vault.tlog.shown import newest_waiting
from vault.tlog.witnesses import witnessed

_STEPS: Final = (
    LeafKind.VAULT_GENESIS, LeafKind.SUCCESSION,
    LeafKind.LEGACY_PLAN, LeafKind.LEGACY_CLAIM, LeafKind.LEGACY_FORCE, LeafKind.LEGACY_OPEN,
    LeafKind.LEGACY_VETO, LeafKind.FREEZE, LeafKind.PROFILE,
)  # fmt: skip
_ABOUT: Final = frozenset({LeafKind.FREEZE, LeafKind.PROFILE})
_OWN: Final = frozenset({PayloadType.FREEZE, PayloadType.PROFILE})


@dataclass(frozen=True, slots=True)
class KeptSteps:
    """The logged steps of a vault's legacies with what was signed, as they are before the vault is erased.

    Args:
        leaves: With both openings.
        records: What they name.
    """

    leaves: list[Leaf]
    records: list[bytes]


def bundle(session: Session, vault_id: VaultId) -> bytes:
    """Return the logged steps of a vault's legacies, proven under the newest checkpoint, with the signed records.

    Args:
        session: A snapshot.
        vault_id: Whose.
    """
    return prove(session, collect(session, vault_id))


def collect(session: Session, vault_id: VaultId) -> KeptSteps:
    """Return what proves a vault's legacies; after an erasure of the vault it is nowhere else."""
    size, _ = log.head(session)
    found = [leaf for kind in _STEPS for leaf in log.find(session, kind=kind, about=vault_id, limit=size)]
    orders = people.envelopes(session, [leaf.pending_id for leaf in found if leaf.kind in _ABOUT])
    # What the owner ordered is none of the executors' business.
    orders = {leaf_id: one for leaf_id, one in orders.items() if parse_envelope(one).payload_type not in _OWN}
    found = [leaf for leaf in found if leaf.kind not in _ABOUT or leaf.pending_id in orders]
    logged = {leaf.pending_id for leaf in found}
    signed = [record for leaf_id, record in steps.records(session, vault_id).items() if leaf_id in logged]
    return KeptSteps(
        found, [*succession.identity(session, vault_id), *signed, *orders.values(), *steps.waited(session, vault_id)]
    )


def waiting(session: Session, vault_id: VaultId) -> PendingId | None:
    """Return a step that `collect` would not see yet: the log has not numbered it."""
    return newest_waiting(session, vault_id, _STEPS)


def prove(session: Session, held: KeptSteps, erased: PendingId | None = None, statement: bytes = b"") -> bytes:
    """Return a bundle of steps, proven under the newest checkpoint.

    Args:
        session: A snapshot.
        held: From `collect`.
        erased: The erasure that followed from them, if one did.
        statement: The executors' order of it.
    """
    size, note = log.head(session)
    hash_at = log.hashes_at(session, size)
    found = [*held.leaves, *([] if erased is None else log.read(session, [erased]))]
    leaves = tuple(
        LoggedLeaf(
            leaf.index, leaf.entry, tuple(inclusion_proof(leaf.index, size, hash_at)), leaf.public, leaf.personal
        )
        for leaf in sorted(found, key=lambda leaf: leaf.index)
    )
    records = records_by_hash([*held.records, *([statement] if statement else [])])
    return dump_bundle(Bundle(note, leaves, records, witnessed=witnessed(session, size, hash_at)))
