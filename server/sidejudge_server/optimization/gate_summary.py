"""The gate's decision in words."""

from __future__ import annotations

from sidejudge_server.optimization.gate_decision import Estimate, Outcome, Stage
from sidejudge_server.optimization.shadow_evidence import BAR
from sidejudge_server.training.held_out import FULL_PAIRS, labels_for

__all__ = ["summarise"]


def summarise(
    outcome: Outcome,
    *,
    old: Estimate,
    new: Estimate,
    difference: Estimate,
    pairs: int,
    p_value: float | None,
    needed: int,
    scores: bool,
    use: int,
    alpha: float,
    fresh_labels: int,
    stage: Stage,
    e_value: float,
    one_answer: bool = False,
) -> str:
    """Return what came out with its figures, and what to do if there is something to do."""
    if not pairs:
        return (
            "Cannot tell: there are no held-out examples; "
            f"about {needed} of them are needed."
        )
    what = "score accuracy" if scores else "accuracy"
    p_text = "no p-value" if p_value is None else f"one-sided p = {p_value:.3g}"
    numbers = (
        f"{what} on {pairs} held-out examples went from {old.value:.1%} to {new.value:.1%} "
        f"({_points(difference.value)} points, 95 % interval {_points(difference.lower)} "
        f"to {_points(difference.upper)}, {p_text})"
    )
    sentence = _sentence(outcome, numbers, needed)
    if one_answer:
        sentence += (
            " The candidate does not tell the labels apart: giving one verdict to everything would do "
            "as well."
        )
    if stage is Stage.SHADOW:
        sentence += (
            f" With fewer than {FULL_PAIRS} held-out examples it goes into shadow first: later "
            f"corrections have to bring its evidence from {e_value:.3g} to {BAR:g}."
        )
    if use > 1:
        sentence += (
            f" These examples were used for the {_ordinal(use)} time, so the bar was "
            f"p < {alpha:.2g}."
        )
    if fresh_labels:
        sentence += (
            " Even the best result to be expected could not pass the next time: bring about "
            f"{fresh_labels} new labels first."
        )
    return sentence


def _sentence(outcome: Outcome, numbers: str, needed: int) -> str:
    match outcome:
        case Outcome.IMPROVED:
            return f"Improved: {numbers}."
        case Outcome.NO_IMPROVEMENT:
            return f"No improvement: {numbers}."
        case Outcome.OVERFIT:
            return (
                "Overfit: the candidate is more than 5 points better on training than on "
                f"validation examples beyond doubt; {numbers}."
            )
        case Outcome.NOT_ENOUGH_EVIDENCE:
            return (
                f"Cannot tell yet: {numbers}; about {needed} more held-out examples "
                f"(some {labels_for(needed)} new labels) would settle it."
            )


def _ordinal(number: int) -> str:
    if number % 100 in {11, 12, 13}:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
