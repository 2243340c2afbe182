"""The languages in which people are told things, and the vocabulary's labels in each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from vault.schema.category import CATEGORIES, PURPOSES


class Language(StrEnum):
    """A language of notices and receipts, as its BCP 47 tag."""

    EN = "en"
    FR = "fr"


_MINTED: Final = {
    "x:BehaviouralSteering": "Behavioural Steering",
    "x:InfluenceBehaviour": "Influence on Behaviour",
    "x:Persuasion": "Persuasion",
}
_FRENCH: Final = json.loads(files("vault.schema").joinpath("data/fr.json").read_text("utf-8"))["labels"]
LABELS: Final[Mapping[Language, Mapping[str, str]]] = MappingProxyType(
    {
        Language.EN: {name: term.label for name, term in (*CATEGORIES.items(), *PURPOSES.items())} | _MINTED,
        Language.FR: _FRENCH,
    }
)
"""What each category and purpose is called, by its prefixed name."""
