"""Find the remembered examples that are most similar to an item.

With an embedding model, similarity is the cosine of vectors. Without one it is lexical: the mean of
two cosines of TF-IDF vectors, one over words and one over the pieces of words, so that inflected and
misspelt words count too. Words that most examples share, as a template's do, weigh next to nothing
(the inverse document frequency is that of BM25).

Everything is deterministic, linear in the length of hostile text, and bounded: of an item the first
`MAX_TEXT_CHARS` characters count, spread over its inputs, and of those the `MAX_FEATURES` weightiest
features of each kind. The index of a memory is built once, at its first use, and kept as long as its
memory is. numpy is imported at that moment: a server whose versions remember nothing never loads it.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from sidejudge_server.judges.memory import embedding_size
from sidejudge_server.judges.types import (
    JudgeInput,
    JudgeProgram,
    Memory,
    Neighbour,
    Recalled,
    RubricInput,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Floats = NDArray[np.float64]

__all__ = [
    "MAX_TEXT_CHARS",
    "build_index",
    "has_index",
    "pack_embeddings",
    "recall",
    "remembered_count",
    "retrieval_text",
    "similarities",
]

MAX_TEXT_CHARS = 6_000
MAX_FEATURES = 384
"""Of each of the two kinds: what the longest items cost."""

_WORD = re.compile(r"\w{1,32}")
_IDEOGRAPHIC = "\u2e80"
"""From here on a word is one or two characters long, so pieces are pairs instead of fours."""


def recall(
    program: JudgeProgram,
    item: JudgeInput,
    *,
    vector: Sequence[float] | None = None,
    hidden: Collection[str] = (),
) -> Recalled:
    """Return what a program's memory brings up for an item.

    Args:
        program: The version; nothing comes up if it remembers nothing or shows and counts none.
        item: What is judged.
        vector: Of the item's `retrieval_text`, where the memory has an embedding model.
        hidden: Ids of examples that must not come up: while a version is fitted, those that the
            item itself or its group brought in.

    Raises:
        ValueError: The vector is missing, or not of the memory's length.
    """
    memory, count = program.memory, remembered_count(program)
    if memory is None or not count or not memory.examples:
        return Recalled()
    likeness = similarities(memory, item, vector=vector)
    ranked = sorted(range(len(likeness)), key=lambda i: (-likeness[i], i))
    examples = memory.examples
    visible = [i for i in ranked if examples[i].example_id not in hidden]
    scores = [score for i in visible if (score := examples[i].score) is not None]
    return Recalled(
        neighbours=tuple(Neighbour(examples[i], likeness[i]) for i in visible[:count]),
        mean_label=math.fsum(scores) / len(scores) if scores else None,
    )


def similarities(
    memory: Memory, item: JudgeInput, *, vector: Sequence[float] | None = None
) -> list[float]:
    """Return the similarity of an item to each example of a memory, 0..1; as of `recall`."""
    return _index_of(memory).similarities(item, vector)


def remembered_count(program: JudgeProgram) -> int:
    """Return how many examples a program needs for an item, shown or counted; 0 for none."""
    if program.memory is None:
        return 0
    counted = program.head.neighbours if program.head is not None else 0
    return max(program.memory.shown, counted)


def retrieval_text(item: JudgeInput) -> str:
    """Return the text that similarity is measured by: all inputs, each with its part of the room.

    Criteria are left out: they are the judge's, not the item's.
    """
    if isinstance(item, RubricInput):
        parts = [item.task_context, item.agent_output]
    else:
        fields = (item.fields[name] for name in sorted(item.fields))
        parts = [item.context, item.ground_truth or "", *fields, item.artifact]
    return "\n".join(_fair_parts([part for part in parts if part]))


def has_index(memory: Memory) -> bool:
    """Return whether a memory's index has been built; a search builds it otherwise."""
    known = _indexes.get(id(memory))
    return known is not None and known[0] is memory


def build_index(memory: Memory) -> None:
    """Build a memory's index: up to a second of work, for a thread that nobody waits in."""
    _index_of(memory)


def pack_embeddings(vectors: Sequence[Sequence[float]]) -> str:
    """Return vectors as a memory keeps them: a signed byte per number, in base64.

    Args:
        vectors: One per example, all of one length; a vector of zeros is similar to nothing.

    Raises:
        ValueError: They are of different lengths, or a number is not finite.
    """
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():  # noqa: PLR2004 - rows and columns
        raise ValueError("expected finite vectors of one length")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = np.rint(127.0 * rows / np.where(largest > 0.0, largest, 1.0))
    return base64.b64encode(scaled.astype(np.int8).tobytes()).decode("ascii")


def _fair_parts(parts: list[str]) -> list[str]:
    """Cut the longest parts until all fit; what short ones leave goes to the others."""
    room, cut = MAX_TEXT_CHARS, {}
    by_length = sorted(range(len(parts)), key=lambda i: len(parts[i]))
    for position, i in enumerate(by_length):
        cut[i] = parts[i][: room // (len(parts) - position)]
        room -= len(cut[i])
    return [cut[i] for i in range(len(parts))]


class _Index(Protocol):
    """Similarities of an item to all examples of a memory, in their order, 0..1."""

    def similarities(
        self, item: JudgeInput, vector: Sequence[float] | None
    ) -> list[float]: ...


# By identity, like the prompt's prefixes; the memory beside its index keeps the identity from being
# used again. Entries are only ever added or all dropped, which is safe in threads.
_indexes: dict[int, tuple[Memory, _Index]] = {}
_MAX_INDEXES = 32


def _index_of(memory: Memory) -> _Index:
    known = _indexes.get(id(memory))
    if known is not None and known[0] is memory:
        return known[1]
    index: _Index
    index = _VectorIndex(memory) if memory.embedding_model else _LexicalIndex(memory)
    if len(_indexes) >= _MAX_INDEXES:
        _indexes.clear()
    _indexes[id(memory)] = (memory, index)
    return index


class _VectorIndex:
    """Cosines of embeddings; opposite directions count as not similar."""

    def __init__(self, memory: Memory) -> None:
        import numpy as np

        self._model = memory.embedding_model
        self._size = embedding_size(memory)
        data = base64.b64decode(memory.embeddings)
        rows = np.frombuffer(data, dtype=np.int8).reshape(-1, self._size)
        self._rows = _unit_rows(rows.astype(np.float64))

    def similarities(
        self, item: JudgeInput, vector: Sequence[float] | None
    ) -> list[float]:
        import numpy as np

        del item
        if vector is None or len(vector) != self._size:
            got = "none" if vector is None else str(len(vector))
            raise ValueError(
                f"expected a vector of {self._size} numbers from {self._model}, got {got}"
            )
        query = _unit_rows(np.asarray(vector, dtype=np.float64)[None, :])[0]
        return _rounded(self._rows @ query)


class _LexicalIndex:
    """Cosines over words and pieces of words, as one sparse matrix with a row per example."""

    def __init__(self, memory: Memory) -> None:
        import numpy as np

        texts = [retrieval_text(example.input) for example in memory.examples]
        found = [_features(text) for text in texts]
        self._kinds: list[Mapping[str, tuple[int, float]]] = []
        columns: list[int] = []
        values: list[float] = []
        # Each row begins with an entry that counts for nothing: sums need one that is not empty.
        rows: list[list[tuple[int, float]]] = [[(0, 0.0)] for _ in texts]
        next_column = 0
        self._unseen = _inverse_frequency(len(texts), 0)
        for kind in range(2):
            frequency = Counter(name for features in found for name in features[kind])
            known = {
                name: (next_column + i, _inverse_frequency(len(texts), count))
                for i, (name, count) in enumerate(frequency.items())
            }
            next_column += len(known)
            self._kinds.append(known)
            for row, features in zip(rows, found, strict=True):
                row.extend(self._weighted(features[kind], known))
        starts = []
        for row in rows:
            starts.append(len(columns))
            columns += [column for column, _ in row]
            values += [value for _, value in row]
        self._columns = np.array(columns, dtype=np.intp)
        self._values = np.array(values, dtype=np.float64)
        self._starts = np.array(starts, dtype=np.intp)
        self._width = max(1, next_column)

    def similarities(
        self, item: JudgeInput, vector: Sequence[float] | None
    ) -> list[float]:
        import numpy as np

        del vector
        query = np.zeros(self._width, dtype=np.float64)
        found = _features(retrieval_text(item))
        for features, known in zip(found, self._kinds, strict=True):
            for column, value in self._weighted(features, known):
                if column >= 0:
                    query[column] = value
        products = self._values * query[self._columns]
        return _rounded(np.add.reduceat(products, self._starts))

    def _weighted(
        self, features: Mapping[str, int], known: Mapping[str, tuple[int, float]]
    ) -> list[tuple[int, float]]:
        """Return columns (-1 for one that no example has) and values of length 1/sqrt(2) together.

        The two kinds together have length 1, and the product of two items is the mean of their
        cosines.
        """
        weighted = []
        for name, count in features.items():
            column, rarity = known.get(name, (-1, self._unseen))
            weighted.append((column, (1.0 + math.log(count)) * rarity))
        if len(weighted) > MAX_FEATURES:
            weighted.sort(key=lambda entry: -entry[1])
            del weighted[MAX_FEATURES:]
        length = math.sqrt(2.0 * math.fsum(value * value for _, value in weighted))
        return (
            [(column, value / length) for column, value in weighted] if length else []
        )


def _features(text: str) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return how often each word and each piece of a word occurs, in order of appearance."""
    words = Counter(_WORD.findall(text.casefold()))
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for piece in _pieces(word):
            pieces[piece] += count
    return words, pieces


@lru_cache(maxsize=20_000)
def _pieces(word: str) -> tuple[str, ...]:
    """Return overlapping pieces of a word with its ends marked: fours, or pairs of ideographs."""
    if word[0] >= _IDEOGRAPHIC:
        return tuple(word[i : i + 2] for i in range(max(1, len(word) - 1)))
    marked = f"^{word}$"
    return tuple(marked[i : i + 4] for i in range(max(1, len(marked) - 3)))


def _inverse_frequency(count: int, containing: int) -> float:
    """Return BM25's inverse document frequency, always positive."""
    return math.log1p((count - containing + 0.5) / (containing + 0.5))


def _unit_rows(rows: _Floats) -> _Floats:
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: _Floats = rows / np.where(lengths > 0.0, lengths, 1.0)
    return unit


def _rounded(similarities: _Floats) -> list[float]:
    """Cut to 0..1 and to 6 decimals, so that the order does not hang on how a sum was rounded."""
    import numpy as np

    values: Iterable[Any] = np.round(np.clip(similarities, 0.0, 1.0), 6).tolist()
    return [float(value) for value in values]
