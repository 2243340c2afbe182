"""What computes for an answer computes in the thread that asked for it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import vault.app
from vault.threads import one_thread


def threads_in_use() -> set[int]:
    """Return how many threads torch and BLAS use where a thread that is new calls them."""

    def seen() -> set[int]:
        np.ones((64, 64)) @ np.ones((64, 64))
        blas = {int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"}
        assert blas
        return {torch.get_num_threads(), *blas}

    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(seen).result()


@pytest.fixture
def _three() -> None:
    torch.set_num_threads(3)
    threadpool_limits(3, user_api="blas")
    assert threads_in_use() == {3}


@pytest.mark.usefixtures("_three")
def test_every_thread_computes_alone() -> None:
    one_thread()
    assert threads_in_use() == {1}


@pytest.mark.usefixtures("_three")
def test_an_app_started_by_hand_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []

    class Served:
        def run(self, *, sockets: list[socket.socket]) -> None:
            seen.append(threads_in_use())

    class Settings:
        listener, host, port, connection_counts, place = None, "127.0.0.1", 0, None, 0

    monkeypatch.setattr(vault.app, "server_of", lambda *_: Served())
    settings: Any = Settings()
    vault.app.run(vault.app.FastAPI(), settings)
    assert seen == [{1}]
