"""Judge one item with one judge version: ask, read, ask again if the answer is unusable."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from sidejudge_server.errors import DeadlineError, JudgeOutputError
from sidejudge_server.judges.decode import UnparsableAnswerError, decode, with_reasons
from sidejudge_server.judges.prompt import (
    VERDICT_WORDS,
    build_request,
    follow_up_request,
    score_to_grade,
)
from sidejudge_server.judges.types import (
    ConfidenceSource,
    JudgeInput,
    JudgeProgram,
    JudgeResult,
    Judgment,
)
from sidejudge_server.lm.types import ChatClient, ChatRequest, LMUsage

__all__ = ["MAX_ATTEMPTS", "Answer", "evaluate"]

MAX_ATTEMPTS = 3
"""Answers to read before giving up; from the second on the LM samples."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A result with what all attempts cost together."""

    result: JudgeResult
    usage: LMUsage


async def evaluate(
    program: JudgeProgram,
    item: JudgeInput,
    client: ChatClient,
    *,
    explain: bool = True,
    timeout_s: float | None = None,
) -> Answer:
    """Judge an item.

    Args:
        program: The judge version.
        item: What to judge, of the shape that the version asks for.
        client: The language model.
        explain: False to leave reasoning and suggestions out; same verdict, fewer tokens.
        timeout_s: Seconds for all attempts together; None leaves it to the client.

    Raises:
        LMError: The model did not deliver; JudgeOutputError if no answer was usable.
        DeadlineError: ``timeout_s`` passed.
    """
    run = _Run(program, item, client, explain=explain, timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            return await run.answer()
    except TimeoutError:
        raise DeadlineError(
            "the deadline passed before the language model answered",
            reason="DEADLINE_EXCEEDED",
        ) from None


class _Run:
    """The attempts at one item. Not shared between tasks."""

    def __init__(
        self,
        program: JudgeProgram,
        item: JudgeInput,
        client: ChatClient,
        *,
        explain: bool,
        timeout_s: float | None,
    ) -> None:
        self._program = program
        self._item = item
        self._client = client
        self._explain = explain
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._usage = LMUsage()

    async def answer(self) -> Answer:
        logprobs = self._client.supports_logprobs
        request, result = await self._attempts(logprobs=logprobs)
        if logprobs and _lacks_confidence(result):
            # The endpoint promised probabilities and sent none: let the model state one.
            request, result = await self._attempts(logprobs=False)
        if self._explain and not result.reasoning:
            result = await self._explained(request, result)
        return Answer(result, self._usage)

    async def _attempts(self, *, logprobs: bool) -> tuple[ChatRequest, JudgeResult]:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            request = build_request(
                self._program,
                self._item,
                explain=self._explain,
                supports_logprobs=logprobs,
                attempt=attempt,
            )
            try:
                return request, await self._ask(request)
            except UnparsableAnswerError:
                continue
        raise JudgeOutputError(
            f"{self._client.model} gave no usable answer in {MAX_ATTEMPTS} attempts;"
            " try another model or other instructions",
            reason="JUDGE_OUTPUT_UNPARSABLE",
            metadata={"model": self._client.model, "attempts": str(MAX_ATTEMPTS)},
        )

    async def _ask(self, request: ChatRequest) -> JudgeResult:
        response = await self._client.complete(request, timeout_s=self._remaining_s())
        self._usage += response.usage
        return decode(self._program, self._item, response, explain=self._explain)

    async def _explained(
        self, request: ChatRequest, result: JudgeResult
    ) -> JudgeResult:
        """Ask for the missing reason; an empty answer leaves it empty."""
        follow_up = follow_up_request(
            self._program, request, answer=_answer_word(result)
        )
        response = await self._client.complete(follow_up, timeout_s=self._remaining_s())
        self._usage += response.usage
        return with_reasons(self._item, result, response.text)

    def _remaining_s(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())


def _lacks_confidence(result: JudgeResult) -> bool:
    return (
        isinstance(result, Judgment)
        and result.confidence_source is ConfidenceSource.NONE
    )


def _answer_word(result: JudgeResult) -> str:
    if isinstance(result, Judgment):
        return VERDICT_WORDS[result.verdict]
    return str(score_to_grade(result.raw_score))
