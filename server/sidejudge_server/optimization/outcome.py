"""What came out of a run that has ended, why it stopped searching, and both in a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.spec import Progress
from sidejudge_server.optimization.stops import StopReason

__all__ = ["Ending", "RunOutcome", "cancelled", "decided", "failed", "out_of_budget"]


class RunOutcome(StrEnum):
    """What came out. The first four are the gate's."""

    IMPROVED = "improved"
    NO_IMPROVEMENT = "no_improvement"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"
    OVERFIT = "overfit"
    BUDGET = "budget"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Attributes:
        outcome: What came out.
        stop_reason: Why it stopped searching.
        summary: For people: figures, and what to do.
    """

    outcome: RunOutcome
    stop_reason: StopReason
    summary: str

    def columns(self) -> dict[str, str]:
        """Return the ending as columns of the run's row."""
        return {
            "outcome": self.outcome.value,
            "stop_reason": self.stop_reason.value,
            "summary": self.summary,
        }


def decided(
    decision: Mapping[str, Any],
    stop_reason: StopReason,
    *,
    progress: Progress,
    budget: OptimizationBudget,
    version: int | None,
    in_shadow: bool = False,
) -> Ending:
    """Return the ending of a run that the gate decided.

    Args:
        decision: Of the gate: ``outcome``, ``summary`` and ``deployed``.
        stop_reason: Why it stopped searching.
        progress: What it did and spent.
        budget: Its bounds.
        version: The candidate, None if nothing that differs was found.
        in_shadow: True if it has to prove itself on later corrections.
    """
    outcome = RunOutcome(decision["outcome"])
    parts = [str(decision["summary"])]
    if version is None:
        parts.append("Nothing that differs from the serving version was better.")
    elif decision["deployed"]:
        parts.append(f"Version {version} serves now.")
    elif in_shadow:
        parts.append(f"Version {version} is in shadow; the judge says how it does.")
    elif outcome is RunOutcome.IMPROVED:
        parts.append(f"Version {version} is kept; deploy it to use it.")
    if stop_reason is not StopReason.COMPLETED:
        parts.append(
            f"The search stopped after {_trials(progress)} because of "
            f"{_bound(stop_reason, budget)}."
        )
    return Ending(outcome, stop_reason, " ".join(parts))


def out_of_budget(
    stop_reason: StopReason,
    shortage: Mapping[str, Any],
    *,
    progress: Progress,
    budget: OptimizationBudget,
    version: int | None,
) -> Ending:
    """Return the ending of a run whose budget was used up before the gate could decide.

    Args:
        stop_reason: Which bound.
        shortage: Fields of `spending.Shortage`.
        progress: What it did and spent.
        budget: Its bounds.
        version: The best so far, None if there is none.
    """
    need, advice = _missing(stop_reason, shortage, progress=progress, budget=budget)
    summary = (
        f"No decision: {_bound(stop_reason, budget)} was reached after {_trials(progress)}; "
        f"the gate still needs {need}. {_kept(version, progress)} "
        f"Resume the run with {advice} to go on from here."
    )
    return Ending(RunOutcome.BUDGET, stop_reason, summary)


def cancelled(*, progress: Progress, version: int | None) -> Ending:
    """Return the ending of a run that somebody stopped."""
    summary = (
        f"Cancelled after {_trials(progress)} and {progress.lm_calls:,} LM calls. "
        f"{_kept(version, progress)} Resume the run to go on from here."
    )
    return Ending(RunOutcome.CANCELLED, StopReason.CANCELLED, summary)


def failed(message: str, *, progress: Progress, version: int | None) -> Ending:
    """Return the ending of a run that an error ended.

    Args:
        message: Of the error, with the way out.
        progress: What it did and spent.
        version: The best so far, None if there is none.
    """
    summary = (
        f"Failed after {_trials(progress)}: {message.rstrip('.')}. {_kept(version, progress)} "
        "When the cause is gone, resume the run to go on from here."
    )
    return Ending(RunOutcome.FAILED, StopReason.FAILED, summary)


def _trials(progress: Progress) -> str:
    done = progress.trials_completed
    planned = max(progress.trials_total, done)
    if planned > done:
        return f"{done} of {planned} trials"
    return f"{done} trial{'' if done == 1 else 's'}"


def _kept(version: int | None, progress: Progress) -> str:
    if version is None:
        return "Nothing better than the serving version had been found."
    scores = ""
    if progress.best_score is not None and progress.baseline_score is not None:
        scores = (
            f" (validation score {progress.best_score:.3f}, serving version "
            f"{progress.baseline_score:.3f}; flattered, being the best of many)"
        )
    return f"The best so far is kept as version {version}{scores}, not deployed."


def _bound(reason: StopReason, budget: OptimizationBudget) -> str:
    match reason:
        case StopReason.MAX_LM_CALLS:
            return f"the budget of {budget.max_lm_calls:,} LM calls"
        case StopReason.MAX_TOKENS:
            return f"the budget of {budget.max_tokens:,} tokens"
        case StopReason.MAX_COST:
            return f"the budget of ${budget.max_cost_usd:.4g}"
        case StopReason.MAX_DURATION:
            return f"the time limit of {_duration(budget.max_duration_s)}"
        case StopReason.MAX_TRIALS:
            return f"the limit of {budget.max_trials} trials"
        case _:
            return reason.value


def _missing(
    reason: StopReason,
    shortage: Mapping[str, Any],
    *,
    progress: Progress,
    budget: OptimizationBudget,
) -> tuple[str, str]:
    """Say what the gate still needs of a bound, and which bound would do."""
    calls = int(shortage["lm_calls"])
    tokens, usd = int(shortage["tokens"]), float(shortage["cost_usd"])
    need = f"about {calls:,} calls"
    match reason:
        case StopReason.MAX_LM_CALLS:
            return need, f"max_lm_calls of at least {progress.lm_calls + calls:,}"
        case StopReason.MAX_TOKENS:
            spent = progress.input_tokens + progress.output_tokens
            return (
                f"{need} with about {tokens:,} tokens",
                f"max_tokens of at least {max(budget.max_tokens or 0, spent) + tokens:,}",
            )
        case StopReason.MAX_COST:
            most = max(budget.max_cost_usd or 0.0, progress.cost_usd or 0.0)
            return (
                f"{need} for about ${usd:.4g}",
                f"max_cost_usd of at least {most + usd:.4g}",
            )
        case _:
            seconds = float(shortage["seconds"])
            longer = max(budget.max_duration_s, progress.elapsed_s) + seconds
            return (
                f"{need}, which take about {_duration(seconds)}",
                f"max_duration of at least {_duration(longer)}",
            )


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes"
