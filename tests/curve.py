"""Ed25519 by the book, to make what no honest signer makes: signatures that one verifier takes and another refuses.

Plain arithmetic of RFC 8032 section 5.1, with secrets that are small numbers. Nothing here is fit to keep a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
ZERO: Point = (0, 1)
_SIGN = 2**255


@dataclass(frozen=True)
class Forgery:
    """A key and a signature over a message.

    Args:
        name: What is special about them.
        key: 32 bytes, unless that is what is special.
        signature: 64 bytes, likewise.
        accepted: Whether the rule of `docs/protocol.md` takes them.
    """

    name: str
    key: bytes
    signature: bytes
    accepted: bool = False


def point_of(y: int, sign: int) -> Point | None:
    """Return the point with this y, or None where the curve has none."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * _ROOT % P
    if (x * x - square) % P:
        return None
    return (x if x & 1 == sign else -x % P), y


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    cross = _D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + cross, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - cross, -1, P)
    return x % P, y % P


def times(n: int, point: Point) -> Point:
    total = ZERO
    while n:
        total, point, n = (add(total, point) if n & 1 else total), add(point, point), n >> 1
    return total


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def hashed(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


def _order_8() -> Point:
    """Return a point that makes all eight of small order."""
    found = (times(L, point) for y in count(2) for point in [point_of(y, 0)] if point is not None)
    return next(point for point in found if times(4, point) != ZERO)


_FOUR_FIFTHS = point_of(4 * pow(5, -1, P) % P, 0)
assert _FOUR_FIFTHS is not None
BASE: Point = _FOUR_FIFTHS
SMALL: tuple[Point, ...] = tuple(times(n, _order_8()) for n in range(8))
"""The points of small order, the n-th n times a point of order 8."""

SPELLED: tuple[tuple[bytes, int], ...] = tuple(
    sorted(
        {(encoded(point), n) for n, point in enumerate(SMALL)}
        # x is 0: a sign that says nothing. y is 0 or 1: the prime may be added, and 255 bits still hold it.
        | {((SMALL[n][1] + _SIGN).to_bytes(32, "little"), n) for n in (0, 4)}
        | {((P + 1 + sign).to_bytes(32, "little"), 0) for sign in (0, _SIGN)}
        | {((P + _SIGN * (SMALL[n][0] & 1)).to_bytes(32, "little"), n) for n in (2, 6)}
    )
)
"""Every encoding of those points that 32 bytes can hold, with their numbers."""

_SECRET = 1_000_003
_KEY = times(_SECRET, BASE)


def _r(count_from: int) -> Iterator[tuple[int, Point]]:
    """Yield ever other nonces with their points, beginning after so many."""
    point = times(count_from, BASE)
    for nonce in count(count_from):
        yield nonce, point
        point = add(point, BASE)


def _joined(r: bytes, s: int) -> bytes:
    return r + s.to_bytes(32, "little")


def _signed(key: bytes, r: Point, nonce: int, message: bytes) -> bytes:
    """Sign with the secret of `_KEY`, whatever stands in the key and in R besides."""
    return _joined(encoded(r), (nonce + hashed(encoded(r), key, message) * _SECRET) % L)


def forgeries(message: bytes) -> Iterator[Forgery]:
    """Yield every special case over one message; each that is refused holds by some laxer rule in use."""
    key = encoded(_KEY)
    nonce, r = next(_r(777))
    honest = _signed(key, r, nonce, message)
    yield Forgery("honest", key, honest, accepted=True)
    yield from _of_the_scalar(key, honest)
    yield from _under_small_keys(message)
    yield from _with_small_r(message)
    for n in range(1, 8):
        yield Forgery(f"r-plus-small-{n}", key, _signed(key, add(r, SMALL[n]), nonce, message))
        yield from _under_a_mixed_key(n, message)
    for y in range(2, 19):  # the other y that have two spellings; nobody knows a secret of those
        yield Forgery(f"key-y-is-p-plus-{y}", (P + y).to_bytes(32, "little"), honest)
    for name, changed in {"short": key[:31], "long": key + b"\0", "empty": b""}.items():
        yield Forgery(f"key-{name}", changed, honest)
    for name, changed in {"short": honest[:63], "long": honest + b"\0", "empty": b"", "r-only": honest[:32]}.items():
        yield Forgery(f"signature-{name}", key, changed)


def _of_the_scalar(key: bytes, honest: bytes) -> Iterator[Forgery]:
    s = int.from_bytes(honest[32:], "little")
    for n in (1, 2, 7, 14):
        yield Forgery(f"s-plus-{n}-l", key, _joined(honest[:32], s + n * L))
    yield Forgery("s-with-its-top-bit", key, _joined(honest[:32], s + _SIGN))
    yield Forgery("r-with-the-other-sign", key, honest[:31] + bytes([honest[31] ^ 0x80]) + honest[32:])


def _under_small_keys(message: bytes) -> Iterator[Forgery]:
    """Nobody's signatures: under a key of small order a hash divisible by its order lets any R = S B hold."""
    for key, n in SPELLED:
        fits = (
            _joined(encoded(r), nonce)
            for nonce, r in _r(1)
            if times(hashed(encoded(r), key, message) % 8, SMALL[n]) == ZERO
        )
        yield Forgery(f"key-of-small-order-{key.hex()[:4]}-{key.hex()[-2:]}", key, next(fits))
    yield Forgery("all-zero", bytes(32), bytes(64))


def _with_small_r(message: bytes) -> Iterator[Forgery]:
    """A key with a part of small order makes the equation hold with an R of small order."""
    for r, n in SPELLED:
        fits = (
            Forgery(f"r-of-small-order-{r.hex()[:4]}-{r.hex()[-2:]}", key, _joined(r, h * secret % L))
            for secret, point in _r(_SECRET)
            for key in [encoded(add(point, SMALL[1]))]
            for h in [hashed(r, key, message)]
            if (n + h) % 8 == 0
        )
        yield next(fits)


def _under_a_mixed_key(n: int, message: bytes) -> Iterator[Forgery]:
    """A key that is somebody's plus a point of small order: the equation holds where the hash takes that point away."""
    key = encoded(add(_KEY, SMALL[n]))
    held: dict[bool, bytes] = {}
    for nonce, r in _r(1):
        holds = n * hashed(encoded(r), key, message) % 8 == 0
        held.setdefault(holds, _signed(key, r, nonce, message))
        if len(held) == 2:
            break
    yield Forgery(f"mixed-key-{n}", key, held[True], accepted=True)
    yield Forgery(f"mixed-key-{n}-only-up-to-the-cofactor", key, held[False])
