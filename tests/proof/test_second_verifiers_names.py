"""The second verifier, in another language, knows the same published names: this finds, without npm, one that it lacks."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from vault.proof.certificate import BUILT_IN, SHIPPED
from vault.proof.leaf import LeafKind
from vault.proof.published import CLASSIFIERS, WORDS
from vault.schema.category import CATEGORIES, MINTED_PURPOSES, PURPOSES
from vault.schema.consent import ConsentEvent
from vault.schema.question import QuestionKind
from vault.schema.session import BOUNDS
from vault.seal.dsse import PayloadType

SOURCE = Path(__file__).parents[2] / "clients/web/verify"


def _words(file: str) -> set[str]:
    return set(re.findall(r"[A-Za-z0-9_-]+(?::[A-Za-z]+)?", (SOURCE / file).read_text()))


def test_every_published_name_is_known_to_the_second_verifier() -> None:
    digests = {digest.hex() for digest in chain(BUILT_IN, SHIPPED, WORDS.keys(), WORDS.values())}
    for file, names in {
        "certificate.ts": {*CLASSIFIERS, *digests},
        "vocabulary.ts": {*CATEGORIES, *PURPOSES, *MINTED_PURPOSES},
        "shown.ts": {kind.value for kind in LeafKind},
        "consent.ts": {event.value for event in ConsentEvent},
        "terms.ts": {kind.value for kind in QuestionKind},
        "question.ts": {*BOUNDS},
        "envelope.ts": {kind.value.split("/")[1] for kind in PayloadType},
    }.items():
        assert names
        assert names <= _words(file), file
