"""The cohort: hundreds of owners, each with keys of their own, acted by a few client processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from twinvault.api import Api
from twinvault.demo.histories import COHORT_MONTHS, PURCHASE, TIME_ZONE, days_by_code, read_traces
from twinvault.owner import Owner
from twinvault.profile import read_trust
from twinvault.terms import YEAR_S, own_terms
from twinvault.vaults import create_vault
from vault.clock import SystemClock, unix_s
from vault.proof.trust import TrustedRoot
from vault.schema.terms import ConsentKind
from vault.seal.person import Profile as Person

_PROCESSES: Final = 4  # more than the cores: each waits for the disk and the service most of its time


@dataclass(frozen=True, slots=True)
class Joined:
    """One household whose vault is filled and whose consents are given.

    Args:
        traces: How many traces it sealed.
        share: On which share of its shop days each code was bought: counted on the client's side.
    """

    traces: int
    share: dict[str, float]


class Clients:
    """A few processes that act as the households' own machines; use it as a context.

    Args:
        homes: Folder for the households' local profiles.
        trust_file: What each of them pins.
    """

    def __init__(self, homes: Path, trust_file: Path) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of this process's keys or connections goes along
        self._pool = ProcessPoolExecutor(_PROCESSES, context, _begin, (homes, trust_file))

    def __enter__(self) -> Self:
        """Start them in the background."""
        for _ in range(_PROCESSES):
            self._pool.submit(_ready)
        return self

    def __exit__(self, *_: object) -> None:
        """Begin nothing more and wait for what is under way."""
        self._pool.shutdown(cancel_futures=True)

    def join(self, files: dict[int, Path], joined: Callable[[Joined], None]) -> None:
        """Let every household begin a vault, upload its history once, and give self and cohort consent.

        Args:
            files: One file a household.
            joined: Called for every household that is done.

        Raises:
            VaultError: The service refused one of them.
        """
        for done in as_completed([self._pool.submit(_join, number, file) for number, file in files.items()]):
            joined(done.result())


class _Town:
    """What one client process shares between its households: connections, not keys."""

    homes: Path
    trust: TrustedRoot
    api: Api


def _begin(homes: Path, trust_file: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it cancels what waits
    _Town.homes, _Town.trust = homes, read_trust(trust_file)
    _Town.api = Api(_Town.trust.issuer)


def _ready() -> None:
    """Do nothing: whoever can be asked to has started."""


def _join(number: int, file: Path) -> Joined:
    traces = read_traces(file, COHORT_MONTHS)
    api, clock = _Town.api, SystemClock()
    # No passphrase: a slot under the recovery code opens each of these vaults.
    profile, keys, _ = create_vault(
        api, _Town.homes / f"household-{number}", _Town.trust, passphrase=None, time_zone=TIME_ZONE,
        categories=[PURCHASE], periods=COHORT_MONTHS, person=Person(), clock=clock,
    )  # fmt: skip
    owner = Owner(api, profile, keys, clock)
    owner.device.add(traces)
    owner.device.flush()
    now_s = unix_s(clock.now())
    owner.give_all(
        own_terms(
            kind, _Town.trust.issuer, [PURCHASE], data_from=COHORT_MONTHS[0], data_to=COHORT_MONTHS[-1],
            not_before=now_s, not_after=now_s + YEAR_S,
        )
        for kind in (ConsentKind.SELF, ConsentKind.COHORT)
    )  # fmt: skip
    owner.refresh()
    owner.device.close()  # the connections stay for the next household
    return Joined(len(traces), days_by_code(traces))
