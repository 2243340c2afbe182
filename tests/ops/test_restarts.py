"""Who ends is started again, later each time; the app outlives a worker that does not start."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace

import pytest

from vault.ops import supervisor
from vault.ops.supervisor import Supervisor


@dataclass
class Machine:
    """Processes that live or die as the test says, and a clock."""

    dying: set[str]
    now_s: float = 0.0
    started: dict[str, list[float]] = field(default_factory=dict)

    def start(self, running: Supervisor, role: str) -> None:
        self.started.setdefault(role, []).append(self.now_s)
        running._started_s[role] = self.now_s
        ended = SimpleNamespace(poll=lambda: 1 if role in self.dying else None, returncode=1)
        running._running[role] = ended  # type: ignore[assignment]

    def watch(self, running: Supervisor, for_s: int) -> int:
        """Return the first status that ends the supervisor, or 0."""
        for _ in range(for_s):
            self.now_s += 1
            if (status := running._watch()) != 0:
                return status
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(set())
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: made.now_s))

    def start(running: Supervisor, role: str) -> None:
        made.start(running, role)

    monkeypatch.setattr(Supervisor, "_start", start)
    return made


def begun(*roles: str) -> Supervisor:
    running = Supervisor({role: {} for role in roles})
    for role in roles:
        running._start(role)
    return running


def test_a_worker_that_does_not_start_never_ends_the_app_and_is_tried_again_later_each_time(machine: Machine) -> None:
    running = begun("app-1", "app-2", "worker")
    machine.dying.add("worker")
    assert machine.watch(running, 600) == 0
    assert {role: len(machine.started[role]) for role in ("app-1", "app-2")} == {"app-1": 1, "app-2": 1}
    times = machine.started["worker"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:7] == sorted(gaps[:7])
    assert (gaps[0], gaps[-1]) == (2, 61)  # a second until it is seen, then the wait
    machine.dying.clear()
    assert machine.watch(running, 61) == 0
    assert "worker" in running._running


def test_one_process_of_the_app_that_does_not_start_leaves_the_other(machine: Machine) -> None:
    running = begun("app-1", "app-2")
    machine.dying.add("app-1")
    assert machine.watch(running, 600) == 0
    assert len(machine.started["app-2"]) == 1


@pytest.mark.parametrize("roles", [("app-1", "app-2", "worker"), ("worker",)])
def test_it_ends_where_nothing_that_is_needed_starts(machine: Machine, roles: tuple[str, ...]) -> None:
    """Half a minute without a database is survived; then whoever started the supervisor must know."""
    running = begun(*roles)
    machine.dying |= {role for role in roles if role != "worker" or len(roles) == 1}
    assert machine.watch(running, 31) == 0
    assert machine.watch(running, 60) == 1
