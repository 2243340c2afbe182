"""What is given is what the person named, and each sensitive part of it was asked about alone."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import typer

from tests.clients.test_notice import TERMS
from twinvault.api import ClientError
from twinvault.cli import common
from twinvault.cli.limits import Limits
from twinvault.notice import explicit_steps
from vault.schema.category import Category
from vault.schema.language import Language

HEALTH, SEXUAL = Category("pd:Health"), Category("pd:Sexual")
ASKED = replace(TERMS, explicit_special=frozenset({HEALTH, SEXUAL}))
S = TERMS.not_before


def test_an_opt_in_to_what_answers_could_reveal_needs_no_data_of_that_kind() -> None:
    assert Limits(special=["pd:Sexual"]).answer(ASKED, now_s=S, usual_days=9).explicit_special == {SEXUAL}
    assert Limits().answer(ASKED, now_s=S, usual_days=9).explicit_special == frozenset()
    assert Limits(quota=1).keep(ASKED, now_s=S).explicit_special == {HEALTH, SEXUAL}


def test_an_opt_in_goes_with_the_data_that_is_left_out() -> None:
    assert Limits(category=["pd:Purchase"]).keep(ASKED, now_s=S).explicit_special == {SEXUAL}


@pytest.mark.parametrize(
    ("option", "limits"),
    [
        ("--category", Limits(category=["pd:Nonsense"])),
        ("--only-purpose", Limits(purpose=["dpv:Nonsense"])),
        ("--special", Limits(special=["pd:Nonsense"])),
        ("--after-death", Limits(after_death=["dpv:Nonsense"])),
    ],
)
def test_an_unknown_term_is_refused_by_the_option_that_named_it(option: str, limits: Limits) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        limits.keep(ASKED, now_s=S)
    assert refused.value.param_hint == option


@pytest.mark.parametrize("refused", [0, 1, 2, 3, None])
def test_a_no_to_any_single_step_signs_nothing(monkeypatch: pytest.MonkeyPatch, refused: int | None) -> None:
    asked: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        asked.append(question)
        return len(asked) - 1 != refused

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    steps = explicit_steps(ASKED)
    if refused is None:
        common.agree("the notice", yes=False, each=steps)
        assert asked == ["Do you agree?", *steps]
        assert len(steps) == 3
        return
    with pytest.raises(ClientError, match="Nothing was signed"):
        common.agree("the notice", yes=False, each=steps, language=Language.FR)
    assert len(asked) == refused + 1
    assert asked[0].startswith("Êtes-vous d'accord")
