"""The model card: what a manifest says, for machines as JSON and for people as one page without script.

Made from the manifest alone, so it can say nothing that is not signed and logged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from vault.encoding import b64u
from vault.proof.certificate import (
    NEIGHBOURS,
    VISITS,
    Certificate,
    CertificateInvalid,
    Manifest,
    Required,
    verify_certificate,
)
from vault.proof.charge import epsilon_of

SAYS: Final = (
    (
        "A contributor is protected as a person: whoever had left the cohort before training, every number here would "
        "be about as probable. Epsilon bounds how much less."
    ),
    "Nothing here protects the person who asks: what is read of them is their imprint, at its own epsilon.",
    "An audit can refute a trainer; that it did not is no proof. The mechanism and its accountant are the proof.",
    (
        "Utility, calibration and group figures are noisy means over people held out, with the noise's 95 % interval; how "
        "much other people would differ is not in the interval."
    ),
)
_OF_VISITS: Final = (
    "This model judges a company's visit by the visit alone: nothing of the person who is asked about is read, neither "
    "their traces nor their imprint. Its gain is in squared error below always saying the published base rate."
)


@dataclass(frozen=True, slots=True)
class _Line:
    """One measured mean with its noise: a row of a plot."""

    name: str
    value: float
    noise_sd: float


def card(manifest: Manifest, now: datetime, required: Required | None = None) -> dict[str, Any]:
    """Return a model's card as a JSON object.

    Args:
        manifest: A manifest whose signature and leaf were verified.
        now: When the card is made: whether the model may serve depends on it.
        required: Thresholds; production's by default.
    """
    r = required or Required()
    try:
        verify_certificate(manifest, now, r)
        refused = ""
    except CertificateInvalid as error:
        refused = error.detail
    return {
        "model": b64u(manifest.model_sha256),
        "manifest": b64u(manifest.digest),
        "map": b64u(manifest.map_sha256),
        "code": b64u(manifest.code_sha256),
        "trained_at": f"{datetime.fromtimestamp(manifest.trained_at, UTC):%Y-%m-%d}" if manifest.trained_at else None,
        "card_made_at": f"{now:%Y-%m-%d}",
        "may_serve": not refused,
        "refused_because": refused,
        "cohort": manifest.cohort,
        "privacy": {
            "epsilon": manifest.epsilon_ppm / 1e6,
            "delta": 1 / manifest.delta_inverse,
            "neighbours": NEIGHBOURS,
            "charges": [
                {
                    "release": charge.release,
                    "people": charge.people.value,
                    "noise_multiplier": charge.noise_multiplier_ppm / 1e6,
                    "sample_rate": charge.sample_rate_ppm / 1e6,
                    "steps": charge.steps,
                    "epsilon_alone": round(epsilon_of([charge], 1 / manifest.delta_inverse), 4),
                }
                for charge in manifest.charges
            ],
        },
        "certificate": None if manifest.certificate is None else _measured(manifest.certificate, r),
        "says": _says(manifest),
    }


def _says(manifest: Manifest) -> list[str]:
    return [SAYS[0], _OF_VISITS if manifest.map_sha256 in VISITS else SAYS[1], *SAYS[2:]]


def _measured(c: Certificate, r: Required) -> dict[str, Any]:
    return {
        "audit": {
            "canaries": c.audit_canaries,
            "epsilon_claimed": c.audit_claimed_ppm / 1e6,
            "epsilon_refuted_from_below": c.audit_lower_bound_ppm / 1e6,
            "noise_measured_over_configured": c.noise_ratio_ppm / 1e6,
            "noise_correlation_between_runs": c.noise_repeats_ppm / 1e6,
            "largest_contribution_over_clip": c.contribution_ratio_ppm / 1e6,
            "rows_noise_measured_over_charged": c.rows_noise_ratio_ppm / 1e6,
            "rows_noise_repeats": c.rows_noise_repeats_ppm / 1e6,
            "rows_largest_contribution_over_charged": c.rows_contribution_ratio_ppm / 1e6,
        },
        "held_out": {
            "people": c.held_out,
            "gain": _mean(c.gain_ppm, c.noise_sd_ppm),
            "calibration_gap": _mean(c.calibration_gap_ppm, c.noise_sd_ppm),
        },
        "groups": [
            {
                "group": group.activity.value,
                "people": group.people,
                "gain": _mean(group.gain_ppm, group.noise_sd_ppm),
                "calibration_gap": _mean(group.calibration_gap_ppm, group.noise_sd_ppm),
            }
            for group in c.groups
        ],
        "required": {
            "smallest_group_shown": r.group,
            "least_gain": r.worst_gain_ppm / 1e6,
            "largest_calibration_gap": r.calibration_gap_ppm / 1e6,
        },
    }


def _mean(ppm: int, noise_sd_ppm: int) -> dict[str, float]:
    value, margin = ppm / 1e6, 1.96 * noise_sd_ppm / 1e6
    return {
        "value": value,
        "noise_sd": noise_sd_ppm / 1e6,
        "low": round(value - margin, 6),
        "high": round(value + margin, 6),
    }


def page(manifest: Manifest, now: datetime, required: Required | None = None) -> str:
    """Return a model's card as one HTML page: no script, no image, nothing fetched."""
    shown = card(manifest, now, required)
    verdict = "may serve" if shown["may_serve"] else f"may not serve: {shown['refused_because']}"
    parts = [
        f"<h1>Model {escape(shown['model'][:12])}</h1>",
        f"<p><strong>On {shown['card_made_at']} it {escape(verdict)}</strong></p>",
        _table((name, shown[name]) for name in ("model", "manifest", "map", "code", "trained_at", "cohort")),
        "<h2>Privacy of the people it learned from</h2>",
        (
            f"<p>Epsilon {shown['privacy']['epsilon']:.3f} at delta {shown['privacy']['delta']:.0e}; "
            f"neighbours: {escape(NEIGHBOURS)}.</p>"
        ),
    ]
    if manifest.charges:
        parts += [_records(shown["privacy"]["charges"]), _privacy_plot(manifest)]
    else:
        parts.append("<p>It was learned from nobody: public constants only.</p>")
    if manifest.certificate is not None:
        parts += _certificate(
            manifest.certificate, shown["certificate"], required or Required(), manifest.map_sha256 in VISITS
        )
    parts += [
        "<h2>What this says and does not say</h2>",
        "<ul>",
        *(f"<li>{escape(line)}</li>" for line in shown["says"]),
        "</ul>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Model card</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _certificate(c: Certificate, shown: dict[str, Any], r: Required, of_visits: bool) -> list[str]:
    everyone = ("everyone", c.gain_ppm, c.calibration_gap_ppm, c.noise_sd_ppm)
    groups = [
        (group.activity.value, group.gain_ppm, group.calibration_gap_ppm, group.noise_sd_ppm) for group in c.groups
    ]
    rows = [everyone, *groups]
    limit = r.calibration_gap_ppm / 1e6
    return [
        "<h2>Audit of the trainer</h2>",
        _table(shown["audit"].items()),
        _bars(
            "Epsilon: claimed for the audited run, and refuted from below",
            [("claimed", c.audit_claimed_ppm / 1e6), ("refuted", c.audit_lower_bound_ppm / 1e6)],
        ),
        f"<h2>On about {c.held_out} people held out</h2>",
        _forest(
            "Squared error below the base rate's" if of_visits else "Gain in NDCG@10 over popularity",
            [_Line(name, gain / 1e6, sd / 1e6) for name, gain, _, sd in rows],
            [r.worst_gain_ppm / 1e6],
        ),
        _forest(
            "Predicted minus observed frequency" + ("" if of_visits else " of the ten best"),
            [_Line(name, gap / 1e6, sd / 1e6) for name, _, gap, sd in rows],
            [-limit, limit],
        ),
        f"<p>Groups of fewer than about {r.group} people are not shown.</p>",
    ]


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = (f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return "<table>" + "".join(cells) + "</table>"


def _records(records: Sequence[dict[str, Any]]) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in records[0])
    body = ("".join(f"<td>{escape(str(value))}</td>" for value in record.values()) for record in records)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in body) + "</table>"


_WIDE: Final = 520
_LEFT: Final = 110
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "table{border-collapse:collapse;font-size:.85rem}th,td{text-align:left;padding:.15rem .8rem .15rem 0;"
    "overflow-wrap:anywhere}svg{display:block;margin:1rem 0;font:12px system-ui,sans-serif}"
)


def _figure(title: str, height: int, shapes: Iterable[str]) -> str:
    return (
        f'<svg width="{_WIDE}" height="{height}" role="img" aria-label="{escape(title)}">'
        f'<text x="0" y="12" font-weight="bold">{escape(title)}</text>' + "".join(shapes) + "</svg>"
    )


def _bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    most = max((value for _, value in values), default=0.0) or 1.0
    shapes = []
    for at, (name, value) in enumerate(values):
        y, length = 24 + 24 * at, (_WIDE - _LEFT - 60) * value / most
        shapes.append(
            f'<text x="0" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="16" fill="#3b6ea5"/>'
            f'<text x="{_LEFT + length + 6:.1f}" y="{y + 13}">{value:.3f}</text>'
        )
    return _figure(title, 30 + 24 * len(values), shapes)


def _forest(title: str, lines: Sequence[_Line], limits: Sequence[float]) -> str:
    ends = [line.value + side * 1.96 * line.noise_sd for line in lines for side in (-1, 1)]
    low, high = min(*ends, *limits, 0.0), max(*ends, *limits, 0.0)
    scale = (_WIDE - _LEFT - 70) / (high - low or 1.0)

    def x(value: float) -> float:
        return _LEFT + (value - low) * scale

    bottom = 24 + 24 * len(lines)
    shapes = [f'<line x1="{x(0):.1f}" y1="20" x2="{x(0):.1f}" y2="{bottom}" stroke="#999"/>']
    shapes += [
        f'<line x1="{x(limit):.1f}" y1="20" x2="{x(limit):.1f}" y2="{bottom}" stroke="#b00" stroke-dasharray="4 3"/>'
        for limit in limits
    ]
    for at, line in enumerate(lines):
        y, margin = 32 + 24 * at, 1.96 * line.noise_sd
        shapes.append(
            f'<text x="0" y="{y + 4}">{escape(line.name)}</text>'
            f'<line x1="{x(line.value - margin):.1f}" y1="{y}" x2="{x(line.value + margin):.1f}" y2="{y}" '
            f'stroke="#3b6ea5" stroke-width="3"/><circle cx="{x(line.value):.1f}" cy="{y}" r="5" fill="#3b6ea5"/>'
            f'<text x="{_WIDE - 60}" y="{y + 4}">{line.value:+.4f}</text>'
        )
    shapes.append(f'<text x="{_LEFT}" y="{bottom + 14}" fill="#b00">dashed: required</text>')
    return _figure(title, bottom + 22, shapes)


def _privacy_plot(manifest: Manifest) -> str:
    """Draw epsilon against delta: one pair of the same guarantee is as good as another."""
    powers = [-4 - at / 4 for at in range(25)]
    points = [(power, epsilon_of(manifest.charges, 10**power)) for power in powers]
    top = math.ceil(max(epsilon for _, epsilon in points))
    width, height = _WIDE - _LEFT, 120

    def place(power: float, epsilon: float) -> tuple[float, float]:
        return _LEFT + (-4 - power) / 6 * (width - 20), 30 + height * (1 - epsilon / top)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    x, y = place(-math.log10(manifest.delta_inverse), manifest.epsilon_ppm / 1e6)
    ticks = [
        f'<text x="{place(-power, 0)[0]:.1f}" y="{height + 46}" text-anchor="middle">1e-{power}</text>'
        for power in range(4, 11, 2)
    ]
    return _figure(
        "Epsilon against delta",
        height + 54,
        [
            (
                f'<text x="{_LEFT - 8}" y="34" text-anchor="end">{top}</text>'
                f'<text x="{_LEFT - 8}" y="{height + 30}" text-anchor="end">0</text>'
            ),
            f'<line x1="{_LEFT}" y1="30" x2="{_LEFT}" y2="{height + 30}" stroke="#999"/>',
            f'<line x1="{_LEFT}" y1="{height + 30}" x2="{_WIDE}" y2="{height + 30}" stroke="#999"/>',
            *ticks,
            f'<polyline points="{line}" fill="none" stroke="#3b6ea5" stroke-width="2"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#b00"/>',
        ],
    )
