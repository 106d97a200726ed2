"""The last step of a run before the gate: a learned head for a program, from answers that are there.

No answer is asked for. A program that shows remembered examples keeps its memory, because another one
would be another prompt; for all others the head remembers the training and validation examples of the
run, which costs the prompt nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sidejudge_server.judges.types import (
    ConfidenceSource,
    JudgeProgram,
    JudgeResult,
    Judgment,
    Memory,
    Verdict,
)
from sidejudge_server.optimization.head import (
    MIN_GAIN,
    Corpus,
    HeadFit,
    RuleResult,
    fit_score_head,
    fit_verdict_head,
)
from sidejudge_server.optimization.refit import fit_offsets, fit_score_map
from sidejudge_server.optimization.remembering import remembered
from sidejudge_server.optimization.scoring import (
    Fitted,
    LabelledItem,
    Scorer,
    answer_probabilities,
)

__all__ = ["headed", "with_head"]


def headed(
    best: Fitted,
    *,
    start: Fitted,
    train: Sequence[LabelledItem],
    validation: Sequence[LabelledItem],
    scorer: Scorer,
) -> Fitted:
    """Return the best of a run with a learned head, or its starting version with one.

    Args:
        best: The best candidate, refitted; it is returned if no head is better.
        start: The version that the run started from, refitted; its answers are there in any case.
        train: Training examples.
        validation: Validation examples.
        scorer: Knows the answers.
    """
    on_best = with_head(best, train=train, validation=validation, scorer=scorer)
    if on_best is not None:
        best = on_best
    if start.program == best.program:
        return best
    on_start = with_head(start, train=train, validation=validation, scorer=scorer)
    # A better prompt is kept unless the head gets more right, not only surer of the same.
    if on_start is not None and _right(on_start) >= _right(best) + MIN_GAIN:
        best = on_start
    return best


def _right(fitted: Fitted) -> float:
    """Return the out-of-fold accuracy on validation examples."""
    metrics = fitted.metrics
    key = "validation.accuracy"
    return metrics[key if key in metrics else "validation.score_accuracy"]


def with_head(
    fitted: Fitted,
    *,
    train: Sequence[LabelledItem],
    validation: Sequence[LabelledItem],
    scorer: Scorer,
) -> Fitted | None:
    """Return a refitted program with a head that is better beyond doubt; None if there is none.

    Args:
        fitted: The program with its rule or map; its own head, if any, is replaced.
        train: Training examples; those that were answered count.
        validation: Validation examples, all answered.
        scorer: Knows the answers.

    Returns:
        The program with memory and head. Its quality is that of out-of-fold answers on validation
        examples, comparable with ``fitted.quality``.
    """
    program = replace(fitted.program, head=None)
    known = scorer.recorded(program, (*train, *validation))
    items = [i for i in (*train, *validation) if _usable(known.get(i.example_id))]
    memory = program.memory
    if memory is None or not memory.shown:
        memory = remembered(
            (*train, *validation),
            base=memory or Memory(),
            scorer=scorer,
        )
    if not items or not memory.examples:
        return None
    program = replace(program, memory=memory)
    answers = [known[item.example_id] for item in items]
    corpus = _corpus(program, memory, items, (*train, *validation), scorer=scorer)
    fit = _fit(program, items, answers, corpus)
    if fit is None or not fit.accepted:
        return None
    places = {item.example_id: i for i, item in enumerate(items)}
    rows = [places.get(item.example_id) for item in validation]
    worths = tuple(0.0 if row is None else fit.worths[row] for row in rows)
    worth = sum(worths) / len(validation)
    right = sum(fit.right[row] for row in rows if row is not None) / len(validation)
    metrics = (
        {"validation.score_accuracy": worth}
        if program.scores
        else {
            "validation.accuracy": right,
            "validation.soft_accuracy": 2.0 * worth - right,
        }
    )
    return Fitted(replace(program, head=fit.head), worth, metrics, worths)


def _usable(answer: JudgeResult | None) -> bool:
    """Return whether a head can be applied to an answer: it needs a probability or a score."""
    if isinstance(answer, Judgment):
        return answer.confidence_source is not ConfidenceSource.NONE
    return answer is not None


def _corpus(
    program: JudgeProgram,
    memory: Memory,
    items: Sequence[LabelledItem],
    known: Sequence[LabelledItem],
    *,
    scorer: Scorer,
) -> Corpus:
    similarity = np.array(scorer.similarities(memory, items), dtype=np.float64)
    ids = [example.example_id for example in memory.examples]
    for row, item in enumerate(items):
        hidden = scorer.hidden(program, item)
        similarity[row, [i for i, name in enumerate(ids) if name in hidden]] = 0.0
    groups = {item.example_id: _group(item) for item in known}
    return Corpus(
        similarity,
        [groups.get(name, f"\0{name}") for name in ids],
        verdicts=[e.verdict for e in memory.examples if e.verdict is not None],
        scores=[e.score for e in memory.examples if e.score is not None],
    )


def _fit(
    program: JudgeProgram,
    items: Sequence[LabelledItem],
    answers: Sequence[JudgeResult | None],
    corpus: Corpus,
) -> HeadFit | None:
    groups = [_group(item) for item in items]
    if program.scores:
        raws = [a.raw_score for a in answers if a and not isinstance(a, Judgment)]
        scores = [item.score or 0.0 for item in items]
        by_map = fit_score_map(raws, scores, old=program.score_map)
        return fit_score_head(
            raws,
            scores,
            groups=groups,
            corpus=corpus,
            rule=RuleResult(by_map.worths, by_map.worths),
        )
    probabilities = [
        p for a in answers if (p := answer_probabilities(program, a)) is not None
    ]
    labels = [item.verdict or Verdict.FAIL for item in items]
    by_rule = fit_offsets(
        probabilities, labels, binary=program.binary, old=program.offsets
    )
    return fit_verdict_head(
        probabilities,
        labels,
        groups=groups,
        corpus=corpus,
        rule=RuleResult(by_rule.worths, by_rule.right),
        binary=program.binary,
    )


def _group(item: LabelledItem) -> str:
    """Return an item's group; one of its own if it has none."""
    return item.group or f"\0{item.example_id}"
