"""Write docs/twin-quality.md from what the commands printed; every number on the page comes from their JSON.

`python -m benchmarks._quality_page JSON... > docs/twin-quality.md`: what `benchmarks.quality` printed for each data
set (complete_journey must be there), what `benchmarks._quality_variants`, `benchmarks._quality_bounds` and
`benchmarks._served --train` printed, in any order; the variants may have been measured in several runs, each of some names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._quality_grocery import FOLDS, SEEDS
from benchmarks._quality_tables import _interval, _percent, bounding, next_pages, purchases, serving

_TARGETS = {"3": ("60 % pooled (goal 70 %), 50 % per person", 0.60, 0.50), "8": ("75 % pooled", 0.75, None)}


_LOST = [
    "Also tried on folds 0 and 1, and not kept because they were no better, or worse:",
    "",
    (
        "- other readers of the same levels: a posterior over the training households themselves, alone and mixed in, and "
        "a network trained without privacy on noisy levels; neither beat the linear posterior mean, so a charged one "
        "cannot either: what is missing is in the rows, not in the reader"
    ),
    (
        "- the three widths in the reader that is served (`python -m benchmarks._served --train` is of one width): on fold 0, with "
        "one draw of noise, no better; so they are in the measured reader alone (ADR 0028)"
    ),
    (
        "- a width for every direction apart, five widths or others, a day count with 1 or 2 % of a day's squared length: within "
        "what chance differs by, the first at ten times the work"
    ),
    (
        "- what people buy on average as a function of how often they shop, with exact statistics of it: next to nothing per "
        "person, nothing pooled"
    ),
    (
        "- other directions: those that capture most of a habit's variance at 15, 40 or 100 shops (better in squared "
        "error, not in NDCG), and those that matter for ranks near the tenth"
    ),
    (
        "- the covariance from the means of a household's odd and even shops, also when households were weighed by how "
        "much they shop: all pairs of shops, as now, looked better on two folds and keep about the same on five"
    ),
    (
        "- another fall of what a chain has left to spend, by direct search for what light and heavy shoppers gain: next "
        "to nothing over the published formula"
    ),
    "- popularity by weekday, by the last weeks, by season: it moves even the baseline by next to nothing",
    (
        "- the weight that NDCG itself gives a category of a shop of so many, in place of equal parts of a unit vector: the "
        "raw readers differ by 0.001 at most"
    ),
    (
        "- projections made of the public hierarchy alone, so that every installation could project: ADR 0023 has them; only "
        "directions learned from households earned their place"
    ),
    (
        "- each direction read with a memory of its own, long where noise is large and short where habits show: the "
        "posterior mean of a process that is steady in part and fades over 60 to 365 days; no better than one memory"
    ),
    (
        "- chains that spend more late in the year: up to two points more share pooled, half a point less per person, and much "
        "less in the first three months; whoever begins would wait longer"
    ),
    (
        "- directions weighed more steeply (a variance's power 0.25 to 0.45 in place of 0.15), the same noise drawn for each: up "
        "to half a point more per person, one to three less pooled; with exact statistics too"
    ),
    (
        "- fewer directions for those who shop little: 20 keep up to four points more of the two fifths that are asked "
        "least and five to nine less of the two asked most, so even who knew them beforehand would gain one or two; 8 and 3 "
        "directions keep no more than 20 of anybody"
    ),
    (
        "- how shortened days vary together, exactly, in place of what the covariance of whole ones says about them: a point "
        "pooled, nothing per person"
    ),
    (
        "- a day's map (linear, or a network) trained together with its reader on noisy levels, without privacy: no better per "
        "person than the same reader on the directions as they are, less pooled, and below the linear posterior mean; 1,590 "
        "households are too few for it, before any noise of its own"
    ),
    (
        "- what codes' words have in common (WordLlama) as a public shape of the covariance; codes weighed by popularity "
        "before their products are clipped; 120 to 240 codes; other clips, doubts and shares: within what chance differs by"
    ),
    "",
]


def _verdict(epsilon: str, found: dict[str, Any]) -> str:
    if epsilon not in _TARGETS:
        return "reported"
    text, pooled, alone = _TARGETS[epsilon]
    met = [found["share_pooled"] >= pooled]
    if alone is not None:
        met.append(found["share_per_person"] >= alone)
    return f"{text}: " + ", ".join("met" if one else "missed" for one in met)


def _shorter(quality: dict[str, Any]) -> list[str]:
    """Say so if fewer folds or draws were run than the command takes."""
    if quality["folds"] == FOLDS and quality["seeds"] == SEEDS:
        return []
    return [
        (
            f"**Shorter than the command's own run** ({FOLDS} folds, {SEEDS} draws): the machine had no quiet core, so "
            "`draw` of `benchmarks._quality_grocery` was called fewer times for each fold, and `summarise` for all. The "
            f"draws differ by a standard deviation of {quality['by_epsilon']['3']['seed_sd']:.4f} at epsilon 3."
        ),
        "",
    ]


def page(quality: dict[str, Any], variants: dict[str, Any], bounds: dict[str, Any], served: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# How much of a household's habits a private twin keeps",
        "",
        "Generated by `python -m benchmarks._quality_page` from what these commands and those named below printed:",
        "",
        "    python -m benchmarks.quality --data complete_journey --json",
        "    python -m benchmarks._quality_variants --json",
        "",
        (
            f"Measure: {quality['measure']}. {quality['people_tested']} households in {quality['folds']} folds, each read by what was "
            f"learned from {quality['people_trained']} others at most, {quality['seeds']} draws of all noise, the "
            "households' statistics included. A share is (twin - popularity) / (best - popularity); *best* is the "
            f"strongest reader of the raw history, here the {quality['best_non_private']}. Intervals are 95 % of a paired "
            "bootstrap over people."
        ),
        "",
        *_shorter(quality),
        "## The twin",
        "",
        "| owner-day epsilon | NDCG@10 | share pooled | its interval | share per person | its interval | against recency-weighted frequency alone | target |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for epsilon, found in quality["by_epsilon"].items():
        lines.append(
            f"| {epsilon} | {found['value']:.4f} | {_percent(found['share_pooled'])} "
            f"| {_interval(found['share_pooled_interval'])} | {_percent(found['share_per_person'])} "
            f"| {_interval(found['share_per_person_interval'])} "
            f"| {_percent(found['share_pooled_of_recency_weighted_frequency'])} | {_verdict(epsilon, found)} |"
        )
    lines += [
        "",
        "Share at epsilon 3 by days since the first row: "
        + ", ".join(f"from day {day} {_percent(share)}" for day, share in quality["share_by_history_days"].items())
        + ".",
        "",
        (
            "Share per person at epsilon 3, each fifth of the households by how many of their shops are asked: "
            + ", ".join(
                f"{shops} {_percent(share)}" for shops, share in quality["share_per_person_by_asked_shops"].items()
            )
            + ". Every household counts alike per person, and what rows show beyond their noise grows with the number of "
            "shops squared: that is why per person is lower than pooled."
        ),
        "",
        (
            "Rows are daily; a question reads those whose day ended at least 48 hours before the asked day began. "
            f"Everything about other households is released at epsilon {quality['person_epsilon']:g} and delta "
            f"{quality['person_delta']:g} a household. A household that is both an owner and in the cohort has a "
            f"composed owner-day epsilon of {quality['composed_owner_day_epsilon']} at delta {quality['delta']:g}."
        ),
        "",
        "## What it is held against",
        "",
        "| reader of the raw history | NDCG@10 pooled | per person |",
        "| --- | --- | --- |",
        f"| popularity (the baseline) | {quality['baseline']:.4f} | {quality['baseline_per_person']:.4f} |",
    ]
    lines += [
        f"| {name} | {value:.4f} | {quality['non_private_per_person'][name]:.4f} |"
        for name, value in quality["non_private"].items()
    ]
    lines += [
        "",
        (
            "Shares of the unit vector (each category of a shop counts 1 / square root of their number) make every reader "
            "better than plain frequency, for NDCG rewards what makes up a shop. The linear reader and the network get "
            "them too: against a rival without them the twin's share would be the larger one in the first table."
        ),
        "",
        "| rival at the same owner-day epsilon | epsilon | NDCG@10 | twin's lead | its interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, by_epsilon in quality["rivals"].items():
        for epsilon, value in by_epsilon.items():
            above = quality["above_rivals"][name][epsilon]
            low, high = above["interval"]
            lines.append(
                f"| {name} | {epsilon} | {value:.4f} | {above['difference']:+.4f} | {low:+.4f} to {high:+.4f} |"
            )
    lines += [
        "",
        (
            "The counts add to the released popularity; each is shown at the best of three smoothing strengths, chosen in "
            "its favour on the people tested. Pairs read the last shop raw, in their favour too."
        ),
        "",
        "## What was compared, and what lost",
        "",
        (
            f"One change at a time at owner-day epsilon {variants['epsilon']:g}, folds {variants['folds']}, one draw of "
            "noise; the share is against recency-weighted frequency. Differences below 0.015 are noise."
        ),
        "",
        "| variant | NDCG@10 pooled | share pooled | share per person |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {found['value']:.4f} | {_percent(found['share_pooled'])} | {_percent(found['share_per_person'])} |"
        for name, found in variants["variants"].items()
    ]
    lines += [
        "",
        (
            "*As measured* is what the first table shows: `prefix` chains (ADR 0009), days centred and projected on 80 "
            "directions of 160 codes, clipped at 0.85 of their root mean square, read as one of three widths of habits "
            "(ADR 0028); *people differ alike* reads them as one."
        ),
        "",
        *_LOST,
        *bounding(bounds),
        "## What is charged, and what is public",
        "",
        *(f"- {charge}" for charge in quality["charges"]),
        "",
        (
            "The settings were chosen by looking at folds 0 and 1, so the figures of those two may be too good"
            f"{_unseen(quality)}; `--people DIR` measures households that nobody has looked at. The mechanism "
            "(`vault/imprint/chain.py`, `level.py`, `projection.py`, `noise.py`) is tested and pure."
        ),
        "",
        *serving(served),
    ]
    return "\n".join(lines) + "\n"


def _unseen(quality: dict[str, Any]) -> str:
    """Say what the folds give that no setting was chosen by, where they were told apart."""
    found = quality.get("folds_not_looked_at", {}).get("3")
    if found is None:
        return ""
    pooled, alone = (
        f"{found[name]:.1%} ({low:.0%} to {high:.0%})".replace("%", " %")
        for name in ("share_pooled", "share_per_person")
        for low, high in [found[f"{name}_interval"]]
    )
    return f" (the three others alone, at epsilon 3: {pooled} pooled, {alone} per person)"


def main(names: list[str]) -> None:
    """Print the page from files of JSON."""
    found: dict[str, dict[str, Any]] = {}
    variants: dict[str, Any] = {"variants": {}}
    bounds: dict[str, Any] = {}
    served: dict[str, Any] = {}
    for one in (json.loads(Path(name).read_text()) for name in names):
        if "variants" in one:
            variants = one | {"variants": variants["variants"] | one["variants"]}
        elif "bounds" in one:
            bounds = one
        elif "leads" in one:
            served = one
        else:
            found[one["measure"].split(" ")[0]] = one
    print(page(found.pop("NDCG@10"), variants, bounds, served), end="")
    for measure, lines in (("nats", next_pages), ("area", purchases)):
        if measure in found:
            print("\n".join(lines(found[measure])))


if __name__ == "__main__":
    main(sys.argv[1:])
