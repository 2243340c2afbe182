"""Checks that take most of a verifier's time and need nothing but what they are given: they may run in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from vault.errors import VaultError
from vault.proof.decision import Decision, evaluate, parse_policy_set
from vault.proof.decision_record import DecisionRecord
from vault.proof.jose import parse_jwk
from vault.proof.question import verify_signature
from vault.proof.report import Step


@dataclass(slots=True)
class Deferred:
    """A check that nothing else waits for, and who judges what it finds.

    Args:
        place: How many failures were known when its step got to it.
        step: Whose it is.
        leaf_index: What it is about.
        check: Pure; whoever has the processors for it runs it.
        judge: Takes what `check` returned.
        outdone: Whether its step went on and failed at something after it.
    """

    place: int
    step: Step
    leaf_index: int | None
    check: Callable[[], object]
    judge: Callable[[Any], None]
    outdone: bool = False

    def refusal(self, result: object) -> str:
        """Return why what `check` returned does not hold; nothing if it does."""
        try:
            self.judge(result)
        except VaultError as refusal:
            return refusal.detail
        return ""


Each: TypeAlias = Callable[
    [Callable[[Callable[[], object]], tuple[object, str]], Iterable[Callable[[], object]]],
    Iterable[tuple[object, str]],
]
"""Like `map`: applies a function to each item and gives what it returns in their order, in whatever processes."""


def settle(check: Callable[[], object]) -> tuple[object, str]:
    """Run a deferred check; return what it found, or why it refused."""
    try:
        return check(), ""
    except VaultError as refusal:
        return None, refusal.detail


def check_signature(jws: str, jwk: str, **said: Any) -> None:
    """Run `verify_signature` under a key that is spelled out: one that is ready to use cannot go to another process."""
    verify_signature(jws, parse_jwk(jwk), **said)


def decide_again(decision: DecisionRecord, policy_set: bytes) -> Decision:
    """Evaluate a record under the policy set of these bytes."""
    return evaluate(decision, parse_policy_set(policy_set))


def holds(_nothing: object) -> None:
    """Accept a check that would have refused by itself."""
