"""The head that says whether a visit ends in a purchase: a small network over the visit's published facts.

It reads the company's own session and nothing of the person's: no imprint row, no trace. What a person's consent
allows, counts and logs is that a company is told a probability about them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from vault.imprint.funnel import DIGEST, SIZE, facts
from vault.proof.certificate import Manifest, parse_manifest
from vault.schema.answer import Confidence, Prediction
from vault.schema.question import PURCHASE
from vault.schema.session import UNKNOWN_VALUE, Session
from vault.twin.infer import GRID_PPM, MOST_PPM, Prognosis
from vault.twin.reader import BadBackbone

Floats = npt.NDArray[np.float32]

MAGIC: Final = b"TVFUNNL1"
HIDDEN: Final = 32
BASE_RATE: Final = 0.155
"""Share of visits that end in a purchase, as published with the set that the shipped head learned from."""

_HEADER: Final = struct.Struct("<8s32s")
_SHAPES: Final = ((HIDDEN, SIZE), (HIDDEN,), (HIDDEN,), (1,), (2,))
_COUNT: Final = sum(int(np.prod(shape)) for shape in _SHAPES)
_MEDIUM_FROM: Final = 1.0  # how far, in log-odds, a visit is from an ordinary one
_HIGH_FROM: Final = 2.0


@dataclass(frozen=True, eq=False)
class Head:
    """The released network.

    Args:
        map_digest: Digest of the funnel that it reads, 32 bytes.
        first: float32[HIDDEN, SIZE]
        first_bias: float32[HIDDEN]
        second: float32[HIDDEN]
        bias: float32[1]
        offset: float32[2] added to the log-odds: where the page value is known, and where it is not.
    """

    map_digest: bytes
    first: Floats
    first_bias: Floats
    second: Floats
    bias: Floats
    offset: Floats

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: the model's name everywhere."""
        return hashlib.sha256(dump_head(self)).digest()

    def log_odds(self, visits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the log-odds of a purchase.

        Args:
            visits: [..., SIZE] from `facts`.

        Returns:
            float64[...].
        """
        read = visits.astype(np.float64)
        inner = np.tanh(read @ self.first.T.astype(np.float64) + self.first_bias)
        known = read[..., -1] > 0
        odds: npt.NDArray[np.float64] = (
            inner @ self.second.astype(np.float64) + self.bias[0] + np.where(known, *self.offset.astype(np.float64))
        )
        return odds


def dump_head(head: Head) -> bytes:
    """Return the one spelling: magic, the funnel's digest, then little-endian float32."""
    parts = (head.first, head.first_bias, head.second, head.bias, head.offset)
    return _HEADER.pack(MAGIC, head.map_digest) + b"".join(part.astype("<f4").tobytes() for part in parts)


def parse_head(data: bytes) -> Head:
    """Read a head's bytes.

    Raises:
        BadBackbone: Another length, magic or funnel, or a value that is not finite.
    """
    if len(data) != _HEADER.size + 4 * _COUNT or not data.startswith(MAGIC):
        raise BadBackbone("A head's magic or length is wrong.")
    values = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
    map_digest = _HEADER.unpack_from(data)[1]
    if not np.isfinite(values).all() or map_digest != DIGEST:
        raise BadBackbone("A head holds a value that no training writes, or reads another funnel.")
    ends = np.cumsum([int(np.prod(shape)) for shape in _SHAPES])
    parts = (part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), _SHAPES, strict=True))
    return Head(map_digest, *parts)


def shipped() -> tuple[Head, Manifest]:
    """Return the head that this release ships, with its manifest."""
    folder = resources.files("vault.twin") / "data"
    head = parse_head((folder / "funnel-1.head").read_bytes())
    return head, parse_manifest((folder / "funnel-1.manifest.json").read_bytes())


def foretell(head: Head, session: Session) -> Prognosis:
    """Say how probable it is that a visit ends in a purchase.

    The probability is rounded and bounded as all scores are. The head abstains about a visit in which no page was
    seen. Confidence is how far the visit is from an ordinary one; without page values it is never high.

    Args:
        head: With a verified certificate.
        session: The visit so far.
    """
    if not session.pages:
        return Prognosis((), Confidence.NONE)
    odds = float(head.log_odds(facts(session)))
    ppm = round(1e6 / (1.0 + np.exp(-odds)) / GRID_PPM) * GRID_PPM
    prediction = Prediction(PURCHASE, min(max(ppm, GRID_PPM), MOST_PPM))
    moved = abs(odds - float(np.log(BASE_RATE / (1.0 - BASE_RATE))))
    if moved >= _HIGH_FROM and session.page_value_milli != UNKNOWN_VALUE:
        return Prognosis((prediction,), Confidence.HIGH)
    return Prognosis((prediction,), Confidence.MEDIUM if moved >= _MEDIUM_FROM else Confidence.LOW)
