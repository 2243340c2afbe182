"""Remove each guard in a copy of the tree and demand that its test then fails.

A test that passes without the line it is meant to watch watches nothing, and neither does one that
fails anyway: all tests are run once with every guard in place first. One that fails beside others is
tried once more alone, as everywhere in CI; it must pass there, and it is named. So is a test that did not
bite at once and is tried again: now and then a race is won without its guard.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_WORKERS = 2
_TEST_S = 120
_ALL_TESTS_S = 1800
_ATTEMPTS = 3
_SKIP = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "dist", "*-site"
)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::[^\s\[]+(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)
_mtimes = count(1)  # bytecode is told apart by size and whole second, so every version gets its own


@dataclass(frozen=True)
class Guard:
    """One line that stops an attack, what removes it, and the test that must then fail."""

    name: str
    invariant: int
    file: str
    find: str
    put: str
    test: str


def load() -> list[Guard]:
    """Return every guard listed in guards.toml."""
    return [Guard(**entry) for entry in tomllib.loads((_HERE / "guards.toml").read_text())["guard"]]


def failing(tests: set[str], tree: Path) -> set[str]:
    """Return the ids of those tests that fail although every guard is in place.

    Raises:
        RuntimeError: pytest itself could not run them.
    """
    if not tests:
        return set()
    status, output = _pytest(tree, "-rfE", *sorted(tests), limit_s=_ALL_TESTS_S)
    if status not in {0, 1}:
        raise RuntimeError(f"the tests cannot be run:\n{output[-2000:]}")
    return set(_FAILED.findall(output))


def complaint(guard: Guard, tree: Path) -> str | None:
    """Say why a guard is not shown to matter, or return None when its test bites.

    Args:
        guard: The entry to try.
        tree: A copy of the tree that nothing else uses meanwhile; it is left as it was.
    """
    with _removed(guard, tree) as done:
        if not done:
            return "its `find` text does not occur exactly once"
        try:
            status, output = _pytest(tree, "-x", guard.test, limit_s=_TEST_S)
        except subprocess.TimeoutExpired:
            return f"its test neither failed nor passed in {_TEST_S} s"
    if status == 1 and re.search(r"\d+ failed", output):
        return None
    return f"its test did not fail (pytest exit {status}: {' '.join(output.strip().splitlines()[-1:])})"


def tried(guard: Guard, tree: Path) -> tuple[str | None, str | None]:
    """Try a guard up to three times, until its test bites.

    Returns:
        What the last attempt complains of, and what the first one did.
    """
    first = last = complaint(guard, tree)
    for _ in range(_ATTEMPTS - 1):
        if last is None:
            break
        last = complaint(guard, tree)
    return last, first


@contextmanager
def _removed(guard: Guard, tree: Path) -> Iterator[bool]:
    target = tree / guard.file
    original = target.read_text() if target.is_file() else ""
    if original.count(guard.find) != 1:
        yield False
        return
    try:
        _write(target, original.replace(guard.find, guard.put))
        yield True
    finally:
        _write(target, original)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    stamp = next(_mtimes)
    os.utime(path, (stamp, stamp))


def _pytest(tree: Path, *args: str, limit_s: float) -> tuple[int, str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'clients/python'}",
        "TWINVAULT_SHARED": os.environ.get("TWINVAULT_SHARED", str((ROOT / ".." / "shared").resolve())),
    }
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *args]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as run:  # fmt: skip
        try:
            output, _ = run.communicate(timeout=limit_s)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # what the test started must not outlive it
            raise
    return run.returncode, output


def main() -> int:
    """Try all guards, as many at a time as there are copies, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only guards whose name, file or test contains one of these")
    wanted = parser.parse_args().names
    guards = [g for g in load() if not wanted or any(word in f"{g.name} {g.file} {g.test}" for word in wanted)]
    if not guards:
        print("no guard of that name")  # noqa: T201
        return 1
    with tempfile.TemporaryDirectory(prefix="unguard-") as folder, ThreadPoolExecutor(_WORKERS) as pool:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        copies = [Path(folder) / str(number) for number in range(_WORKERS)]
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=_SKIP, symlinks=True)
            trees.put(copy)
        tests = {guard.test for guard in guards}
        halves = [{t for t in tests if sum(t.split("::")[0].encode()) % _WORKERS == n} for n in range(_WORKERS)]
        beside = set().union(*pool.map(failing, halves, copies))
        broken = failing(beside, copies[0])
        for test in sorted(beside - broken):
            print(f"failed beside other tests, passed alone: {test}", flush=True)  # noqa: T201

        def attempt(guard: Guard) -> tuple[str | None, str | None]:
            if any(test == guard.test or test.startswith(f"{guard.test}[") for test in broken):
                return ("its test fails with the guard in place",) * 2
            tree = trees.get()
            try:
                return tried(guard, tree)
            finally:
                trees.put(tree)

        failed, weak = [], []
        for guard, (last, first) in zip(guards, pool.map(attempt, guards), strict=True):
            name = f"[{guard.invariant}] {guard.name}"
            if last:
                failed.append(f"FAIL {name}: {last}")
            elif first:
                weak.append(f"did not bite at the first attempt: {name}: {first}")
            print(failed[-1] if last else f"ok   {name}", flush=True)  # noqa: T201
    # All of it at the end: those who look at CI see no more of its output.
    print(*weak, *failed, f"{len(guards) - len(failed)} passed, {len(failed)} failed", sep="\n")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
