"""Judge one item several times and make one answer of it.

Other orders of the same input, at a temperature above 0, show how far an answer depends on what it
should not depend on; their mean depends on it less.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sidejudge_server.judges.decision import stated_probabilities
from sidejudge_server.judges.evaluator import Answer, evaluate
from sidejudge_server.judges.types import (
    ConfidenceSource,
    JudgeInput,
    JudgeProgram,
    Judgment,
    RubricResult,
    Samples,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.lm.types import ChatClient, LMUsage

__all__ = ["MAX_SAMPLES", "combine", "evaluate_repeatedly", "flip_rate"]

MAX_SAMPLES = 16

_WORST_FIRST = (Verdict.FAIL, Verdict.PARTIAL, Verdict.PASS)


async def evaluate_repeatedly(
    program: JudgeProgram,
    item: JudgeInput,
    client: ChatClient,
    *,
    n_samples: int,
    explain: bool,
    timeout_s: float | None,
    second_look: bool = True,
) -> Answer:
    """Judge an item ``n_samples`` times, at least twice; the first one gives the reasons.

    Arguments and errors are those of `evaluator.evaluate`; one failing judgment fails all, so
    that no answer rests on fewer than were asked for.
    """
    began = time.monotonic()
    tasks = [
        asyncio.create_task(
            evaluate(
                program,
                item,
                client,
                explain=explain and variation == 0,
                timeout_s=timeout_s,
                variation=variation,
                second_look=second_look,
            )
        )
        for variation in range(n_samples)
    ]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # those that go on beside a failed one, or for a caller that has gone
    usage = sum((answer.usage for answer in answers), LMUsage())
    # They waited at the same time.
    usage = replace(usage, latency_s=min(usage.latency_s, time.monotonic() - began))
    return replace(combine(answers, binary=program.binary), usage=usage)


def combine(answers: Sequence[Answer], *, binary: bool) -> Answer:
    """Return the mean of several answers to one item, with the reasons of the first one."""
    first = answers[0].result
    if isinstance(first, RubricResult):
        scored = [a.result for a in answers if isinstance(a.result, RubricResult)]
        samples = Samples(tuple(result.score for result in scored), (), None)
        mean_score = replace(
            first,
            score=samples.mean,
            raw_score=sum(result.raw_score for result in scored) / len(scored),
            stddev=samples.stddev,
        )
        return replace(answers[0], result=mean_score, samples=samples)
    judgments = [a.result for a in answers if isinstance(a.result, Judgment)]
    each = [_distribution(judgment, binary=binary) for judgment in judgments]
    verdicts = tuple(judgment.verdict for judgment in judgments)
    samples = Samples(
        tuple(p.passed + p.partial / 2 for p in each), verdicts, flip_rate(verdicts)
    )
    return replace(answers[0], result=_mean(judgments, each), samples=samples)


def _mean(
    judgments: Sequence[Judgment], each: Sequence[VerdictProbabilities]
) -> Judgment:
    mean = VerdictProbabilities(
        sum(p.passed for p in each) / len(each),
        sum(p.partial for p in each) / len(each),
        sum(p.failed for p in each) / len(each),
    )
    of = {
        Verdict.PASS: mean.passed,
        Verdict.PARTIAL: mean.partial,
        Verdict.FAIL: mean.failed,
    }
    # Ties go to the worse one.
    verdict = max(_WORST_FIRST, key=lambda label: of[label])
    first = judgments[0]
    return Judgment(
        verdict=verdict,
        confidence=of[verdict],
        confidence_source=ConfidenceSource.SAMPLED,
        probabilities=mean,
        # The reasons for another verdict would mislead.
        reasoning=first.reasoning if first.verdict is verdict else "",
    )


def flip_rate(verdicts: Sequence[Verdict]) -> float:
    """Return the probability that two of them, drawn without replacement, differ."""
    n = len(verdicts)
    same = sum(count * (count - 1) for count in Counter(verdicts).values())
    return 1 - same / (n * (n - 1))


def _distribution(judgment: Judgment, *, binary: bool) -> VerdictProbabilities:
    """Return the probabilities after the decision rule; a bare verdict counts as one vote."""
    if judgment.confidence is None:
        return VerdictProbabilities(
            *(float(judgment.verdict is v) for v in reversed(_WORST_FIRST))
        )
    return stated_probabilities(judgment.verdict, judgment.confidence, binary=binary)
