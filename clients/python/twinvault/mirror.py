"""The mirror: what one's own twin believes, beside what one really did, and how far noise blurs the view.

The twin is asked like anybody asks it, under the self consent, and the question is in the log. The traces are
fetched, opened and counted on this machine. How much noise lies over the rows is public: it does not depend on
what the rows say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from math import sqrt
from typing import Final
from zoneinfo import ZoneInfo

from twinvault.api import ClientError, field
from twinvault.owner import Owner
from twinvault.terms import OWN_PURPOSE
from vault.encoding import b64u
from vault.imprint.features import OTHER, Day, FeatureMap, feature_map
from vault.schema.category import Category, is_special, parse_purpose
from vault.schema.question import NextChoice
from vault.schema.trace import local_date, parse_period

DAILY: Final = "daily/1"
"""What a daily row says that it is, as `vault.imprint.block` does, which needs numpy."""


class NoReflection(ClientError):
    """A twin that has nothing of the category to look at."""

    slug = "no-reflection"
    title = "Nothing to see yet"


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing, from both sides.

    Args:
        code: What it is.
        name: The same in the words of the feature map; the code where it has none.
        believed: Probability that it occurs on the next day with a trace, as the twin answers; None if it does
            not name it.
        really: On what share of the days with a trace it occurred.
    """

    code: str
    name: str
    believed: float | None
    really: float


@dataclass(frozen=True, slots=True)
class Mirror:
    """Both sides of one category.

    Args:
        category: Which.
        months: The months that the twin summarises.
        days: How many days of them hold a trace.
        seen: What the twin names, then what it misses, each by how often it really occurred.
        blur: Standard deviation of the noise in a share, if rows were simply summed, or of daily ones the best
            estimate taken: the reader does better, by leaning on what is common; days on which many things occur
            are blurred more.
        named: Of the things that really occurred most, how many the twin names among as many.
    """

    category: Category
    months: tuple[str, ...]
    days: int
    seen: tuple[Seen, ...]
    blur: float
    named: int


def look(owner: Owner, category: Category, top_n: int = 10) -> Mirror:
    """Ask the own twin, open the own traces, and compare.

    Args:
        owner: An unlocked vault with a live self consent.
        category: About what; it has a published feature map.
        top_n: How many things to ask for, 1 to 20.

    Raises:
        NoReflection: The twin has no row of this category, or its months hold no trace.
        NoFeatureMap: Nothing is ever learned from this category.
        NoReceipt: The answer does not prove that it is in the log.
    """
    twin = owner.twin()
    releases = [row for row in field(twin, "releases", list) if row.get("category") == category]
    months = sorted({field(row, "period") for row in releases})
    if not months:
        raise NoReflection(_why_no_row(owner, category))
    zone, mapped = ZoneInfo(owner.profile.text("time_zone")), feature_map(category)
    by_day = _days(owner, mapped, months, zone)
    if not by_day:
        raise NoReflection("The months that your twin summarises hold no trace of this category.")
    occurred: defaultdict[str, int] = defaultdict(int)
    for codes in by_day.values():
        for code in codes:
            occurred[code] += 1
    said = dict(zip(mapped.codes, mapped.names, strict=True))
    asked = owner.ask(NextChoice(category, parse_purpose(OWN_PURPOSE), top_n)).answer
    believed = {item.code: item.score_ppm / 1e6 for item in asked.predictions}
    most = sorted(occurred, key=lambda code: (-occurred[code], code))[:top_n]
    shown = sorted({*believed, *most}, key=lambda code: (code not in believed, -occurred[code], code))
    daily = [field(one, "sd", float) for one in field(twin, "noise", list) if one.get("category") == category]
    if daily:  # of the level a calendar day
        blur = (
            min(daily) * sum(field(row, "days", int) for row in releases if row.get("mechanism") == DAILY) / len(by_day)
        )
    else:  # mu^2 = (clip / sigma)^2 of each row is public; a lone code adds `content` to its coordinate each day
        sigmas = [mapped.clip / sqrt(field(row, "mu2_micro", int) / 1e6) for row in releases]
        blur = sqrt(sum(sigma**2 for sigma in sigmas)) / mapped.content / len(by_day)
    return Mirror(
        category=category,
        months=tuple(months),
        days=len(by_day),
        seen=tuple(
            Seen(code, said.get(code, code), believed.get(code), occurred[code] / len(by_day)) for code in shown
        ),
        blur=blur,
        named=len(set(most) & set(list(believed)[: len(most)])),
    )


def _why_no_row(owner: Owner, category: Category) -> str:
    """Return why a twin has no row of a category, and what to do."""
    consent = owner.self_consent()
    terms = None if consent is None else consent.current.terms
    covered, allowed = (terms.categories, terms.explicit_special) if terms else (frozenset(), frozenset())
    # What is named to `--category` and `--special` is all that there is: what is there already is named again.
    special = "".join(f" --special {one}" for one in sorted(allowed.union({category} if is_special(category) else ())))
    if category not in covered:
        categories = "".join(f" --category {one}" for one in sorted({category, *covered}))
        ended = "" if consent is None else f"`twinvault owner withdraw {b64u(consent.id)}` ends it; "
        return (
            f"No self consent of yours covers {category}, so it stays sealed."
            f" {ended}`twinvault owner give --kind self{categories}{special}` makes one that does."
        )
    if consent is not None and is_special(category) and category not in allowed:
        return (
            f"Your self consent does not explicitly allow {category}, which is specially protected, so it stays sealed."
            f" `twinvault owner renew {b64u(consent.id)}{special}` allows it; a refresh then makes rows of"
            " months whose days are not spent on your other categories."
        )
    return (
        "Your twin has no row of this category yet; `twinvault owner refresh` makes them, of days that have closed in"
        " months that are not spent on your other categories: a category that joins later may begin with the next month."
    )


def _days(owner: Owner, mapped: FeatureMap, months: Iterable[str], zone: ZoneInfo) -> dict[date, set[str]]:
    """Return what each day with a trace held that a twin may be asked about: its objects, or the ranges it lies in.

    What the map has no coordinate for is one thing, `OTHER`. Texts are not read: that takes WordLlama's files, which a
    client need not have.
    """
    plain = replace(mapped, rules=replace(mapped.rules, words=b""))
    days: defaultdict[date, Day] = defaultdict(lambda: Day(plain, zone))
    for month in months:
        for trace in owner.erasures.traces.month(mapped.category, parse_period(month)):
            days[local_date(trace.occurred_at, zone)].add(trace)
    asked = {*mapped.objects, OTHER}
    return {day: one.codes() & asked for day, one in days.items()}
