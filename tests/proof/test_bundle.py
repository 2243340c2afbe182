"""Bundle files: one spelling in, one out; damage is named by line and never half read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import dump_json, parse_json
from vault.proof.bundle import Bundle, LoggedLeaf, dump_bundle, parse_bundle, records_by_hash
from vault.proof.errors import MalformedProof
from vault.proof.leaf import make_entry


def _bundle() -> Bundle:
    leaves = []
    for index in (3, 7):
        entry, openings = make_entry({"kind": "answer"}, {"n": index})
        leaves.append(
            LoggedLeaf(index, entry, (b"\x01" * 32,), openings.public, openings.personal if index == 3 else None)
        )
    return Bundle("note\n", tuple(leaves), records_by_hash([b"one", b"two"]), 3, 8)


def test_a_bundle_survives_the_trip() -> None:
    bundle = _bundle()
    assert parse_bundle(dump_bundle(bundle)) == bundle


@pytest.mark.parametrize("kept_bytes", [0, 1, 50, 500, -1, -40])
def test_a_cut_bundle_is_refused(kept_bytes: int) -> None:
    with pytest.raises(MalformedProof):
        parse_bundle(dump_bundle(_bundle())[:kept_bytes])


def test_reordered_repeated_and_missing_lines_are_refused() -> None:
    header, first, second, *records = dump_bundle(_bundle()).splitlines(keepends=True)
    for lines in (
        [header, second, first, *records],
        [header, first, first, *records],
        [header, first, *records],
        [header, first, second, *records, records[0]],
        [first, header, second, *records],
    ):
        with pytest.raises(MalformedProof):
            parse_bundle(b"".join(lines))


def test_an_altered_record_is_no_longer_found() -> None:
    bundle = _bundle()
    data = dump_bundle(bundle).replace(b'"b25l"', b'"b25m"')
    assert set(parse_bundle(data).records) != set(bundle.records)


@given(st.binary(max_size=300))
def test_any_bytes_raise_one_error_family(data: bytes) -> None:
    with pytest.raises(MalformedProof):
        parse_bundle(data)


@given(st.data())
def test_any_flipped_bit_is_refused_or_changes_what_is_read(data: st.DataObject) -> None:
    original = _bundle()
    raw = bytearray(dump_bundle(original))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    with contextlib.suppress(MalformedProof):
        assert parse_bundle(bytes(raw)) != original


@given(st.data())
def test_a_bundle_is_written_in_the_one_spelling_of_its_lines(data: st.DataObject) -> None:
    leaves = []
    for index in sorted(data.draw(st.sets(st.integers(0, 2**40), max_size=3))):
        entry, openings = make_entry({"kind": "answer", "n": index}, {"who": "ü"})
        personal = data.draw(st.sampled_from([None, openings.personal]))
        path = tuple(data.draw(st.lists(st.binary(min_size=32, max_size=32), max_size=3)))
        leaves.append(LoggedLeaf(index, entry, path, openings.public, personal))
    records = records_by_hash(data.draw(st.lists(st.binary(max_size=40), max_size=3)))
    bundle = Bundle('note "quoted"\n', tuple(leaves), records)
    written = dump_bundle(bundle)
    assert written == b"".join(dump_json(parse_json(line)) + b"\n" for line in written.splitlines())
    assert parse_bundle(written) == bundle


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("deep", [b"[" * 200_000, b'{"index":' * 100_000, b'{"index":' + b"[" * 17 + b"]" * 17 + b"}"])
def test_a_line_that_is_nested_without_end_is_named(place: int, deep: bytes) -> None:
    lines = dump_bundle(_bundle()).splitlines()
    lines[place] = deep
    with pytest.raises(MalformedProof, match=f"Line {place + 1} of the bundle"):
        parse_bundle(b"\n".join(lines) + b"\n")
