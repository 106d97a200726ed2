"""Answers of programs to labelled examples, and what they are worth.

Programs are asked without their decision rule or score map, which do not reach the prompt: the answer
comes from the run's cache when only the rule has changed, and every rule can be applied afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy

from sidejudge_server.errors import JudgeOutputError
from sidejudge_server.judges.blocking import BlockingClient
from sidejudge_server.judges.codec import program_digest
from sidejudge_server.judges.decision import (
    apply_score_map,
    decide,
    decide_score,
    decide_verdict,
    stated_probabilities,
)
from sidejudge_server.judges.dspy_judge import JudgeModule
from sidejudge_server.judges.evaluator import evaluate, query_vector, recalled_for
from sidejudge_server.judges.retrieval import retrieval_text, similarities
from sidejudge_server.judges.types import (
    ConfidenceSource,
    JudgeInput,
    JudgeProgram,
    JudgeResult,
    Judgment,
    LabelOffsets,
    Memory,
    Recalled,
    ScoreMap,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.lm.types import ChatClient, EmbeddingClient
from sidejudge_server.optimization.faults import (
    RunAborted,
    error_of,
    guarded_metric,
)
from sidejudge_server.optimization.metering import AnswerTally
from sidejudge_server.optimization.refit import fit_offsets, fit_score_map
from sidejudge_server.optimization.spec import RunExample
from sidejudge_server.training.metrics import soft_judge_metric, soft_rubric_metric

__all__ = [
    "Fitted",
    "LabelledItem",
    "RecordedAnswers",
    "Scorer",
    "TalliedJudge",
    "answer_probabilities",
    "labelled",
    "plain",
    "quality",
    "refit",
    "soft_values",
    "verdicts",
]


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """An input with its right answer; ``verdict`` xor ``score``. See `RunExample`."""

    input: JudgeInput
    verdict: Verdict | None
    score: float | None
    rationale: str
    synthetic: bool = False
    example_id: str = ""
    group: str = ""


def labelled(example: RunExample) -> LabelledItem:
    """Read an example as it came over the pipe.

    Raises:
        CodecError: It is none.
    """
    return LabelledItem(
        example.input,
        Verdict(example.verdict) if example.verdict is not None else None,
        example.score,
        example.rationale,
        synthetic=example.synthetic,
        example_id=example.example_id,
        group=example.group,
    )


class RecordedAnswers(dict[tuple[str, str], JudgeResult | None]):
    """Answers of a run by digest of the program, as it was asked, and example id."""


class Scorer:
    """Asks programs about items, several at a time, through the run's client."""

    def __init__(
        self,
        client: ChatClient,
        blocking: BlockingClient,
        *,
        tally: AnswerTally,
        concurrency: int,
        recorded: RecordedAnswers | None = None,
    ) -> None:
        """Create it.

        Args:
            client: Metered and cached; used in the loop of ``blocking``.
            blocking: Runs the loop.
            tally: Counts unusable answers.
            concurrency: Calls at once.
            recorded: Where answers are noted; scorers of one run share it.
        """
        self._client = client
        self._blocking = blocking
        self._tally = tally
        self._concurrency = concurrency
        self._recorded = {} if recorded is None else recorded

    def answers(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[JudgeResult | None]:
        """Return the answers in order, before any rule or map; None for an unusable one.

        Raises:
            RunAborted: The model did not deliver, or too many answers are unusable.
            RunCancelled: The run was cancelled.
        """
        asked = plain(program)
        if asked.memory is not None and asked.memory.shown:
            self.embed(asked.memory, [item.input for item in items])
        with self._tally.expecting(len(items)):
            found = self._blocking.run(self._all(asked, items))
        digest = program_digest(asked)
        for item, answer in zip(items, found, strict=True):
            self._recorded[digest, item.example_id] = answer
        return found

    @property
    def embedding_model(self) -> str:
        """The model by which items are compared; "" for words."""
        return str(getattr(self._client, "embedding_model", ""))

    def embed(
        self, memory: Memory, inputs: Sequence[JudgeInput]
    ) -> tuple[tuple[float, ...], ...]:
        """Return vectors of items in as few calls as possible; the run's cache has them from then on.

        Args:
            memory: Says by which model; none are returned for one that compares words.
            inputs: Of the items.

        Raises:
            BudgetExhausted: The budget does not allow it.
            RunAborted: The embedding model did not deliver.
            RunCancelled: The run was cancelled.
        """
        client = self._client
        if not memory.embedding_model or not isinstance(client, EmbeddingClient):
            return ()
        texts = tuple(retrieval_text(item) for item in inputs)
        distinct = tuple(dict.fromkeys(texts))
        found = self._blocking.run(client.embed(distinct)).vectors
        vectors = dict(zip(distinct, found, strict=True))
        return tuple(vectors[text] for text in texts)

    def recorded(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> dict[str, JudgeResult | None]:
        """Return the answers that were given before, by example id; asks nothing."""
        digest = program_digest(plain(program))
        return {
            item.example_id: self._recorded[digest, item.example_id]
            for item in items
            if (digest, item.example_id) in self._recorded
        }

    def hidden(self, program: JudgeProgram, item: LabelledItem) -> Collection[str]:
        """Return the ids of remembered examples that must not come up for an item."""
        return self._blocking.hide(program, item.input)

    def similarities(
        self, memory: Memory, items: Sequence[LabelledItem]
    ) -> list[list[float]]:
        """Return the similarity of each item to each example of a memory, 0..1.

        Raises:
            RunAborted: The embedding model did not deliver.
            RunCancelled: The run was cancelled.
        """
        self.embed(memory, [item.input for item in items])
        return self._blocking.run(self._similarities(memory, items))

    def recalled(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[Recalled]:
        """Return what a program's memory brings up for its head, each item's own correction aside.

        Raises:
            RunAborted: The embedding model did not deliver.
            RunCancelled: The run was cancelled.
        """
        if program.head is None:
            return [Recalled() for _ in items]
        if program.memory is not None:
            self.embed(program.memory, [item.input for item in items])
        return self._blocking.run(self._recalled(program, items))

    def quality(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[float]:
        """Return what a program's answers are worth, asking for those that are not there.

        Raises:
            RunAborted: The model did not deliver, or too many answers are unusable.
            RunCancelled: The run was cancelled.
        """
        answers = self.answers(program, items)
        recalled = self.recalled(program, items)
        return quality(program, items, answers, recalled=recalled)

    async def _similarities(
        self, memory: Memory, items: Sequence[LabelledItem]
    ) -> list[list[float]]:
        found = []
        for item in items:
            query = await query_vector(memory, item.input, self._client)
            found.append(similarities(memory, item.input, vector=query.vector))
        return found

    async def _recalled(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[Recalled]:
        found = []
        for item in items:
            hidden = self._blocking.hide(program, item.input)
            answer = await recalled_for(
                program, item.input, self._client, hidden=hidden
            )
            found.append(answer.recalled)
        return found

    async def _all(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[JudgeResult | None]:
        slots = asyncio.Semaphore(self._concurrency)

        async def one(item: LabelledItem) -> JudgeResult | None:
            async with slots:
                try:
                    answer = await evaluate(
                        program,
                        item.input,
                        self._client,
                        explain=False,
                        second_look=False,  # the prompt that everybody gets
                        hidden=self._blocking.hide(program, item.input),
                    )
                except JudgeOutputError:
                    self._tally.not_usable()
                    return None
            self._tally.usable()
            return answer.result

        return list(await asyncio.gather(*map(one, items)))


class TalliedJudge(JudgeModule):
    """A judge whose unusable answers are empty predictions, worth 0, instead of errors."""

    def __init__(self, program: JudgeProgram, *, tally: AnswerTally) -> None:
        super().__init__(program, explain=False)
        self.tally = tally

    def forward(self, **inputs: str) -> Any:  # noqa: ANN401 - dspy is untyped
        """Judge one item; see `JudgeModule.forward`."""
        try:
            prediction = super().forward(**inputs)
        except JudgeOutputError:
            # An optimizer asks from several threads; the end of the trial decides.
            self.tally.not_usable(wait=True)
            return dspy.Prediction()
        except Exception as error:
            # An optimizer would score it 0 and go on.
            raise RunAborted(error_of(error)) from error
        self.tally.usable()
        return prediction


def verdicts(
    program: JudgeProgram,
    answers: Sequence[JudgeResult | None],
    *,
    recalled: Sequence[Recalled] | None = None,
) -> list[Verdict | None]:
    """Return the verdicts under the program's head or rule, None for unusable answers and scores.

    Arguments as of `quality`.
    """
    found = [Recalled()] * len(answers) if recalled is None else recalled
    return [
        _verdict(program, answer, memory) if isinstance(answer, Judgment) else None
        for answer, memory in zip(answers, found, strict=True)
    ]


def quality(
    program: JudgeProgram,
    items: Sequence[LabelledItem],
    answers: Sequence[JudgeResult | None],
    *,
    recalled: Sequence[Recalled] | None = None,
) -> list[float]:
    """Return what each answer is worth under the program's head, rule or map, 0..1.

    1 or 0 for a right or wrong verdict, 1 - |error| for a score, 0 for an unusable answer.

    Args:
        program: Says how answers become verdicts or scores.
        items: Have the right ones.
        answers: Of the program, before any of that.
        recalled: What its memory brings up for each item; None counts as nothing.
    """
    found = [Recalled()] * len(items) if recalled is None else recalled
    return [
        _worth(program, item, answer, memory)
        for item, answer, memory in zip(items, answers, found, strict=True)
    ]


def soft_values(
    program: JudgeProgram,
    items: Sequence[LabelledItem],
    answers: Sequence[JudgeResult | None],
) -> list[float]:
    """Return the soft metric of each answer, 0..1, 0 for an unusable one.

    The same as DSPy gets for the program's module: before any decision rule, after the score map.
    """
    metric = guarded_metric(soft_rubric_metric if program.scores else soft_judge_metric)
    return [
        0.0 if answer is None else float(metric(item, _prediction(program, answer)))
        for item, answer in zip(items, answers, strict=True)
    ]


def plain(program: JudgeProgram) -> JudgeProgram:
    """Return a program without what is applied after the answer: what is asked stays the same."""
    return replace(program, offsets=LabelOffsets(), score_map=ScoreMap(), head=None)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A program with its refitted rule or map, and its out-of-fold worth on validation items.

    Attributes:
        program: With what was fitted.
        quality: Mean of ``worths``, 0..1: what candidates are ranked by.
        metrics: For people, by name.
        worths: Of each validation item, out of fold, unusable answers as 0: the mean of right or
            wrong and P(right label), or 1 - |error|.
    """

    program: JudgeProgram
    quality: float
    metrics: Mapping[str, float]
    worths: tuple[float, ...] = ()


def refit(
    program: JudgeProgram,
    items: Sequence[LabelledItem],
    answers: Sequence[JudgeResult | None],
) -> Fitted:
    """Refit the rule or map of a program on its answers to validation items; a head is dropped."""
    program = replace(program, head=None)
    if program.scores:
        raws = [
            None if a is None or isinstance(a, Judgment) else a.raw_score
            for a in answers
        ]
        score_fit = fit_score_map(
            raws, [item.score or 0.0 for item in items], old=program.score_map
        )
        return Fitted(
            replace(program, score_map=score_fit.score_map),
            score_fit.quality,
            {"validation.score_accuracy": score_fit.quality},
            _spread(score_fit.worths, raws),
        )
    probabilities = [answer_probabilities(program, a) for a in answers]
    fit = fit_offsets(
        probabilities,
        [item.verdict or Verdict.FAIL for item in items],
        binary=program.binary,
        old=program.offsets,
    )
    return Fitted(
        replace(program, offsets=fit.offsets),
        fit.quality,
        {"validation.accuracy": fit.accuracy, "validation.soft_accuracy": fit.soft},
        _spread(fit.worths, probabilities),
    )


def _spread(worths: Sequence[float], answers: Sequence[object]) -> tuple[float, ...]:
    """Return the worths of all items from those of the usable answers; None is an unusable one."""
    usable = iter(worths)
    return tuple(0.0 if answer is None else next(usable) for answer in answers)


def _prediction(program: JudgeProgram, answer: JudgeResult) -> dict[str, Any]:
    """Return what the metrics look at in an answer."""
    if not isinstance(answer, Judgment):
        return {"score": apply_score_map(program.score_map, answer.raw_score)}
    stated = answer.confidence_source is ConfidenceSource.STATED
    return {
        "verdict": answer.verdict.value,
        "probabilities": answer_probabilities(program, answer)
        if stated
        else answer.probabilities,
        "confidence": answer.confidence,
    }


def _worth(
    program: JudgeProgram,
    item: LabelledItem,
    answer: JudgeResult | None,
    recalled: Recalled,
) -> float:
    if answer is None:
        return 0.0
    if not isinstance(answer, Judgment):
        score = decide_score(program, answer.raw_score, recalled)
        return 1 - abs(score - (item.score or 0.0))
    return float(_verdict(program, answer, recalled) is item.verdict)


def _verdict(program: JudgeProgram, answer: Judgment, recalled: Recalled) -> Verdict:
    """Return what a program says, as it would when it serves."""
    probabilities = answer_probabilities(program, answer)
    if program.head is None:
        if probabilities is None:
            return answer.verdict
        return decide(probabilities, program.offsets, program.binary).verdict
    if probabilities is None or answer.confidence_source is ConfidenceSource.NONE:
        return answer.verdict
    return decide_verdict(program, probabilities, recalled).verdict


def answer_probabilities(
    program: JudgeProgram, answer: JudgeResult | None
) -> VerdictProbabilities | None:
    """Return a verdict's probabilities, measured or stated.

    A verdict without either is as certain as a stated one can be: the decision rule cannot move it
    much, which is all that is known of it.
    """
    if not isinstance(answer, Judgment):
        return None
    if answer.probabilities is not None:
        return answer.probabilities
    stated = 1.0
    if answer.confidence_source is ConfidenceSource.STATED:
        stated = answer.confidence or 0.0
    return stated_probabilities(answer.verdict, stated, binary=program.binary)
