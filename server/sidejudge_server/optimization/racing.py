"""Score candidates in a race against the best one: who is clearly behind is asked no further.

Takes the place of ``dspy.Evaluate`` in a search. Examples come in one random order, the same for all
candidates, in blocks; after each block the values so far are compared with those of the best full
evaluation on the same examples. A candidate is dropped when an anytime-valid test without replacement
(`stats.finite_betting`) says that all examples together would not make it better:

* Tested is the mean of paired differences, cut at +-0.3: with soft metrics few are larger, and the bets
  may be three times as high. The test is at 20 %: a candidate that is in truth better, by its cut
  differences, is dropped at most that often, whatever the data look like; ADR 15 has the simulation, in
  which it happens to 2 to 5 in 100.
* Only a full evaluation can become the best. What was dropped is worth to the search the best one's
  mean plus the mean difference seen, shrunk towards none by eight examples' weight, and always less
  than the best.
* What was asked once is known: a combination that is drawn again costs nothing.

All decisions depend on the answers alone, and are taken at ends of blocks: any number of threads, and
a replay from a cache, give the same run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidejudge_server.stats.finite_betting import finite_mean_below_log_e

__all__ = ["BLOCK", "Evaluated", "Outcome", "Race"]

BLOCK = 8
"""Examples between two looks: as many as calls at once, so that a look costs no waiting."""
ALPHA = 0.2
CLIP = 0.3
SHRINK_EXAMPLES = 8
"""A dropped candidate's mean difference counts as if so many more pairs had shown none."""

_LOG_BAR = math.log(1 / ALPHA)
_STEP = 0.01
"""Smallest difference of scores, in per cent: they are rounded as DSPy rounds them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a candidate that was scored.

    Attributes:
        score: Mean metric on the examples looked at, 0..1.
        estimate: What the search is told, in per cent: that mean, or less than the best if dropped.
        example_count: Examples looked at.
        full: True if those were all.
        stopped_early: True if it was dropped.
        asked: Examples asked for now, because they had not been before.
    """

    score: float
    estimate: float
    example_count: int
    full: bool
    stopped_early: bool
    asked: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What ``dspy.Evaluate`` returns, as far as its callers here look at it.

    Attributes:
        score: In per cent.
        results: Example, None for the prediction, and value.
    """

    score: float
    results: list[tuple[Any, None, float]]


@dataclass(slots=True)
class _Entrant:
    """A candidate: its values by example, and the verdict once it has been dropped."""

    values: dict[int, float] = field(default_factory=dict)
    dropped: Outcome | None = None

    def mean(self, indices: Sequence[int]) -> float:
        return sum(self.values[i] for i in indices) / len(indices)


class Race:
    """An evaluator in DSPy's call signature that remembers and compares; not thread-safe."""

    def __init__(
        self,
        values: Callable[[Any, Sequence[Any]], Sequence[float]],
        *,
        examples: Sequence[Any],
        identity: Callable[[Any], str],
        early_stopping: bool,
        seed: int,
    ) -> None:
        """Prepare a race; nothing is asked yet.

        Args:
            values: Returns a candidate's metric, 0..1, on each of some examples.
            examples: All that candidates are scored on.
            identity: Tells candidates apart: those with the same get the same values.
            early_stopping: False to ask every candidate about everything it is called with.
            seed: Of the order of examples.
        """
        self._values = values
        self._examples = list(examples)
        self._place = {id(example): i for i, example in enumerate(self._examples)}
        self._identity = identity
        self._early_stopping = early_stopping
        self._order = random.Random(seed).sample(  # noqa: S311 - reproducible, not secret
            range(len(self._examples)), len(self._examples)
        )
        self._entrants: dict[str, _Entrant] = {}
        self._best: tuple[_Entrant, float] | None = None
        self._outcomes: dict[str, Outcome] = {}
        self._fault: Exception | None = None

    def __call__(
        self,
        program: Any,  # noqa: ANN401 - dspy is untyped
        *,
        devset: Sequence[Any],
        callback_metadata: Mapping[str, Any] | None = None,
    ) -> Evaluated:
        """Score a candidate on some or all examples.

        With early stopping, some examples are always the first ones of the race's order, however
        many are wanted: candidates are compared on the same ones, and a full evaluation goes on
        where the part ended.

        Args:
            program: The candidate.
            devset: Examples, of those that the race was made with.
            callback_metadata: Not used.
        """
        del callback_metadata
        identity = self._identity(program)
        entrant = self._entrants.setdefault(identity, _Entrant())
        known = len(entrant.values)
        try:
            outcome = self._run(program, entrant, self._wanted(devset))
        except Exception as error:
            # MIPROv2 would score it 0 and go on; `outcome` raises it again.
            self._fault = error
            raise
        self._outcomes[identity] = replace(outcome, asked=len(entrant.values) - known)
        return Evaluated(
            outcome.estimate,
            [(self._examples[i], None, v) for i, v in entrant.values.items()],
        )

    def outcome(self, program: Any) -> Outcome:  # noqa: ANN401 - dspy is untyped
        """Return what became of a candidate when it was scored last.

        Raises:
            KeyError: It has not been scored.
            Exception: What went wrong in the last scoring, which the caller did not hear of.
        """
        if self._fault is not None:
            raise self._fault
        return self._outcomes[self._identity(program)]

    def _wanted(self, devset: Sequence[Any]) -> list[int]:
        if self._early_stopping or len(devset) >= len(self._examples):
            return self._order[: len(devset)]
        return [self._place[id(example)] for example in devset]

    def _run(self, program: Any, entrant: _Entrant, wanted: list[int]) -> Outcome:  # noqa: ANN401 - dspy is untyped
        if entrant.dropped is not None:
            return entrant.dropped
        while missing := [i for i in wanted if i not in entrant.values]:
            if self._is_behind(entrant):
                entrant.dropped = self._dropped(entrant, wanted)
                return entrant.dropped
            if self._early_stopping and self._best is not None:
                missing = missing[: BLOCK - len(entrant.values) % BLOCK]
            found = self._values(program, [self._examples[i] for i in missing])
            entrant.values.update(zip(missing, found, strict=True))
        score = entrant.mean(wanted)
        percent = round(100 * score, 2)
        full = len(wanted) == len(self._examples)
        if full and (self._best is None or score > self._best[1]):
            self._best = entrant, score
        return Outcome(score, percent, len(wanted), full, stopped_early=False, asked=0)

    def _is_behind(self, entrant: _Entrant) -> bool:
        if not self._early_stopping or self._best is None or not entrant.values:
            return False
        best = self._best[0].values
        differences = [
            max(-1.0, min(1.0, (value - best[i]) / CLIP))
            for i, value in entrant.values.items()
        ]
        log_e = finite_mean_below_log_e(differences, population=len(self._examples))
        return log_e >= _LOG_BAR

    def _dropped(self, entrant: _Entrant, wanted: list[int]) -> Outcome:
        if self._best is None:
            raise AssertionError("nothing to be behind of")
        best, best_score = self._best
        seen = list(entrant.values)
        difference = entrant.mean(seen) - best.mean(seen)
        shrunk = difference * len(seen) / (len(seen) + SHRINK_EXAMPLES)
        reference = best.mean(wanted)
        estimate = min(
            round(100 * (reference + shrunk), 2),
            round(100 * reference, 2) - _STEP,
            round(100 * best_score, 2) - _STEP,
        )
        return Outcome(
            entrant.mean(seen),
            estimate,
            len(seen),
            full=False,
            stopped_early=True,
            asked=0,
        )
