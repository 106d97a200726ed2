"""Metrics in DSPy's call signature: ``metric(example, prediction, trace=None)``.

Pure, deterministic, bounded to 0..1, without a language model; `docs/metrics.md` has every
formula with worked examples. A missing field or NaN gives the lowest value of its part, never an
exception: an optimizer must not stop because a model answered nonsense.

With a trace, which is how DSPy asks whether a demonstration is good enough to keep, they answer
yes or no at the threshold of `THRESHOLDS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sidejudge_server.judges.types import Verdict, VerdictProbabilities
from sidejudge_server.training import text_quality

__all__ = [
    "THRESHOLDS",
    "judge_metric",
    "rubric_metric",
    "soft_judge_metric",
    "soft_rubric_metric",
]


THRESHOLDS: Mapping[str, float] = MappingProxyType(
    {
        "judge_metric": 0.8,
        "rubric_metric": 0.7,
        "soft_judge_metric": 0.5,
        "soft_rubric_metric": 0.9,
    }
)
"""Value from which a prediction counts as good, by metric."""

_SCORE_WEIGHT, _REASONING_WEIGHT, _SUGGESTIONS_WEIGHT = 0.5, 0.3, 0.2
_CORRECTNESS_WEIGHT, _CALIBRATION_WEIGHT, _CLARITY_WEIGHT = 0.6, 0.2, 0.2

_MAX_SUGGESTIONS = 5
_NOTHING_TO_SUGGEST = 0.9
"""Right scores from here on need no suggestion."""

_INPUTS = ("task_context", "agent_output", "artifact", "context", "ground_truth")


def rubric_metric(
    example: object, prediction: object, trace: object = None
) -> float | bool:
    """Rate the answer of a rubric judge: 50 % score, 30 % reasoning, 20 % suggestions.

    Args:
        example: Has ``score``, and ``task_context``, ``agent_output``, ``criteria``.
        prediction: Has ``score``, ``reasoning``, ``suggestions``.
        trace: Not None to ask for yes or no.

    Returns:
        0..1, or whether it reaches the threshold.
    """
    reasoning = _text(_field(prediction, "reasoning"))
    subject, criteria = _subject(example), _criteria(example)
    quality = (
        text_quality.completeness(reasoning, criteria=criteria)
        + text_quality.relevance(reasoning, subject=subject)
    ) / 2
    value = (
        _SCORE_WEIGHT * _score_accuracy(example, prediction)
        + _REASONING_WEIGHT * quality
        + _SUGGESTIONS_WEIGHT * _suggestions_quality(example, prediction)
    )
    return _answer("rubric_metric", value, trace)


def judge_metric(
    example: object, prediction: object, trace: object = None
) -> float | bool:
    """Rate the answer of a verdict judge: 60 % correctness, 20 % calibration, 20 % clarity.

    Args:
        example: Has ``verdict`` and the inputs.
        prediction: Has ``verdict``, ``probabilities`` or ``confidence``, ``reasoning``.
        trace: Not None to ask for yes or no.

    Returns:
        0..1, or whether it reaches the threshold.
    """
    reasoning = _text(_field(prediction, "reasoning"))
    value = (
        _CORRECTNESS_WEIGHT * _correctness(example, prediction)
        + _CALIBRATION_WEIGHT * _calibration(example, prediction)
        + _CLARITY_WEIGHT * text_quality.clarity(reasoning, subject=_subject(example))
    )
    return _answer("judge_metric", value, trace)


def soft_judge_metric(
    example: object, prediction: object, trace: object = None
) -> float | bool:
    """Return P(right label), which tells candidates apart with fewer examples than right or wrong.

    Without probabilities: the confidence if the verdict is right, one minus it if wrong;
    without either: correctness, 1, 0.5 or 0.
    """
    gold = _verdict(example)
    probabilities = _probabilities(prediction)
    confidence = _unit(_field(prediction, "confidence"))
    answered = _verdict(prediction)
    if gold is None:
        value = 0.0
    elif probabilities is not None:
        value = probabilities[gold]
    elif confidence is not None and answered is not None:
        value = confidence if answered == gold else 1 - confidence
    else:
        value = _correctness(example, prediction)
    return _answer("soft_judge_metric", value, trace)


def soft_rubric_metric(
    example: object, prediction: object, trace: object = None
) -> float | bool:
    """Return 1 - |score - right score|, not below 0."""
    return _answer("soft_rubric_metric", _score_accuracy(example, prediction), trace)


def _answer(name: str, value: float, trace: object) -> float | bool:
    value = min(1.0, max(0.0, value))
    return value if trace is None else value >= THRESHOLDS[name]


def _score_accuracy(example: object, prediction: object) -> float:
    gold = _unit(_field(example, "score"))
    score = _number(_field(prediction, "score"))
    if gold is None or score is None:
        return 0.0
    return max(0.0, 1 - abs(score - gold))


def _suggestions_quality(example: object, prediction: object) -> float:
    suggestions = _texts(_field(prediction, "suggestions"))[:_MAX_SUGGESTIONS]
    if not suggestions:
        gold = _unit(_field(example, "score"))
        return float(gold is not None and gold >= _NOTHING_TO_SUGGEST)
    subject = " ".join((_subject(example), *_criteria(example)))
    rated = [text_quality.suggestion_quality(s, subject=subject) for s in suggestions]
    return sum(rated) / len(rated)


def _correctness(example: object, prediction: object) -> float:
    gold, answered = _verdict(example), _verdict(prediction)
    if gold is None or answered is None:
        return 0.0
    if gold == answered:
        return 1.0
    return 0.5 if Verdict.PARTIAL in {gold, answered} else 0.0


def _calibration(example: object, prediction: object) -> float:
    """Return 1 - Brier/2, where Brier = sum over labels of (p - [label is right])^2, 0..2."""
    gold = _verdict(example)
    if gold is None:
        return 0.0
    if probabilities := _probabilities(prediction):
        brier = sum((p - (label == gold)) ** 2 for label, p in probabilities.items())
        return 1 - brier / 2
    answered, confidence = _verdict(prediction), _unit(_field(prediction, "confidence"))
    if answered is None or confidence is None:
        return 0.0
    # What the formula above gives for two labels.
    return 1 - (confidence - (answered == gold)) ** 2


def _field(thing: object, name: str) -> object:
    """Return a field of a mapping, a dataclass or a DSPy example, None if there is none."""
    try:
        if isinstance(thing, Mapping):
            return thing.get(name)
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises, the field is missing
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _unit(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _verdict(thing: object) -> Verdict | None:
    value = _field(thing, "verdict")
    try:
        return Verdict(value.strip().lower()) if isinstance(value, str) else None
    except ValueError:
        return None


def _probabilities(prediction: object) -> Mapping[Verdict, float] | None:
    value = _field(prediction, "probabilities")
    raw: tuple[object, ...]
    if isinstance(value, VerdictProbabilities):
        raw = (value.passed, value.partial, value.failed)
    elif isinstance(value, Mapping):
        raw = tuple(
            value.get(label.value, 0.0)
            for label in (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)
        )
    else:
        return None
    numbers = [_unit(p) for p in raw]
    known = [p for p in numbers if p is not None]
    total = sum(known)
    if len(known) < len(numbers) or total <= 0:
        return None
    labels = (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)
    return dict(zip(labels, (p / total for p in known), strict=True))


def _subject(example: object) -> str:
    return "\n".join(_text(_field(example, name)) for name in _INPUTS)


def _criteria(example: object) -> list[str]:
    value = _field(example, "criteria")
    if isinstance(value, str):
        return [line for line in value.splitlines() if line.strip()]
    if not isinstance(value, Sequence):
        return []
    return [
        item if isinstance(item, str) else _text(_field(item, "name")) for item in value
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    """Return the suggestions of a list, or the lines of a text, without empty ones."""
    if isinstance(value, str):
        value = value.splitlines()
    if not isinstance(value, Sequence):
        return []
    return [item for item in value if isinstance(item, str) and item.strip()]
