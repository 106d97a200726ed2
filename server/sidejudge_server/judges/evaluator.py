"""Judge one item with one judge version: ask, read, ask again if the answer is unusable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from sidejudge_server.errors import (
    DeadlineError,
    FailedPreconditionError,
    JudgeOutputError,
)
from sidejudge_server.judges.decode import UnparsableAnswerError, decode, with_reasons
from sidejudge_server.judges.head import influences
from sidejudge_server.judges.prompt import (
    VERDICT_WORDS,
    build_request,
    follow_up_request,
    score_to_grade,
)
from sidejudge_server.judges.retrieval import (
    build_index,
    has_index,
    recall,
    remembered_count,
    retrieval_text,
)
from sidejudge_server.judges.suspicion import made_by_agent, suspicions
from sidejudge_server.judges.types import (
    ConfidenceSource,
    Influence,
    JudgeInput,
    JudgeProgram,
    JudgeResult,
    Judgment,
    Memory,
    Recalled,
    Samples,
    Verdict,
)
from sidejudge_server.lm.types import (
    ChatClient,
    ChatRequest,
    EmbeddingClient,
    LMUsage,
)

__all__ = [
    "MAX_ATTEMPTS",
    "Answer",
    "QueryVector",
    "RecalledAnswer",
    "evaluate",
    "query_vector",
    "recalled_for",
]

_WORTH = {Verdict.FAIL: 0.0, Verdict.PARTIAL: 0.5, Verdict.PASS: 1.0}

MAX_ATTEMPTS = 3
"""Answers to read before giving up; from the second on the LM samples."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A result with what all attempts cost together and which corrections had to do with it."""

    result: JudgeResult
    usage: LMUsage
    influences: tuple[Influence, ...] = ()
    samples: Samples | None = None
    """What each time said, if it was judged several times."""
    suspicions: tuple[str, ...] = ()
    """What seems to speak to the judge, see `suspicion`; empty if nothing does or nobody looked."""


async def evaluate(
    program: JudgeProgram,
    item: JudgeInput,
    client: ChatClient,
    *,
    explain: bool = True,
    timeout_s: float | None = None,
    hidden: Collection[str] = (),
    variation: int = 0,
    second_look: bool = True,
) -> Answer:
    """Judge an item.

    Args:
        program: The judge version.
        item: What to judge, of the shape that the version asks for.
        client: The language model.
        explain: False to leave reasoning and suggestions out; same verdict, fewer tokens.
        timeout_s: Seconds for all attempts together; None leaves it to the client.
        hidden: Ids of remembered examples that must not come up; see `retrieval.recall`.
        variation: Another order of the same input, to see whether it matters; see `prompt`.
        second_look: Whether an item that seems to speak to its judge is judged again, with what the
            agent made quoted and a warning; the worse of the two answers stands.

    Raises:
        LMError: The model did not deliver; JudgeOutputError if no answer was usable.
        FailedPreconditionError: The version measures similarity by an embedding model that the
            client has not (EMBEDDING_MODEL_MISMATCH).
        DeadlineError: ``timeout_s`` passed.
    """
    run = _Run(
        program,
        item,
        client,
        explain=explain,
        timeout_s=timeout_s,
        hidden=hidden,
        variation=variation,
        second_look=second_look,
    )
    try:
        async with asyncio.timeout(timeout_s):
            return await run.answer()
    except TimeoutError:
        raise DeadlineError(
            "the deadline passed before the language model answered",
            reason="DEADLINE_EXCEEDED",
        ) from None


@dataclass(frozen=True, slots=True)
class RecalledAnswer:
    """What a memory brought up for an item, and what the search cost."""

    recalled: Recalled
    usage: LMUsage


@dataclass(frozen=True, slots=True)
class QueryVector:
    """An item's vector, None for a memory that compares words, and what it cost."""

    vector: tuple[float, ...] | None
    usage: LMUsage


async def recalled_for(
    program: JudgeProgram,
    item: JudgeInput,
    client: ChatClient,
    *,
    hidden: Collection[str] = (),
    timeout_s: float | None = None,
) -> RecalledAnswer:
    """Search a program's memory for an item; arguments and errors as of `evaluate`."""
    memory = program.memory
    if memory is None or not remembered_count(program):
        return RecalledAnswer(Recalled(), LMUsage())
    query = await query_vector(memory, item, client, timeout_s=timeout_s)
    if not has_index(memory):
        # The loop has other evaluations to attend to.
        await asyncio.to_thread(build_index, memory)
    found = recall(program, item, vector=query.vector, hidden=hidden)
    return RecalledAnswer(found, query.usage)


async def query_vector(
    memory: Memory,
    item: JudgeInput,
    client: ChatClient,
    *,
    timeout_s: float | None = None,
) -> QueryVector:
    """Return the vector by which a memory is searched for an item; errors as of `evaluate`."""
    if not memory.embedding_model:
        return QueryVector(None, LMUsage())
    embedder = _embedder(client, memory.embedding_model)
    answer = await embedder.embed((retrieval_text(item),), timeout_s=timeout_s)
    return QueryVector(answer.vectors[0], answer.usage)


def _embedder(client: ChatClient, model: str) -> EmbeddingClient:
    """Return the client as one that embeds with the model that a memory was made with."""
    have = client.embedding_model if isinstance(client, EmbeddingClient) else ""
    if isinstance(client, EmbeddingClient) and have == model:
        return client
    raise FailedPreconditionError(
        f"this version compares items by {model}, and the embedding model is"
        f" {have or 'none'}; set SIDEJUDGE_LM_EMBEDDING_MODEL to {model},"
        " or deploy another version",
        reason="EMBEDDING_MODEL_MISMATCH",
        metadata={"expected": model, "got": have or "none"},
    )


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
        hidden: Collection[str],
        variation: int,
        second_look: bool,
    ) -> None:
        self._program = program
        self._item = item
        self._client = client
        self._explain = explain
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._usage = LMUsage()
        self._hidden = hidden
        self._variation = variation
        self._second_look = second_look
        self._guarded = False
        self._recalled = Recalled()

    async def answer(self) -> Answer:
        if remembered_count(self._program):
            recalled = await recalled_for(
                self._program,
                self._item,
                self._client,
                hidden=self._hidden,
                timeout_s=self._remaining_s(),
            )
            self._recalled = recalled.recalled
            self._usage += recalled.usage
        logprobs = self._client.supports_logprobs
        request, result = await self._attempts(logprobs=logprobs)
        if logprobs and _lacks_confidence(result):
            # The endpoint promised probabilities and sent none: let the model state one.
            request, result = await self._attempts(logprobs=False)
        if self._explain and not result.reasoning:
            result = await self._explained(request, result)
        seen: tuple[str, ...] = ()
        if self._second_look:
            seen = suspicions(made_by_agent(self._item))
            if seen:
                result = await self._looked_at_again(result)
        found = influences(self._program, result, self._recalled)
        return Answer(result, self._usage, found, suspicions=seen)

    async def _looked_at_again(self, first: JudgeResult) -> JudgeResult:
        """Judge a suspected item behind quotes; return the worse answer, the first one of equals."""
        if _worth(first) <= 0:
            return first
        self._guarded = True
        logprobs = self._client.supports_logprobs and not _stated(first)
        request, second = await self._attempts(logprobs=logprobs)
        if _worth(second) >= _worth(first):
            return first
        if self._explain and not second.reasoning:
            second = await self._explained(request, second)
        return second

    async def _attempts(self, *, logprobs: bool) -> tuple[ChatRequest, JudgeResult]:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            request = build_request(
                self._program,
                self._item,
                explain=self._explain,
                supports_logprobs=logprobs,
                attempt=attempt,
                recalled=self._recalled,
                variation=self._variation,
                guarded=self._guarded,
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
        return decode(
            self._program,
            self._item,
            response,
            explain=self._explain,
            recalled=self._recalled,
        )

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


def _stated(result: JudgeResult) -> bool:
    """Return whether the endpoint gave no token probabilities, whatever it promised."""
    return (
        isinstance(result, Judgment)
        and result.confidence_source is not ConfidenceSource.LOGPROB
    )


def _worth(result: JudgeResult) -> float:
    if isinstance(result, Judgment):
        return _WORTH[result.verdict]
    return result.score


def _answer_word(result: JudgeResult) -> str:
    if isinstance(result, Judgment):
        return VERDICT_WORDS[result.verdict]
    return str(score_to_grade(result.raw_score))
