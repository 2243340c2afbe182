"""A model card says what the manifest says, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from tests.proof.test_certificate import CERTIFICATE, NOW, TRAINED_AT, _manifest
from vault.encoding import b64u
from vault.proof.card import card, page
from vault.proof.certificate import Certificate
from vault.proof.charge import epsilon_of
from vault.seal.ids import sha256


def test_every_measure_of_the_certificate_stands_in_the_card() -> None:
    found = card(_manifest(), NOW)
    measured = found["certificate"]
    assert found["may_serve"]
    assert found["model"] == b64u(b"m" * 32)
    assert measured["audit"]["epsilon_claimed"] == 0.99
    assert measured["audit"]["epsilon_refuted_from_below"] == 0.3
    assert measured["held_out"]["gain"] == {"value": 0.011, "noise_sd": 0.005, "low": 0.0012, "high": 0.0208}
    assert [group["group"] for group in measured["groups"]] == ["light", "heavy"]
    assert found["privacy"]["epsilon"] == pytest.approx(epsilon_of(_manifest().charges, 1e-6), abs=1e-5)
    assert [charge["release"] for charge in found["privacy"]["charges"]] == ["popularity", "training", "certificate"]
    json.dumps(found)


def test_any_change_to_the_certificate_shows_in_card_and_page() -> None:
    plain = _manifest()
    plain_card, plain_page = card(plain, NOW), page(plain, NOW).replace(b64u(plain.digest), "")
    for name in Certificate.__slots__:
        value = CERTIFICATE.groups[:1] if name == "groups" else getattr(CERTIFICATE, name) + 10_000
        other = replace(plain, certificate=replace(CERTIFICATE, **{name: value}))
        assert {**card(other, NOW), "manifest": ""} != {**plain_card, "manifest": ""}, name
        assert page(other, NOW).replace(b64u(other.digest), "") != plain_page, name


def test_a_model_that_may_not_serve_says_why_on_both() -> None:
    refuted = _manifest(certificate=replace(CERTIFICATE, audit_lower_bound_ppm=990_001))
    found = card(refuted, NOW)
    assert not found["may_serve"]
    assert found["refused_because"] == "The audit refuted the trainer's claimed epsilon."
    assert "may not serve: The audit refuted the trainer&#x27;s claimed epsilon." in page(refuted, NOW)


class _Reader(HTMLParser):
    """Collects every tag, and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [name for name, _ in attrs if name in {"src", "href", "srcset", "action"} or name[:2] == "on"]


def test_the_page_has_plots_and_fetches_and_runs_nothing() -> None:
    shown = page(_manifest(), NOW)
    reader = _Reader()
    reader.feed(shown)
    assert "svg" in reader.tags
    assert not reader.tags & {"script", "img", "link", "iframe", "object"}
    assert not reader.fetched
    assert "url(" not in shown
    assert shown.count("<svg") == 4
    for at, _ in enumerate(shown.split("<svg")[1:]):
        drawing = ET.fromstring("<svg" + shown.split("<svg")[at + 1].split("</svg>")[0] + "</svg>")
        numbers = [float(value) for item in drawing for name, value in item.items() if name in {"x", "x1", "x2", "cx"}]
        assert numbers
        assert all(-1 <= number <= 520 for number in numbers)


def test_a_model_learned_from_nobody_has_a_card_too() -> None:
    built_in = replace(
        _manifest(), model_sha256=sha256(b"reader"), certificate=None, charges=(), epsilon_ppm=0, cohort=0, trained_at=0
    )
    assert card(built_in, NOW)["certificate"] is None
    assert not card(built_in, NOW)["may_serve"]  # not one of those that ship
    assert "learned from nobody" in page(built_in, NOW)


def test_a_stale_certificate_stands_in_the_card_of_that_day() -> None:
    later = NOW.replace(year=NOW.year + 2)
    assert card(_manifest(), later)["refused_because"].startswith("The model was trained too long ago")
    assert card(_manifest(trained_at=TRAINED_AT), NOW)["may_serve"]
