"""Two processes train as one: equal parameters, equal epsilon, and the same step as one process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def _train(tmp_path: Path, processes: int, noise: float) -> list[dict[str, Any]]:
    meeting = tmp_path / f"meeting-{processes}"
    # GLOO_SOCKET_IFNAME: the two meet on this machine's loopback, whatever its name resolves to.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.twin.distributed_child", str(meeting), str(rank), str(processes), str(noise)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    found = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0] * processes
    return [json.loads(one) for one in found]


@pytest.mark.slow
def test_two_processes_end_with_equal_parameters_and_epsilon(tmp_path: Path) -> None:
    noise = 1_000.0
    one, two = _train(tmp_path, 2, noise)
    assert one["parameters"] == two["parameters"]
    assert one["epsilon"] == two["epsilon"] > 0
    # Five steps of one process's noise over the expected 18 people; no noise would be a hundred times less.
    moved = np.std(np.concatenate(one["parameters"])) / (np.sqrt(5) * noise * 0.5 / 18)
    assert 0.5 < moved < 1.6


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    together = _train(tmp_path, 2, noise=1e-7)[0]["parameters"]
    alone = _train(tmp_path, 1, noise=1e-7)[0]["parameters"]
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
