"""How far a version agrees with itself, by items that it judged several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.repeats import Components, variance_components
from sidejudge_server.trust.codec import split_trust_json
from sidejudge_server.trust.types import Figure

__all__ = ["JudgeConsistency", "consistency"]

_FEWEST_ITEMS = 10
_REPLICATES = 400
_SEED = 20260802


@dataclass(frozen=True, slots=True)
class JudgeConsistency:
    """Figures over items with 95 % intervals (bootstrap over items); None with a reason.

    ``flip_rate`` is None for judges that answer scores.
    """

    evaluations: int
    samples: int
    within: Figure | None
    noise_share: Figure | None
    flip_rate: Figure | None
    reason: str


def consistency(documents: Sequence[str]) -> JudgeConsistency:
    """Return the figures of `codec.samples_json` texts."""
    samples = [split_trust_json(text)[0]["samples"] for text in documents]
    values: list[list[float]] = [s["values"] for s in samples]
    count = sum(len(v) for v in values)
    if len(values) < _FEWEST_ITEMS:
        reason = (
            f"{len(values)} items were judged several times; {_FEWEST_ITEMS} are needed: call"
            " Evaluate with n_samples"
        )
        return JudgeConsistency(len(values), count, None, None, None, reason)
    flips = [s["flip_rate"] for s in samples if s["flip_rate"] is not None]

    def of_components(part: Callable[[Components], float]) -> Figure:
        def statistic(drawn: Sequence[int]) -> float:
            found = variance_components([values[i] for i in drawn])
            return 0.0 if isinstance(found, CannotSay) else part(found)

        return _figure(statistic, len(values))

    return JudgeConsistency(
        len(values),
        count,
        within=of_components(lambda found: found.within),
        noise_share=of_components(lambda found: found.noise_share),
        flip_rate=_figure(
            lambda drawn: float(np.mean([flips[i] for i in drawn])), len(flips)
        )
        if flips
        else None,
        reason="",
    )


def _figure(statistic: Callable[[Sequence[int]], float], n: int) -> Figure:
    rng = np.random.default_rng(_SEED)
    replicates = [statistic(rng.integers(0, n, n).tolist()) for _ in range(_REPLICATES)]
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Figure(statistic(range(n)), float(low), float(high))
