"""What one release costs whom: the records that the ledger keeps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vault.encoding import JsonObject, b64u, parse_b64u
from vault.errors import MalformedInput
from vault.imprint.features import FeatureMap
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import MONTHLY
from vault.proof.accounting import GRID, Curve, gaussian
from vault.schema.trace import Period


class Unit(StrEnum):
    """Whose change a guarantee hides."""

    OWNER_DAY = "owner-day"
    PERSON = "person"

    @property
    def neighbours(self) -> str:
        """The relation in words, written into every record."""
        return _NEIGHBOURS[self]


_NEIGHBOURS: Final = {
    Unit.OWNER_DAY: "with or without all traces of one local date in one vault",
    Unit.PERSON: "with or without one person and all their traces",
}


@dataclass(frozen=True, slots=True)
class CapScope:
    """What one cap covers: every charge in a scope composes with every other one.

    Args:
        unit: Whose change is hidden.
        subject: The vault as base64url; `everyone` for the cohort, whose every release charges every person.
        window: `YYYY-MM` of the days, or `YYYY` of the year in which backbones were released.
    """

    unit: Unit
    subject: str
    window: str

    @property
    def key(self) -> str:
        """Text that names the scope in the database."""
        return f"{self.unit}/{self.subject}/{self.window}"


EVERYONE: Final = "everyone"


def owner_day(vault_id: bytes, period: Period) -> CapScope:
    """Return the scope of each single day of a month; its cap covers all categories.

    A monthly release costs every day of the month the same, so the month stands for its days.

    Args:
        vault_id: 16 bytes.
        period: The month.
    """
    return CapScope(Unit.OWNER_DAY, b64u(vault_id), period)


def person_year(year: int) -> CapScope:
    """Return the scope of every person over all that is released about the cohort in a calendar year."""
    return CapScope(Unit.PERSON, EVERYONE, f"{year:04}")


@dataclass(frozen=True, slots=True)
class LedgerCharge:
    """One release's worst case.

    Args:
        scope: What pays.
        category: Personal-data term read, or empty where a release reads several.
        release_id: 32 bytes: an imprint's release id or a model manifest's digest.
        mechanism: Name and parameters, strings and integers only.
        curve: Cost to the scope's unit.
        code_hash: SHA-256 of the code that releases, 32 bytes.
    """

    scope: CapScope
    category: str
    release_id: bytes
    mechanism: JsonObject
    curve: Curve
    code_hash: bytes

    def __post_init__(self) -> None:
        if len(self.release_id) != 32 or len(self.code_hash) != 32:
            raise ValueError("a release id and a code hash have 32 bytes")


def imprint_charge(
    feature_map: FeatureMap,
    vault_id: bytes,
    period: Period,
    noise: DiscreteGaussian,
    *,
    release_id: bytes,
    code_hash: bytes,
) -> LedgerCharge:
    """Return what one monthly imprint row costs each day of its month.

    Args:
        feature_map: Map of the category; its clip is the sensitivity.
        vault_id: 16 bytes.
        period: The month.
        noise: The noise that will be drawn.
        release_id: From `vault.imprint.rows.release_id` with the same arguments.
        code_hash: SHA-256 of the code that will run.
    """
    mechanism: JsonObject = {
        "name": MONTHLY,
        "noise": "discrete-gaussian",
        "map": b64u(feature_map.digest),
        "clip": feature_map.clip,
        "sigma": noise.sigma,
    }
    curve = gaussian(feature_map.clip, noise.sigma)
    scope = owner_day(vault_id, period)
    return LedgerCharge(scope, feature_map.category, release_id, mechanism, curve, code_hash)


def dump_charge(charge: LedgerCharge) -> JsonObject:
    """Return a charge as JSON, with its neighbours spelt out for whoever audits it."""
    return {
        "unit": str(charge.scope.unit),
        "neighbours": charge.scope.unit.neighbours,
        "subject": charge.scope.subject,
        "window": charge.scope.window,
        "category": charge.category,
        "release": b64u(charge.release_id),
        "mechanism": charge.mechanism,
        "orders": GRID,
        "renyi_nano": list(charge.curve.nano),
        "mu2_nano": [] if charge.curve.mu2_nano is None else [charge.curve.mu2_nano],
        "code": b64u(charge.code_hash),
    }


def curve_of(record: JsonObject) -> Curve:
    """Return the curve of a charge that `dump_charge` wrote.

    Raises:
        KeyError: There is none.
        ValueError: It is not one.
        MalformedInput: It is not made of lists.
    """
    nano, mu2_nano = record["renyi_nano"], record["mu2_nano"]
    if not isinstance(nano, list) or not isinstance(mu2_nano, list):
        raise MalformedInput("A charge's curve is a list, and so is its mu^2: of one number, or of none.")
    bounds, (known, *_) = (int(str(bound)) for bound in nano), (*(int(str(bound)) for bound in mu2_nano), None)
    return Curve(tuple(bounds), known)


def parse_charge(record: JsonObject) -> LedgerCharge:
    """Return the charge that `dump_charge` wrote.

    Raises:
        MalformedInput: It did not, or with another grid of orders.
    """
    try:
        scope = CapScope(Unit(str(record["unit"])), str(record["subject"]), str(record["window"]))
        mechanism = record["mechanism"]
        if not isinstance(mechanism, dict):
            raise MalformedInput("A charge's mechanism is an object.")
        release_id, code_hash = parse_b64u(record["release"], size=32), parse_b64u(record["code"], size=32)
        charge = LedgerCharge(scope, str(record["category"]), release_id, mechanism, curve_of(record), code_hash)
    except (KeyError, ValueError) as error:
        raise MalformedInput("A record is not a charge of the privacy ledger.") from error
    if dump_charge(charge) != record:
        raise MalformedInput("A record says more, or other things, than a charge of the privacy ledger.")
    return charge
