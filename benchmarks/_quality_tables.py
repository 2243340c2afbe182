"""The parts of docs/twin-quality.md about what bounds a twin, models of many people, and what the service itself reads."""

from __future__ import annotations

from typing import Any

from benchmarks._quality_msnbc import FULL

_PURCHASE = {"with": 0.91, "without": 0.73}


def _met(met: bool) -> str:
    return "met" if met else "missed"


def bounding(found: dict[str, Any]) -> list[str]:
    """Return the lines about what keeps the twin from more, from `benchmarks._quality_bounds`."""
    lines = [
        "## What bounds the share per person",
        "",
        (
            f"`python -m benchmarks._quality_bounds --json`: the same households and days under other noise, {found['folds']} "
            f"folds, {found['draws']} draws, owner-day epsilon {found['epsilon']:g} where no other is named. Shares are of what "
            f"the {found['best_non_private_per_person']} adds to popularity, as in the first table, intervals 95 % over people."
        ),
        "",
        "| rows | owner-day epsilon | a row every day | share pooled | its interval | share per person | its interval | of the fifth asked least | asked most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["bounds"].items():
        fifths = list(one["share_per_person_by_asked_shops"].values())
        lines.append(
            f"| {name} | {one['owner_day_epsilon']:.2f} | {'yes' if one['every_day'] else 'no'} | {_percent(one['share_pooled'])} "
            f"| {_interval(one['share_pooled_interval'])} | {_percent(one['share_per_person'])} "
            f"| {_interval(one['share_per_person_interval'])} | {_percent(fifths[0])} | {_percent(fifths[-1])} |"
        )
    rows, noise = found["bounds"], found["noise_of_a_chain"]
    now, once, four = (rows[name] for name in ("as measured", "one release for each question", "four times the mu^2"))
    exact = rows["one release for each question, exact statistics"]
    return [
        *lines,
        "",
        (
            "*One release for each question* is what nobody can serve: the days before the question are added up once, when the "
            "day before it ends, as if no other question were ever asked; the next question would spend the same days' "
            f"epsilon again. It adds up {found['window_days']} days at most, the best number for habits that drift. Rows of "
            "every day have to share one epsilon: taken for a sum of all days before, their noise is "
            + ", ".join(f"{value:.2f}" for value in noise.values())
            + f" times that of one release after {', '.join(noise)} days, and no chain that we searched has much less "
            "([ADR 0009](adr/0009-daily-chains-have-whole-coefficients.md))."
        ),
        "",
        (
            "At epsilon 3 the wanted 50 % per person is about what one single release for each question would keep, "
            f"{_percent(once['share_per_person'])}, and {_percent(exact['share_per_person'])} with exact statistics of other "
            "households; rows of every day that share the same epsilon keep "
            f"{_percent(now['share_per_person'])}, and {_percent(rows['as measured, exact statistics']['share_per_person'])} with "
            "exact statistics. What is missing is mostly the price of answering every day; statistics are the smaller part. "
            f"Twice the mu^2 keep {_percent(rows['twice the mu^2']['share_per_person'])}, four times "
            f"{_percent(four['share_per_person'])}: that is another epsilon, not another twin."
        ),
        "",
        (
            "**Households that shop little cannot both be hidden and be read.** One day of theirs is hidden as well as one of "
            "anybody's, and a habit that shows on ten days is hardly larger than that. The fifth that is asked least keeps "
            f"{_percent(_first(now))}, {_percent(_first(once))} with one release for each question and {_percent(_first(four))} "
            f"at four times the mu^2, where the fifth that is asked most keeps {_percent(_last(now))}, {_percent(_last(once))} "
            f"and {_percent(_last(four))}. Per person every household counts alike, however little it shops."
        ),
        "",
    ]


def _first(row: dict[str, Any]) -> float:
    return float(next(iter(row["share_per_person_by_asked_shops"].values())))


def _last(row: dict[str, Any]) -> float:
    return float([*row["share_per_person_by_asked_shops"].values()][-1])


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(pair: list[float]) -> str:
    return f"{100 * pair[0]:.0f} to {100 * pair[1]:.0f}"


def next_pages(found: dict[str, Any]) -> list[str]:
    """Return the lines about the news site, from `benchmarks.quality --data msnbc`."""
    quick = found["seeds"] < FULL.seeds
    lines = [
        "",
        "## Next page on a news site",
        "",
        *(
            ["**A quick run**: fewer people, fewer steps, one draw of noise; the full one is still to be run.", ""]
            if quick
            else []
        ),
        (
            f"`python -m benchmarks.quality --data msnbc --json{' --quick' if quick else ''}`: {found['people_tested']} people, "
            f"{found['people_trained']} others trained on, {found['seeds']} runs, delta {found['delta']:g} a person "
            f"({found['neighbours']}). Nats a page, lower is better. Ours is noisy counts of orders up to 4 and a network "
            "that starts as those counts and learns by DP-SGD what they miss; both are charged together."
        ),
        "",
        "| epsilon | ours | best DP counts | their order | ours below them by | its 95 % interval | target: interval above 0 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for epsilon, one in found["by_epsilon"].items():
        low, high = one["below_best_counts_low"], one["below_best_counts_high"]
        lines.append(
            f"| {epsilon} | {one['value']:.4f} | {one['best_counts']:.4f} | {one['best_counts_order']:g} "
            f"| {one['below_best_counts']:+.4f} | {low:+.4f} to {high:+.4f} | {_met(low > 0)} |"
        )
    plain = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found["non_private"].items())
    charges = "; ".join(
        f"{one['release']}: noise multipliers {one['counts_noise_multiplier']} and {one['noise_multiplier']}, "
        f"{one['steps']} steps at sample rate {one['sample_rate']}, together {one['epsilon']}"
        for one in found["charges"]
    )
    return [
        *lines,
        "",
        f"Without privacy: popularity {found['baseline']:.4f}, {plain}.",
        "",
        f"Charged: {charges}. Settings: {found['search']}.",
        "",
        (
            "The network alone, at the same epsilon, needs many steps to find what counts show at once, and lost to them in "
            "quick runs; added to counts it starts from what they know, though both share the budget."
        ),
    ]


def purchases(found: dict[str, Any]) -> list[str]:
    """Return the lines about shop sessions, from `benchmarks.quality --data online_shoppers`."""
    lines = [
        "",
        "## Whether a shop session ends in a purchase",
        "",
        (
            f"`python -m benchmarks.quality --data online_shoppers --json`: {found['people_tested']} sessions, one a person, "
            f"{found['people_trained']} trained on in each fold, {found['seeds']} runs, delta {found['delta']:g}. Area under the "
            f"ROC curve; `PageValues`, which is nearly the outcome, alone has {found['page_values_alone']:.4f}."
        ),
        "",
        "| features | epsilon | ours | 95 % interval | diffprivlib's logistic regression | ours above it | its 95 % interval | target at 3 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for features, figures in (("with", found), ("without", found["without_page_values"])):
        rival = figures["rivals"]["diffprivlib_logistic_regression"]
        for epsilon, one in figures["by_epsilon"].items():
            target = _PURCHASE[features]
            verdict = f"{target}: {_met(one['value'] >= target)}" if epsilon == "3" else "reported"
            lines.append(
                f"| {features} PageValues | {epsilon} | {one['value']:.4f} | {one['low']:.4f} to {one['high']:.4f} "
                f"| {rival[epsilon]:.4f} | {one['above_diffprivlib']:+.4f} "
                f"| {one['above_diffprivlib_low']:+.4f} to {one['above_diffprivlib_high']:+.4f} | {verdict} |"
            )
    both = (("with", found["non_private"]), ("without", found["without_page_values"]["non_private"]))
    plain = "; ".join(
        f"{features} PageValues " + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
        for features, values in both
    )
    return [*lines, "", f"Without privacy: {plain}."]


_READS = {
    "popularity": "what is popular, from the raw data of the other households",
    "monthly_closed_form": "monthly rows, closed-form reader",
    "daily_closed_form": "daily rows, closed-form reader",
    "monthly_trained": "monthly rows, trained backbone",
    "daily_trained_by_month": "daily rows, trained backbone; days close with their month, as new owners begin",
    "daily_trained": "daily rows, trained backbone; each day closes by itself",
    "lens_trained_by_month": "daily rows through its lens, the same backbone; days close with their month",
    "lens_trained": "daily rows through its lens, the same backbone; each day closes by itself",
    "measured": "projected days and their reader, as measured above",
    "frequency": "the raw history (smoothed frequency)",
}


_LEADS = ("lens over daily, trained", "measured over lens, trained")


def serving(found: dict[str, Any]) -> list[str]:
    """Return the lines about what the service itself reads, from `benchmarks._served --train`."""
    lines = [
        "## What an owner gets",
        "",
        (
            f"`python -m benchmarks._served --json --train`: {found['shops']} shops from day 240 on of "
            f"{found['households_tested']} households of one fold that no setting was chosen on, {found['households_trained_on']} "
            "others trained on, owner-day epsilon 3 at delta 1e-06, one draw of noise. Trained backbones are the shipped "
            "trainer's, at its shipped person-level charge (epsilon 3 at delta 1e-06 a year at most)."
        ),
        "",
        "| reads | NDCG@10 | of what the raw history adds to popularity |",
        "| --- | --- | --- |",
    ]
    for name, words in _READS.items():
        lines.append(f"| {words} | {found['ndcg_at_10'][name]:.4f} | {100 * found['share_of_frequency'][name]:.1f} % |")
    seen, ahead = ("{:+.4f} ({:+.4f} to {:+.4f} over people)".format(*found["leads"][name]) for name in _LEADS)
    lines += [
        "",
        (
            "The service reads daily rows of the same chains with a backbone that holds how the cohort's habits vary "
            "together, released and charged like the measured one's (ADR 0023). Chains that begin after the first backbone was "
            "trained are of days seen through its lens: centred and projected before noise is added (ADR 0035). That leads plain "
            f"days by {seen}. The measured twin, which also reads habits as one of three widths (no better in the service's "
            f"reader: ADR 0028) and pays another delta, leads it by {ahead}."
        ),
    ]
    return lines
