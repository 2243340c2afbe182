"""Looks for a planted text in stored bytes, in every form in which software tends to leave it.

Searched as UTF-8, UTF-16 (both orders), hex (both cases) and base64 (both alphabets, all three
alignments), in the bytes as they are and inside every zstd, gzip and zlib stream found in them.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import zstandard

_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b\x08"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_MOST_BYTES = 64 << 20
_DEPTH = 3
_PIECE_BYTES = 4096


@lru_cache
def forms(canary: str) -> dict[str, bytes]:
    """Return what to search for, by name.

    Args:
        canary: At least 12 characters, so that no form is short enough to occur by chance.
    """
    if len(canary) < 12:
        raise ValueError("a canary needs at least 12 characters")
    found: dict[str, bytes] = {}
    for name in ("utf-8", "utf-16-le", "utf-16-be"):
        raw = canary.encode(name)
        found[name] = raw
        found[f"{name} hex"] = raw.hex().encode()
        found[f"{name} HEX"] = raw.hex().upper().encode()
        for shift in range(3):
            # Characters that also hold bits of the neighbours differ from text to text: leave them out.
            whole = base64.b64encode(bytes(shift) + raw)
            inner = whole[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
            found[f"{name} base64+{shift}"] = inner
            found[f"{name} base64url+{shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def find_in(data: bytes, canary: str, depth: int = _DEPTH) -> list[str]:
    """Return the forms of a canary that occur in some bytes, or in what is compressed within them."""
    hits = [name for name, needle in forms(canary).items() if needle in data]
    if depth:
        for kind, inner in _streams(data):
            hits += [f"{kind}: {hit}" for hit in find_in(inner, canary, depth - 1)]
    return hits


def find_in_files(paths: Sequence[Path], canary: str) -> dict[Path, list[str]]:
    """Return the hits of every file that has one; folders are searched whole.

    A service that runs replaces files all the time: what is gone when its turn comes is stored no more, and what
    appeared meanwhile is searched too.
    """
    hits: dict[Path, list[str]] = {}
    searched: set[Path] = set()
    while found := _files(paths) - searched:
        for file in sorted(found):
            with suppress(FileNotFoundError):
                if forms_found := find_in(file.read_bytes(), canary):
                    hits[file] = forms_found
        searched |= found
    return hits


def size_bytes(paths: Sequence[Path]) -> int:
    """Return how many bytes lie in some files and folders."""
    size = 0
    for file in _files(paths):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _files(paths: Sequence[Path]) -> set[Path]:
    named = {path for path in paths if path.is_file()}
    # Unlike Path.rglob, os.walk passes over a folder that vanishes under it.
    inside = (Path(folder, name) for path in paths for folder, _, names in os.walk(path) for name in names)
    return named | {file for file in inside if file.is_file()}


def _streams(data: bytes) -> Iterator[tuple[str, bytes]]:
    view = memoryview(data)  # magic numbers occur by chance: copying the rest for each would take hours
    for at in _positions(data, _ZSTD):
        try:
            with zstandard.ZstdDecompressor().stream_reader(view[at:], read_across_frames=False) as reader:
                yield "zstd", reader.read(_MOST_BYTES)
        except zstandard.ZstdError:
            continue
    for magic in (_GZIP, *_ZLIB):
        for at in _positions(data, magic):
            if inner := _inflate(view[at:]):
                yield "deflate", inner


def _inflate(data: memoryview) -> bytes:
    """Return what a stream holds, up to where it breaks; fed in pieces, because zlib copies what it leaves over."""
    stream, inner = zlib.decompressobj(wbits=47), bytearray()
    for start in range(0, len(data), _PIECE_BYTES):
        try:
            inner += stream.decompress(data[start : start + _PIECE_BYTES], _MOST_BYTES)
        except zlib.error:
            break
        if stream.eof or len(inner) >= _MOST_BYTES:
            break
    return bytes(inner)


def _positions(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)
