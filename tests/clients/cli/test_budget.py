"""`owner budget`: the ledger's own numbers, in words, bars and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tests.client_kit import PURCHASE, purchases
from twinvault.api import ApiError
from twinvault.cli import common, main
from twinvault.cli.budget import show
from vault.schema.terms import ConsentKind

HONEST = {
    "caps": {"day": {"epsilon": 3.0, "delta": 1e-6}, "person": {"epsilon": 3.0, "delta": 1e-6}},
    "delta": 1e-6,
    "months": [{"period": "2026-09", "day": 2.5, "person": 1.25, "composed": 2.875}],
}


def said(found: Any) -> str:
    out = StringIO()
    show(found, Console(file=out, width=100))
    return out.getvalue()


def test_an_owner_sees_what_the_ledger_holds(
    new_owner: Callable[..., Any],
    work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner, _ = new_owner()
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    owner.import_traces(purchases(5, month=1))
    owner.refresh()
    work()
    monkeypatch.setattr(common, "unlock_owner", lambda *_: owner)
    with pytest.raises(SystemExit):
        main(["owner", "budget", "--json"])
    found = json.loads(capsys.readouterr().out)
    january = next(month for month in found["months"] if month["period"] == "2026-01")
    assert 2.9 < january["day"] <= found["caps"]["day"]["epsilon"]
    assert found == owner.budget()
    with pytest.raises(SystemExit):
        main(["owner", "budget"])
    out = capsys.readouterr().out
    assert "2026-01" in out
    assert f"{january['day']:.2f}" in out


def test_it_says_what_is_spent_and_left_and_what_no_budget_hides() -> None:
    out = said(HONEST)
    day, year = (line.split() for line in out.splitlines() if line.startswith(("2026-09", "2026 ")))
    assert [word for word in day if "." in word] == ["2.50", "0.50", "2.88"]
    assert [word for word in year if "." in word] == ["1.25", "1.75"]
    assert "not trained before the next year" in " ".join(out.split())
    assert "habit" in out
    over = {**HONEST, "months": [{"period": "2026-09", "day": 4.4, "person": 0.0, "composed": 4.4}]}
    assert "4.40" in said(over)  # a restored ledger may stand above its cap; it says so
    assert "-1.40" not in said(over)


def test_day_person_and_composed_have_bars_of_what_they_may_be() -> None:
    def filled(found: Any) -> list[int]:
        rows = [line for line in said(found).splitlines() if line.startswith(("2026-09", "2026 "))]
        return [bar.count("━") for row in rows for bar in re.findall("[━╸]+", row)]

    assert filled(HONEST) == [15, 8, 7]
    nothing = {**HONEST, "months": [{"period": "2026-09", "day": 0.0, "person": 0.0, "composed": 0.0}]}
    full = {**HONEST, "months": [{"period": "2026-09", "day": 3.0, "person": 3.0, "composed": 6.0}]}
    beyond = {**HONEST, "months": [{"period": "2026-09", "day": 9.0, "person": 9.0, "composed": 18.0}]}
    assert filled(nothing) == []
    assert filled(full) == filled(beyond) == [18, 18, 18]


@pytest.mark.parametrize(
    "forged",
    [
        [],
        {},
        {**HONEST, "caps": {}},
        {**HONEST, "months": [1]},
        {**HONEST, "months": [{"period": "2026-09"}]},
        {**HONEST, "delta": "small"},
    ],
)
def test_an_answer_of_another_shape_is_refused_in_a_sentence(forged: Any) -> None:
    with pytest.raises(ApiError, match="answer lacks"):
        said(forged)
