"""The stored vectors: what an earlier version wrote must still read, and what it refused stays refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seal.world import WORLD
from vault.seal.errors import SealError
from vault.seal.identity import Identity

FILES = sorted((Path(__file__).parents[1] / "vectors" / "seal").glob("*.txt"))


def fields(path: Path) -> dict[str, str]:
    lines = path.read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_vector(path: Path) -> None:
    case = fields(path)
    data = bytes.fromhex(case["data"])
    if case["entry"] == "identity":
        assert Identity(bytes.fromhex(case["seed"])).recipient.public == data
        return
    reading = WORLD.objects[case["entry"]][1]
    if case["expect"] == "ok":
        assert reading(data)
        return
    with pytest.raises(SealError) as refusal:
        reading(data)
    assert refusal.value.slug == case["expect"]


def test_every_entry_point_has_vectors_of_both_kinds() -> None:
    seen = {(case["entry"], case["expect"]) for case in map(fields, FILES)}
    assert seen >= {(kind, expect) for kind in WORLD.objects for expect in ("ok", "bad-seal")}
