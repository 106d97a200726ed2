"""The seam between a run and its language models: count calls, and never swallow an outage.

DSPy turns every ordinary exception into a score of 0 and goes on, so an outage would look like "no
improvement". What must end a run is therefore raised as a BaseException, which passes through DSPy
and optuna at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sidejudge_server.errors import JudgeOutputError, LMError, LMRequestError
from sidejudge_server.lm.types import ChatClient, ChatRequest, ChatResponse, LMUsage

__all__ = ["AnswerTally", "MeteredClient", "RunAborted", "Spend", "SpendMeter"]

MAX_UNUSABLE_SHARE = 0.2
MIN_ANSWERS = 20
"""Before this many answers the share of unusable ones says little."""


class RunAborted(BaseException):
    """The run cannot go on; ``cause`` says why. No Exception, so that DSPy cannot swallow it."""

    def __init__(self, cause: LMError) -> None:
        super().__init__(cause.reason)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has spent. Answers from its own cache cost nothing."""

    lm_calls: int
    cached_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class SpendMeter:
    """Adds up what all models of a run cost; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = LMUsage()
        self._cached = 0

    def add(self, usage: LMUsage) -> None:
        """Add an answer; one without calls came from the cache."""
        with self._lock:
            self._usage += usage
            self._cached += usage.calls == 0

    @property
    def spend(self) -> Spend:
        """The sums so far."""
        with self._lock:
            usage, cached = self._usage, self._cached
        return Spend(
            usage.calls,
            cached,
            usage.input_tokens,
            usage.output_tokens,
            usage.cost_usd,
        )


class AnswerTally:
    """Counts unusable answers; more than a fifth of them end the run. Thread-safe."""

    def __init__(self, model: str) -> None:
        self._lock = threading.Lock()
        self._model = model
        self.answers = 0
        self.unusable = 0

    def __deepcopy__(self, memo: dict[int, object]) -> AnswerTally:
        """Return itself: modules are copied for every trial, their tally is one."""
        return self

    def usable(self) -> None:
        """Count an answer that was read."""
        with self._lock:
            self.answers += 1

    def not_usable(self) -> None:
        """Count an answer that held no verdict.

        Raises:
            RunAborted: Too many; the reason is JUDGE_OUTPUT_UNPARSABLE.
        """
        with self._lock:
            self.answers += 1
            self.unusable += 1
            answers, unusable = self.answers, self.unusable
        if answers >= MIN_ANSWERS and unusable > MAX_UNUSABLE_SHARE * answers:
            raise RunAborted(
                JudgeOutputError(
                    f"{self._model} gave no usable answer for {unusable} of {answers} examples, "
                    "also when asked again; choose another model or other instructions",
                    reason="JUDGE_OUTPUT_UNPARSABLE",
                    metadata={
                        "model": self._model,
                        "unusable": str(unusable),
                        "answers": str(answers),
                    },
                )
            )


class MeteredClient:
    """A `ChatClient` for one run: adds up calls and turns LM errors into what DSPy cannot swallow."""

    def __init__(
        self, client: ChatClient, *, meter: SpendMeter, tolerant: bool = False
    ) -> None:
        """Wrap a client.

        Args:
            client: The model, behind the run's cache.
            meter: Where calls are added up.
            tolerant: True to raise a refused request (such as a prompt over the context) as the
                ordinary error it is: a proposer can go on without that proposal, a judge cannot.
        """
        self._client = client
        self._meter = meter
        self._tolerant = tolerant

    @property
    def model(self) -> str:
        """The model as configured."""
        return self._client.model

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities."""
        return self._client.supports_logprobs

    async def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request.

        Raises:
            RunAborted: The model did not deliver.
            LMRequestError: The request was refused and the client is tolerant.
        """
        try:
            response = await self._client.complete(request, timeout_s=timeout_s)
        except LMError as error:
            if self._tolerant and isinstance(error, LMRequestError):
                raise
            raise RunAborted(error) from error
        self._meter.add(response.usage)
        return response

    async def close(self) -> None:
        """Release the model's connections."""
        await self._client.close()
