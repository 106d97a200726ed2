"""Reading training examples."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import ExampleRecord
from sidejudge_storage.tables import EXAMPLES, id_list

__all__ = ["ExampleFilter", "ExampleReader", "NewExamples"]

_CONFLICTING = "conflicting_label"
"""The rejection of examples that clash with another; they take part in later comparisons."""

_SYNTHETIC = "synthetic"
"""The origin of examples that a language model wrote: they count for nothing but training."""

_FIFTHS = ("0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0")
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ExampleFilter:
    """Which examples to list."""

    judge_id: str
    split: str | None = None
    show_rejected: bool = False
    """Whether rejected examples are listed as well."""


@dataclass(frozen=True, slots=True)
class NewExamples:
    """How many examples were accepted, and how many of them the judge had got wrong."""

    count: int
    disagreements: int


class ExampleReader(Reader[ExampleRecord]):
    """Reads training examples."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EXAMPLES)

    async def get(self, example_id: str) -> ExampleRecord | None:
        """Return an example, None if there is none."""
        found = await self._by_key([example_id])
        return found[0] if found else None

    async def list(
        self, condition: ExampleFilter, *, before: str | None, limit: int
    ) -> list[ExampleRecord]:
        """Return up to ``limit`` examples, newest first, with ids below ``before``."""
        return await self._newest(_where(condition), before=before, limit=limit)

    async def after(
        self, condition: ExampleFilter, *, after: str | None, limit: int
    ) -> _Examples:
        """Return up to ``limit`` examples, oldest first, with ids above ``after``."""
        where = _where(condition)
        if after is not None:
            where.add("example_id > ?", after)
        return await self._select(where, order="example_id", limit=limit)

    async def corrections(self, judge_id: str, *, after: str, limit: int) -> _Examples:
        """Return accepted examples made from feedback, oldest first, with ids above ``after``."""
        where = (
            Where()
            .equals(judge_id=judge_id, origin="feedback")
            .add("rejection IS NULL AND example_id > ?", after)
        )
        return await self._select(where, order="example_id", limit=limit)

    async def groups_before(
        self, judge_id: str, groups: Iterable[str], *, before: str
    ) -> set[str]:
        """Return which groups had an example on a side of the split with an id up to ``before``."""
        wanted = [*groups]
        if not wanted:
            return set()
        where = (
            Where()
            .equals(judge_id=judge_id)
            .add("split IS NOT NULL AND example_id <= ?", before)
            .member("group_key", wanted)
        )
        rows = await self._rows(
            f"SELECT DISTINCT group_key FROM examples{where.sql}",  # noqa: S608 - names are ours, values are bound
            where.params,
        )
        return {group for (group,) in rows}

    async def first_by_digest(
        self, judge_id: str, digests: Iterable[str]
    ) -> dict[str, str]:
        """Return the id of the first example with each of these inputs, rejected ones included."""
        wanted = [*digests]
        if not wanted:
            return {}
        where = Where().equals(judge_id=judge_id).member("content_digest", wanted)
        rows = await self._rows(
            f"SELECT content_digest, min(example_id) FROM examples{where.sql}"  # noqa: S608 - names are ours, values are bound
            " GROUP BY content_digest",
            where.params,
        )
        return dict(rows)

    async def accepted(self, judge_id: str) -> _Examples:
        """Return the accepted examples of a judge, oldest first."""
        where = _where(ExampleFilter(judge_id))
        return await self._select(where, order="example_id")

    async def by_digests(self, judge_id: str, digests: Iterable[str]) -> _Examples:
        """Return examples with these inputs, accepted or left out as conflicting, oldest first."""
        wanted = [*digests]
        if not wanted:
            return []
        where = (
            Where()
            .equals(judge_id=judge_id)
            .add("(rejection IS NULL OR rejection = ?)", _CONFLICTING)
            .member("content_digest", wanted)
        )
        return await self._select(where, order="example_id")

    async def by_evaluations(
        self, judge_id: str, evaluation_ids: Iterable[str]
    ) -> _Examples:
        """Return examples made from these evaluations, rejected ones included, oldest first."""
        wanted = [*evaluation_ids]
        if not wanted:
            return []
        where = Where().equals(judge_id=judge_id).member("evaluation_id", wanted)
        return await self._select(where, order="example_id")

    async def group_splits(
        self, judge_id: str, groups: Iterable[str]
    ) -> dict[str, str]:
        """Return the side of the split of each group that has one.

        That is the side of its first example that was ever accepted, also if it was rejected
        later: what was trained on must not come back as a test.
        """
        wanted = [*groups]
        if not wanted:
            return {}
        where = (
            Where()
            .equals(judge_id=judge_id)
            .add("split IS NOT NULL")
            .member("group_key", wanted)
        )
        rows = await self._rows(
            f"SELECT group_key, arg_min(split, example_id) FROM examples{where.sql}"  # noqa: S608 - names are ours, values are bound
            " GROUP BY group_key",
            where.params,
        )
        return dict(rows)

    async def split_counts(self, judge_id: str) -> dict[tuple[str, str], int]:
        """Return the number of accepted examples by side and label, synthetic ones aside.

        The label is the verdict or the fifth of the score, such as "0.2-0.4"; a score on a border
        belongs to the fifth above it, 1.0 to the last.
        """
        fifth = "least(floor(score * 5 + ?)::INTEGER, 4) + 1"
        rows = await self._rows(
            f"SELECT split, coalesce(verdict, (from_json(?, '[\"VARCHAR\"]'))[{fifth}]),"  # noqa: S608 - values are bound
            " count(*) FROM examples"
            " WHERE judge_id = ? AND rejection IS NULL AND split IS NOT NULL"
            " AND origin <> ? GROUP BY ALL",
            [id_list(_FIFTHS), _ROUNDING, judge_id, _SYNTHETIC],
        )
        return {(split, label): count for split, label, count in rows}

    async def new(
        self,
        judge_id: str,
        *,
        after: str | None,
        origins: Iterable[str],
        score_difference: float,
    ) -> NewExamples:
        """Count the accepted examples with ids above ``after``, None for all.

        Args:
            judge_id: The judge.
            after: An id of any kind; ids sort by time.
            origins: Only of these.
            score_difference: Scores that are so far apart disagree; verdicts if they differ.
                An example of which it is not known what the judge had answered agrees.
        """
        where = (
            Where()
            .equals(judge_id=judge_id)
            .add("rejection IS NULL")
            .member("origin", origins)
        )
        if after is not None:
            where.add("example_id > ?", after)
        rows = await self._rows(
            "SELECT count(*), count(*) FILTER (verdict <> judged_verdict"  # noqa: S608 - names are ours, values are bound
            " OR abs(score - judged_score) > ?)"
            f" FROM examples{where.sql}",
            [score_difference - _ROUNDING, *where.params],
        )
        return NewExamples(*rows[0])

    async def rejection_counts(self, judge_id: str) -> dict[str, int]:
        """Return the number of rejected examples by reason, synthetic ones aside."""
        rows = await self._rows(
            "SELECT rejection, count(*) FROM examples"
            " WHERE judge_id = ? AND rejection IS NOT NULL AND origin <> ?"
            " GROUP BY rejection",
            [judge_id, _SYNTHETIC],
        )
        return dict(rows)


# The method ``list`` hides the builtin inside the class.
_Examples = list[ExampleRecord]


def _where(condition: ExampleFilter) -> Where:
    where = Where().equals(judge_id=condition.judge_id, split=condition.split)
    # The side of a rejected example is hidden, so asking for a side leaves it out.
    if condition.split is not None or not condition.show_rejected:
        where.add("rejection IS NULL")
    return where
