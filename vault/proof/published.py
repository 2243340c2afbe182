"""What releases of this project published and an answer's leaf names: a name that none of them published is a lie.

Entries stay for ever: months that they decided are verified for years. A release that changes one adds it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CLASSIFIERS: Final = ("reveals-3", "reveals-4")
"""Versions of what says which special categories an answer could reveal, oldest first."""

WORDS: Final[Mapping[bytes, bytes]] = MappingProxyType(
    {
        bytes.fromhex(feature_map): bytes.fromhex(words)
        for feature_map, words in (
            (
                "7fef27789928d08281b0167a9f47a2a627f84882af0f4e8db244f500d6713895",  # retail-1
                "0d310b00d1bd94d9908d8de924ba6a129fb289284443ca1c8e1d48606d6a33b9",
            ),
            (
                "cb506e96c45df3b140a70eff7c2793642d60af4d6d9006b0396c933ecb3d6321",  # retail-1-daily
                "0d310b00d1bd94d9908d8de924ba6a129fb289284443ca1c8e1d48606d6a33b9",
            ),
            (
                "1a27839f7c8e3ebcccd9880722adc375325cd0d2475ccb32e6d1fa7e14b99562",  # content-1
                "28bb5bb1b0506c2cf2f945b9f9619f30a22aa002ccdea662346b7bb72b02b3f4",
            ),
            (
                "259fd71b15b4d9a9204252e329b02bfd88f4cdafa37170845c457f83579eb7b1",  # content-1-daily
                "28bb5bb1b0506c2cf2f945b9f9619f30a22aa002ccdea662346b7bb72b02b3f4",
            ),
        )
    }
)
"""Digest of the words that candidates' texts are read by, by digest of the feature map; other maps read no text."""
