"""A visit's facts: the published funnel of a shop's session, each step scaled by a public bound.

Nothing in it is learned from people. The bounds were set by hand: pages and seconds of a visit, shares, and the
shop's own value of a page.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vault.encoding import JsonObject, dump_json
from vault.schema.session import UNKNOWN_VALUE, Session, Visitor

Facts: TypeAlias = npt.NDArray[np.float32]

_LOGARITHMIC: Final = {
    "administrative_pages": 50,
    "administrative_s": 3_600,
    "informational_pages": 50,
    "informational_s": 3_600,
    "product_pages": 500,
    "product_s": 36_000,
}
_LINEAR: Final = {"bounce_rate_ppm": 200_000, "exit_rate_ppm": 200_000, "special_day_ppm": 1_000_000}
_PAGE_VALUE_MILLI: Final = 400_000
_PUBLISHED: Final[JsonObject] = {
    "version": "funnel-1",
    "logarithmic": dict(_LOGARITHMIC),
    "linear": dict(_LINEAR),
    "page_value_milli": _PAGE_VALUE_MILLI,
    "flags": ["weekend", *(f"month-{month}" for month in range(1, 13)), *(f"visitor-{one}" for one in Visitor)],
    "scaling": "logarithmic: log(1 + min(x, bound)) / log(1 + bound); linear: min(x, bound) / bound; page value: logarithmic, then above 0, then known; each fact within 0 and 1",
}

DIGEST: Final = hashlib.sha256(dump_json(_PUBLISHED)).digest()
"""SHA-256 of the funnel's canonical JSON: names it in manifests."""

SIZE: Final = len(_LOGARITHMIC) + len(_LINEAR) + 1 + 12 + len(Visitor) + 3


def facts(session: Session) -> Facts:
    """Return a session's facts.

    Returns:
        float32[SIZE], each within 0 and 1; the last three are of the page value, and 0 where it is not known.
    """
    value = session.page_value_milli
    return np.array(
        [
            *(_log_share(getattr(session, name), bound) for name, bound in _LOGARITHMIC.items()),
            *(min(getattr(session, name), bound) / bound for name, bound in _LINEAR.items()),
            float(session.weekend),
            *(float(session.month == month) for month in range(1, 13)),
            *(float(session.visitor is visitor) for visitor in Visitor),
            _log_share(max(value, 0), _PAGE_VALUE_MILLI),
            float(value > 0),
            float(value != UNKNOWN_VALUE),
        ],
        dtype=np.float32,
    )


def without_page_value(facts_known: Facts) -> Facts:
    """Return facts [..., SIZE] as they are where the shop does not reckon page values."""
    unknown = facts_known.copy()
    unknown[..., -3:] = 0.0
    return unknown


def _log_share(value: int, bound: int) -> float:
    return float(np.log1p(min(value, bound)) / np.log1p(bound))
