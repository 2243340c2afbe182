"""Verifying in several processes finds the same in the same order, and says so where one of them ends before its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from twinvault.processes import CHUNK, ProcessDied, Processes
from vault.proof.errors import InvalidProof

SLOW_SCRIPT = """
import signal, sys, time
from twinvault.processes import Processes
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    with Processes(2) as each:
        for number in each(abs, range(10**9)):
            if number == 4 * 256:
                print(*(child.pid for child in each._pool._processes.values()), flush=True)
"""


def _square(number: int) -> int:
    return number * number


def _process(_number: int) -> int:
    return os.getpid()


def _heeds_interrupts(_number: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _end_at_1000(number: int) -> int:
    if number == 1000:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _refuse_at_1000(number: int) -> int:
    if number == 1000:
        raise InvalidProof("The thousandth.")
    return number


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2) as each:
        yield each


def test_every_item_comes_back_once_and_in_order(two: Processes) -> None:
    for count in (0, 1, CHUNK - 1, CHUNK, 10 * CHUNK + 1):
        assert list(two(_square, range(count))) == [n * n for n in range(count)]
    assert os.getpid() not in set(two(_process, range(2 * CHUNK)))


def test_what_is_not_worth_it_or_not_wanted_starts_no_process() -> None:
    for count, items in ((2, CHUNK - 1), (1, 2 * CHUNK)):
        with Processes(count) as each:
            assert set(each(_process, range(items))) == {os.getpid()}


def test_items_are_looked_at_only_so_far_ahead(two: Processes) -> None:
    seen: list[int] = []
    found = two(_square, (seen.append(n) or n for n in range(100 * CHUNK)))  # type: ignore[func-returns-value]
    assert next(found) == 0
    assert len(seen) == 4 * CHUNK


def test_a_process_that_dies_is_no_end_of_the_items() -> None:
    found: list[int] = []
    with Processes(2) as each, pytest.raises(ProcessDied, match="nothing is proven"):
        found.extend(each(_end_at_1000, range(100 * CHUNK)))
    assert found == list(range(len(found)))
    assert len(found) < 1000


def test_what_a_function_raises_elsewhere_is_raised_here(two: Processes) -> None:
    with pytest.raises(InvalidProof, match="thousandth"):
        list(two(_refuse_at_1000, range(10 * CHUNK)))


def test_an_interrupt_is_for_this_process_alone(two: Processes) -> None:
    assert not any(two(_heeds_interrupts, range(2 * CHUNK)))
    assert _heeds_interrupts(0)


def test_who_interrupts_ends_all_of_them() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW_SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as script:  # fmt: skip
        assert script.stdout is not None
        children = [int(name) for name in script.stdout.readline().split()]
        os.killpg(script.pid, signal.SIGINT)  # as a terminal does
        _, said = script.communicate(timeout=60)
    assert script.returncode == -signal.SIGINT
    assert said.count("KeyboardInterrupt") == 1, "the others do not complain"
    assert len(children) == 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
