from __future__ import annotations

import os
import signal

import pytest

from tests.waiting import until
from vault.lifeline import end_with


def test_who_holds_the_other_end_keeps_a_process_alive_and_nobody_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *what: ended.append(what))
    read, held = os.pipe()
    end_with(None)
    end_with(read)
    assert ended == []
    os.close(held)
    until(lambda: ended, "the process ends itself", bound_s=30)
    assert ended == [(os.getpid(), signal.SIGTERM)]
    os.close(read)
