"""How far an answer agrees with a label: the measure by which versions are compared."""

from __future__ import annotations

__all__ = ["agreement", "answer_value"]

_VALUES = {"pass": 1.0, "partial": 0.5, "fail": 0.0}


def agreement(
    *,
    label_verdict: str | None,
    label_score: float | None,
    verdict: str | None,
    score: float | None,
) -> float:
    """Return what an answer is worth beside a label, 0..1.

    1 for the same verdict and 0 for another one; for scores 1 minus the distance. An answer that
    could not be used (neither verdict nor score) is worth nothing.

    Args:
        label_verdict: What people say, for judges that answer verdicts.
        label_score: The same for judges that answer scores; exactly one of the two is set.
        verdict: What the judge says.
        score: The same for scores.
    """
    if label_score is not None:
        return 0.0 if score is None else 1 - abs(score - label_score)
    return float(verdict is not None and verdict == label_verdict)


def answer_value(verdict: str | None, score: float | None) -> float | None:
    """Return an answer or a label as a number: pass 1, partial 0.5, fail 0, or the score."""
    return score if verdict is None else _VALUES[verdict]
