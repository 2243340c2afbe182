"""How long a declaration waited, by clocks that are not the service's: those of the witnesses.

The service dates the steps of a legacy itself. Together with executors it could date a declaration back and let it take
effect the same day. So the step that puts it in force names two cosigned checkpoints: one that covers the declaration,
which was there by the time that witnesses cosigned it, and the newest one there was, which witnesses had cosigned before
the step could name it.

Source: C2SP tlog-cosignature: a cosignature carries the witness's own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof, MalformedProof
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.note import VerifierKey
from vault.proof.witness import WitnessPolicy, verify_cosignatures
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames

SLACK_S: Final = 3_600
"""By how much the witnesses may see less than the owner's waiting period: they are asked every few seconds, if they
are there."""

_FORMAT: Final = b"twinvault-waited/1"
_MAX_BYTES: Final = 1 << 17


@dataclass(frozen=True)
class Waited:
    """What witnesses saw of a waiting period, not yet verified.

    Args:
        begun: The note of a cosigned checkpoint that covers the declaration.
        path: Inclusion proof of the declaration under it.
        over: The note of the newest cosigned checkpoint when it was put in force.
    """

    begun: str
    path: tuple[bytes, ...]
    over: str

    def dump(self) -> bytes:
        """Return it as the record that the step names."""
        return frames(_FORMAT, self.begun.encode(), self.over.encode(), *self.path)


def parse_waited(unverified_record: bytes) -> Waited:
    """Read what a step names.

    Raises:
        MalformedProof: It is not such a record.
    """
    try:
        reader = Reader(unverified_record, _MAX_BYTES)
        named, begun, over = reader.frame(), reader.frame(), reader.frame()
        path = []
        while reader.left_bytes:
            path.append(reader.frame())
        if named != _FORMAT:
            raise MalformedProof("What the step names is no proof of how long it waited.")
        return Waited(begun.decode(), tuple(path), over.decode())
    except (SealError, UnicodeDecodeError) as error:
        raise MalformedProof("The proof of how long the declaration waited is cut short or altered.") from error


def verify_waited(unverified: Waited, index: int, entry: bytes, log: VerifierKey, policy: WitnessPolicy) -> int:
    """Return how many seconds lay between a leaf and whatever names this, by as many witnesses as are demanded.

    Args:
        unverified: As parsed.
        index: Leaf index of the declaration.
        entry: Its entry.
        log: The log's key; its name is the origin.
        policy: Whose cosignatures count, and how many it takes.

    Raises:
        MalformedProof: A note is none.
        InvalidProof: The log or a witness did not sign, too few did, or the first checkpoint does not cover the leaf.
    """
    begun = verify_checkpoint(unverified.begun, log, log.name)
    verify_inclusion(leaf_hash(entry), index, begun.size, unverified.path, begun.root)
    over = verify_checkpoint(unverified.over, log, log.name)
    # The first was there when the slowest of a quorum had cosigned it, the second not before the fastest of one had.
    by_s = sorted(_times(unverified.begun, begun, policy))[policy.quorum - 1]
    after_s = sorted(_times(unverified.over, over, policy), reverse=True)[policy.quorum - 1]
    return after_s - by_s


def _times(note: str, checkpoint: Checkpoint, policy: WitnessPolicy) -> Sequence[int]:
    found = verify_cosignatures(note, checkpoint, policy.keys)
    if len(found) < policy.quorum:
        raise InvalidProof(
            f"{len(found)} trusted witnesses cosigned what shows the waiting where {policy.quorum} must."
        )
    return [*found.values()]
