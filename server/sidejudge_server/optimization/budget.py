"""What a run may spend, all of its lives together, and how a stopped search is told from an ended run.

A bound is never exceeded: `metering` reserves the most that a call can take before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sidejudge_server.config import Settings
from sidejudge_server.errors import FieldViolation
from sidejudge_server.lm.pricing import price_of
from sidejudge_server.optimization.plan import MAX_TRIALS, InstructionSource

__all__ = [
    "DEFAULT_DURATION_S",
    "OptimizationBudget",
    "unpriced_models",
]

DEFAULT_DURATION_S = 1800.0
MIN_DURATION_S = 1.0
MAX_DURATION_S = 7 * 24 * 3600.0
_MOST = 2**62
"""More than anybody can mean, and still a BIGINT when added to."""


@dataclass(frozen=True, slots=True)
class OptimizationBudget:
    """Bounds of a run; None is no bound.

    Attributes:
        max_lm_calls: Requests to models, retries included; answers from the run's cache are free.
        max_tokens: Prompt and generated tokens together.
        max_cost_usd: Money in US dollars; only with models whose price is known.
        max_duration_s: Seconds at work, 1 s to 7 days.
        max_trials: Trials that are reported, 1 to 500; the baseline is none.
    """

    max_lm_calls: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_duration_s: float = DEFAULT_DURATION_S
    max_trials: int | None = None

    def violations(
        self, *, unpriced: Sequence[str] = (), prefix: str = "optimization.budget."
    ) -> list[FieldViolation]:
        """Return all that is wrong; empty when all is well.

        Args:
            unpriced: Models that the run may ask and whose price is not known.
            prefix: Path of the budget in the request.
        """
        found = []

        def check(name: str, *, holds: bool, description: str) -> None:
            if not holds:
                found.append(FieldViolation(prefix + name, description))

        for name in ("max_lm_calls", "max_tokens"):
            bound = getattr(self, name)
            check(
                name,
                holds=bound is None or 1 <= bound <= _MOST,
                description=f"must be 1 to {_MOST}",
            )
        cost = self.max_cost_usd
        check(
            "max_cost_usd",
            holds=cost is None or (math.isfinite(cost) and cost > 0),
            description="must be a finite number greater than 0",
        )
        if cost is not None and unpriced:
            check(
                "max_cost_usd",
                holds=False,
                description=f"cannot be kept: the price of {' and '.join(unpriced)} is not known; "
                "set input_usd_per_mtok and output_usd_per_mtok of the model, or bound max_tokens "
                "instead",
            )
        check(
            "max_duration",
            holds=MIN_DURATION_S <= self.max_duration_s <= MAX_DURATION_S,
            description="must be 1 s to 7 days",
        )
        trials = self.max_trials
        check(
            "max_trials",
            holds=trials is None or 1 <= trials <= MAX_TRIALS,
            description=f"must be 1 to {MAX_TRIALS}",
        )
        return found

    def with_bounds(self, bounds: Mapping[str, float]) -> OptimizationBudget:
        """Return a copy with some bounds replaced.

        Args:
            bounds: New values by field name; bounds that are not named stay.
        """
        return replace(self, **bounds)  # type: ignore[arg-type]  # field names are the caller's

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> OptimizationBudget:
        """Read what `to_json` wrote; unknown keys are ignored, missing ones get their defaults."""
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in document.items() if k in known})


def unpriced_models(
    settings: Settings, *, source: InstructionSource | None = None
) -> list[str]:
    """Return the models that runs may ask and whose price is not known.

    Args:
        settings: Which models, and prices that were configured.
        source: Where instructions come from; with curated ones only the task model is asked.
    """
    asked = [settings.task_lm]
    if settings.prompt_lm is not None and source is not InstructionSource.CURATED:
        asked.append(settings.prompt_lm)
    return sorted({lm.model for lm in asked if price_of(lm) is None})
