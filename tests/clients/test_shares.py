"""Any enough shares give the secret, and nothing less does."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from twinvault.shares import BadShare, Share, combine, dump_share, parse_share, split
from vault.encoding import dump_json, parse_json
from vault.proof.note import VerifierKey
from vault.proof.trust import TrustedRoot
from vault.seal.ids import VaultId
from vault.seal.legacy import legacy_key
from vault.seal.signing import new_seed

SECRET, OTHER = new_seed(), new_seed()
VAULT = VaultId(b"v" * 16)
TRUST = TrustedRoot(
    "https://vault.example", "log.example", VerifierKey("log.example", legacy_key(OTHER).public_key), OTHER
)


def made(secret: bytes = SECRET, threshold: int = 3, shares: int = 5) -> list[Share]:
    return split(secret, TRUST, VAULT, threshold=threshold, shares=shares)


def test_any_three_of_five_give_the_secret_and_no_two_do() -> None:
    shares = made()
    assert [share.number for share in shares] == [1, 2, 3, 4, 5]
    for some in combinations(shares, 3):
        assert combine(some) == SECRET
    assert combine(shares) == SECRET
    for two in combinations(shares, 2):
        with pytest.raises(BadShare, match="It takes 3"):
            combine(two)
        claimed = [replace(share, threshold=2) for share in two]
        with pytest.raises(BadShare):
            combine(claimed)


def test_shares_of_another_plan_twice_or_none_are_refused() -> None:
    shares, others, again = made(), made(OTHER), made()
    for wrong in (
        [],
        [shares[0], shares[0], shares[1]],
        [shares[0], shares[1], others[2]],
        [shares[0], shares[1], replace(others[2], legacy_key=shares[0].legacy_key)],
        [shares[0], shares[1], again[2]],
        [replace(share, legacy_key=others[0].legacy_key) for share in shares],
    ):
        with pytest.raises(BadShare):
            combine(wrong)


@pytest.mark.parametrize("first", [0, 1])
def test_an_executor_leads_the_others_to_no_other_service(first: int) -> None:
    shares = made(threshold=2, shares=2)
    shares[first] = replace(shares[first], trust=replace(TRUST, issuer="https://thief.example"))
    with pytest.raises(BadShare, match="different plans or services"):
        combine(shares)


def test_a_share_survives_paper() -> None:
    share = made()[0]
    assert parse_share(dump_share(share)) == share
    assert len(share.words.split()) == 33


@pytest.mark.parametrize(
    "change",
    [
        lambda words: words.replace(words.split()[7], "academic" if words.split()[7] != "academic" else "acid", 1),
        lambda words: words.rpartition(" ")[0],
        lambda words: " ".join(words.split()[::-1]),
        lambda words: words + " zzz",
        lambda _: "",
        lambda _: "x" * 2_001,
    ],
)
def test_mistyped_words_are_refused(change) -> None:
    record = parse_json(dump_share(made()[0]))
    with pytest.raises(BadShare):
        parse_share(dump_json({**record, "words": change(record["words"])}))


def test_what_is_no_share_is_refused(tmp_path: Path) -> None:
    good = dump_share(made()[0])
    record = parse_json(good)
    for bad in (b"", b"{}", good[:-1], b"\xff" * 40, b"[" * 100_000, dump_json({**record, "format": "x"})):
        with pytest.raises(BadShare):
            parse_share(bad)
    for name in record:
        with pytest.raises(BadShare):
            parse_share(dump_json({key: value for key, value in record.items() if key != name}))
    with pytest.raises(BadShare):
        parse_share(dump_json({**record, "more": 1}))
