"""What an object's text is about: the published coordinates that its words lie nearest to.

A map's coordinates are described by published phrases, and phrases become vectors by the published weights of
WordLlama: the sum of a text's tokens, each weighed by how few coordinates' phrases hold it. Nothing is learned
from people. Tokens are whole numbers, and every number after them is a whole number or one correctly rounded
operation on two of them, so that every machine says the same of a text.

Source: Arora, Liang, Ma, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (2017), for weighed sums;
WordLlama 0.4, whose files are read and whose code, which downloads, is not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from vault.encoding import JsonObject, dump_json, parse_json
from vault.errors import VaultError

if TYPE_CHECKING:
    from vault.imprint.features import FeatureMap

Whole: TypeAlias = npt.NDArray[np.float32]
"""Rows of whole numbers, of length about 1,024: a sum of products of two rows is exact in whatever order it is added."""
Places: TypeAlias = npt.NDArray[np.intp]

_PUBLISHED: Final = {"retail-1": "retail-1-words.json", "content-1": "content-1-words.json"}
_NO_WORD: Final = re.compile(r"[\W\d_]+")
_NEXT_TEXT: Final = "\n "  # no text has a line's end once its words are taken out
_TOKEN_SCALE: Final = 15
_UNIT: Final = 1024  # the length of a vector
_STEPS: Final = 16  # of a token's weight for each doubling of its rarity
_LEAST: Final = 0.25  # cosine below which a text is not about a coordinate
_MOST: Final = 10_000


class BadWords(VaultError):
    """Published words or weights that are not the ones this release was made with."""

    slug = "bad-words"
    title = "Text cannot be read"
    status = 500


@dataclass(frozen=True)
class Files:
    """WordLlama's files.

    Args:
        tokens: int8[tokens, 256].
        tokenizer: A `tokenizers.Tokenizer` that takes each line for itself.
    """

    tokens: npt.NDArray[np.int8]
    tokenizer: Any

    def ids(self, texts: Sequence[str]) -> tuple[Places, Places]:
        """Return the tokens of all texts, one text after the other, and for each token the place of its text."""
        plain = [_NO_WORD.sub(" ", text.casefold()).strip() for text in texts]
        filled = np.array([at for at, text in enumerate(plain) if text], dtype=np.intp)
        # The blank stands for the one that the tokenizer itself puts before a text.
        found = self.tokenizer.encode(_NEXT_TEXT.join(plain[at] for at in filled), add_special_tokens=False)
        return np.array(found.ids, dtype=np.intp), filled[np.array(found.word_ids, dtype=np.intp)]


@dataclass(frozen=True, eq=False)
class Words:
    """The published words of one map's coordinates.

    Args:
        codes: The map's published codes.
        vectors: float32[len(codes), 256].
        weights: int32[tokens]: how rare each token is in the phrases.
        files: What the vectors were made with.

    Guarantees: equal texts are about the same on every machine; nothing else is read.
    """

    codes: tuple[str, ...]
    vectors: Whole
    weights: npt.NDArray[np.int32]
    files: Files

    def about(self, texts: Sequence[str], readable: Collection[str]) -> npt.NDArray[np.int16]:
        """Return how much each text is about each coordinate.

        Args:
            texts: Any texts.
            readable: Codes that may be named; of the others no text is about any.

        Returns:
            int16[len(texts), len(codes)], 0 to 10,000: the fourth power of the cosine, 0 where it is below 0.25.
        """
        products = _vectors(self.files, self.weights, texts) @ self.vectors.T
        near = (products >= _LEAST * _UNIT**2) & np.array([code in readable for code in self.codes])
        squares = (products[near] / np.float32(_UNIT**2)).clip(max=1.0) ** 2
        about = np.zeros(products.shape, dtype=np.int16)
        about[near] = squares * squares * _MOST
        return about


@lru_cache
def words_digest(feature_map: FeatureMap) -> bytes:
    """Return the digest of what texts are read by; empty if the map's coordinates have no published words."""
    record = _record(feature_map)
    return b"" if record is None else hashlib.sha256(dump_json(record)).digest()


@lru_cache
def words_of(feature_map: FeatureMap) -> Words | None:
    """Return the published words of a map's coordinates; None if there are none.

    Raises:
        BadWords: The installed weights are not those that the words were published with, or the words are of other
            coordinates.
    """
    record = _record(feature_map)
    if record is None:
        return None
    phrases = cast("dict[str, list[str]]", record["words"])
    if tuple(phrases) != feature_map.codes[:-2]:
        raise BadWords("The published words describe other coordinates than the map has.")
    files = _files(cast("JsonObject", record["files"]))
    weights = _rarity(files, phrases)
    vectors = _unit(np.stack([_vectors(files, weights, said).sum(0) for said in phrases.values()]))
    return Words(tuple(phrases), vectors, weights, files)


def _record(feature_map: FeatureMap) -> JsonObject | None:
    name = _PUBLISHED.get(feature_map.hierarchy)
    return None if name is None else parse_json((resources.files("vault.imprint") / "data" / name).read_bytes())


def _files(named: JsonObject) -> Files:
    """Read WordLlama's files where they are installed, if they are the published ones."""
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise BadWords("WordLlama's weights are not installed; install the extra 'server'.")
    from safetensors.numpy import load  # noqa: PLC0415  only the service, which has the extra, reads texts
    from tokenizers import Tokenizer, pre_tokenizers  # noqa: PLC0415  as above

    folder = Path(found.origin).parent
    weights, tokenizer = (_read(folder, cast("dict[str, str]", named[part])) for part in ("weights", "tokenizer"))
    # Half precision times 15 is exact in single, and no weight reaches 8.5.
    tokens = np.rint(load(weights)["embedding.weight"].astype(np.float32) * _TOKEN_SCALE).astype(np.int8)
    by_line = Tokenizer.from_str(tokenizer.decode())
    by_line.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    return Files(tokens, by_line)


def _read(folder: Path, named: Mapping[str, str]) -> bytes:
    data = (folder / named["path"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != named["sha256"]:
        raise BadWords(f"{named['path']} of WordLlama is another file than texts are read with; install 0.4.0.post1.")
    return data


def _rarity(files: Files, phrases: Mapping[str, Sequence[str]]) -> npt.NDArray[np.int32]:
    """Return each token's weight: floor(16 log2((n + 1) / (df + 1))), in integers alone."""
    holding = Counter(token for said in phrases.values() for token in {*files.ids(said)[0].tolist()})
    most = len(phrases) + 1
    weights = np.full(len(files.tokens), (most**_STEPS).bit_length() - 1, dtype=np.int32)
    for token, count in holding.items():
        weights[token] = (most**_STEPS // (count + 1) ** _STEPS).bit_length() - 1
    return weights


def _vectors(files: Files, weights: npt.NDArray[np.int32], texts: Sequence[str]) -> Whole:
    """Return each text's vector of length `_UNIT`; zero for a text without words."""
    tokens, texts_of = files.ids(texts)
    sums = np.zeros((len(texts), files.tokens.shape[1]), dtype=np.int32)
    weighed = files.tokens[tokens] * weights[tokens, None]
    starts = np.flatnonzero(np.diff(texts_of, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(tokens)]):
        np.add.reduce(weighed[start:end], axis=0, out=sums[texts_of[start]])
    return _unit(sums)


def _unit(sums: npt.NDArray[np.int32] | Whole) -> Whole:
    """Return rows scaled to the length `_UNIT`, rounded; zeros stay."""
    exact = sums.astype(np.int64)  # whose squares sum to less than 2**63
    length = np.sqrt(np.square(exact).sum(1).astype(np.float64))
    unit: Whole = np.rint(exact / np.maximum(length, 1.0)[:, None] * _UNIT).astype(np.float32)
    return unit
