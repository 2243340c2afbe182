"""Options that keep a consent smaller than what was asked; `give`, `narrow`, `renew` and `approve` share them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from twinvault.cli import common
from vault.clock import DAY_S
from vault.schema.question import QuestionKind
from vault.schema.terms import Terms


@dataclass(frozen=True, slots=True)
class Limits:
    """What the person typed; None where nothing was said.

    Args:
        category: Only these categories.
        purpose: Only these purposes.
        question: Only these kinds of question.
        first: First month.
        last: Last month.
        quota: Answers a month.
        days: Days from now.
        special: Special categories allowed, one by one.
        influence: Whether purposes that try to influence are allowed.
        agents: Whether software may decide by itself what to ask.
        after_death: Purposes that stay allowed.
    """

    category: Annotated[list[str] | None, typer.Option("--category", help="Only these categories.")] = None
    purpose: Annotated[list[str] | None, typer.Option("--only-purpose", help="Only these purposes.")] = None
    question: Annotated[
        list[QuestionKind] | None, typer.Option("--only-question", help="Only these kinds of question.")
    ] = None
    first: Annotated[str | None, typer.Option("--from", help="First month of data, YYYY-MM.")] = None
    last: Annotated[str | None, typer.Option("--to", help="Last month of data, YYYY-MM.")] = None
    quota: Annotated[int | None, typer.Option("--quota", help="Answers a month.", min=1)] = None
    days: Annotated[int | None, typer.Option("--days", help="How many days from now it lasts.", min=1)] = None
    special: Annotated[
        list[str] | None,
        typer.Option("--special", help="Allow this special category explicitly (health, belief ...); one by one."),
    ] = None
    influence: Annotated[
        bool | None, typer.Option("--influence/--no-influence", help="Allow purposes that try to influence you.")
    ] = None
    agents: Annotated[
        bool | None, typer.Option("--agents/--no-agents", help="Let software decide by itself what to ask.")
    ] = None
    after_death: Annotated[
        list[str] | None, typer.Option("--after-death", help="Purpose that stays allowed after your death.")
    ] = None

    def keep(self, terms: Terms, *, now_s: int) -> Terms:
        """Return the terms inside these limits; what was not said stays as it is."""
        kept = terms.categories if self.category is None else frozenset(common.parse_categories(self.category))
        purposes = (
            terms.purposes if self.purpose is None else frozenset(common.parse_purposes(self.purpose, "--only-purpose"))
        )
        special = (
            terms.explicit_special
            if self.special is None
            else frozenset(common.parse_categories(self.special, "--special"))
        )
        after = (
            terms.post_mortem
            if self.after_death is None
            else frozenset(common.parse_purposes(self.after_death, "--after-death"))
        )
        return replace(
            terms,
            necessary=terms.necessary & kept,
            optional=terms.optional & kept,
            purposes=terms.purposes & purposes,
            questions=terms.questions if self.question is None else terms.questions & frozenset(self.question),
            data_from=terms.data_from if self.first is None else common.parse_month(self.first, "--from"),
            data_to=terms.data_to if self.last is None else common.parse_month(self.last, "--to"),
            not_after=terms.not_after if self.days is None else min(terms.not_after, now_s + self.days * DAY_S),
            quota_per_month=terms.quota_per_month if self.quota is None else self.quota,
            explicit_special=special - (terms.categories - kept),
            influence_opt_in=terms.influence_opt_in if self.influence is None else self.influence,
            agent_allowed=terms.agent_allowed if self.agents is None else self.agents,
            post_mortem=after & terms.purposes & purposes,
        )

    def answer(self, asked: Terms, *, now_s: int, usual_days: int) -> Terms:
        """Return what is given to somebody who asks: nothing optional, sensitive or long unless it was said.

        Args:
            asked: The widest that may be given.
            now_s: Unix seconds.
            usual_days: How long it lasts if nothing was said.

        Guarantees: optional categories, special categories, influence, agents and purposes after
            death are each off until the person names them.
        """
        said = replace(
            self,
            category=sorted(asked.necessary) if self.category is None else self.category,
            days=self.days or usual_days,
            special=self.special or [],
            influence=bool(self.influence),
            agents=bool(self.agents),
            after_death=self.after_death or [],
        )
        return said.keep(asked, now_s=now_s)


def with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Limits` in place of its parameter `limits`, so that they are written once."""
    names = [part.name for part in fields(Limits)]

    @wraps(command)
    def run(**given: Any) -> None:
        limits = Limits(**{name: given.pop(name) for name in names})
        command(limits=limits, **given)

    mine, shared = inspect.signature(command), inspect.signature(Limits)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [part.replace(kind=keyword) for part in shared.parameters.values()]
    own = [part.replace(kind=keyword) for name, part in mine.parameters.items() if name != "limits"]
    hints = get_type_hints(command, include_extras=True) | get_type_hints(Limits, include_extras=True)
    hints = {part.name: hints[part.name] for part in (*own, *options)}
    run.__signature__ = inspect.Signature([part.replace(annotation=hints[part.name]) for part in (*own, *options)])  # type: ignore[attr-defined]  # what inspect, and so Typer, reads
    run.__annotations__ = hints
    return run
