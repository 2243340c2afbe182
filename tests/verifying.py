"""Verifying a bundle twice: in one go, and with what may run in other processes sent there and back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

from vault.proof.bundle import Bundle
from vault.proof.established import Carried
from vault.proof.report import Report
from vault.proof.trust import TrustedRoot
from vault.proof.verify import verify_bundle

Check = Callable[[], object]


def verify_both(bundle: Bundle, trust: TrustedRoot, carried: Carried | None = None) -> Report:
    """Return the report; what runs elsewhere must find the same, in the same order."""
    apart = verify_bundle(bundle, trust, deepcopy(carried), _sent)
    report = verify_bundle(bundle, trust, carried)
    assert apart == report
    return report


def _sent(run: Callable[[Check], tuple[object, str]], checks: Iterable[Check]) -> Iterator[tuple[object, str]]:
    there = pickle.loads(pickle.dumps((run, list(checks))))
    back: list[tuple[object, str]] = pickle.loads(pickle.dumps([there[0](check) for check in there[1]]))
    return iter(back)
