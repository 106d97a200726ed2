"""The seam between a run and its language models: count calls, wait out outages, swallow none.

DSPy turns every ordinary exception into a score of 0 and goes on, so what must end a run is raised as
`RunAborted`; see `faults`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sidejudge_server.errors import JudgeOutputError, LMError, LMRequestError
from sidejudge_server.lm.types import (
    ChatClient,
    ChatRequest,
    ChatResponse,
    EmbeddingClient,
    Embeddings,
)
from sidejudge_server.optimization.faults import RunAborted, work_dir_error
from sidejudge_server.optimization.outage import Outage
from sidejudge_server.optimization.spending import PURPOSE, Purpose, SpendMeter

__all__ = ["AnswerTally", "MeteredClient"]

T = TypeVar("T")

MAX_UNUSABLE_SHARE = 0.2
MIN_ANSWERS = 20
"""Before this many answers the share of unusable ones says little."""


class AnswerTally:
    """Counts unusable answers; more than a fifth of them end the run. Thread-safe.

    Of answers that come together in any order, so many must be unusable that the rest cannot make up
    for them: the same answers end a run or do not, whichever came first.
    """

    def __init__(self, model: str) -> None:
        self._lock = threading.Lock()
        self._model = model
        self.answers = 0
        self.unusable = 0
        self._answers_then = 0

    def __deepcopy__(self, memo: dict[int, object]) -> AnswerTally:
        """Return itself: modules are copied for every trial, their tally is one."""
        return self

    @contextmanager
    def expecting(self, count: int) -> Iterator[None]:
        """Look at so many answers together; not for use by two threads at once."""
        with self._lock:
            self._answers_then = self.answers + count
        try:
            yield
        finally:
            with self._lock:
                self._answers_then = 0

    def usable(self) -> None:
        """Count an answer that was read."""
        with self._lock:
            self.answers += 1

    def not_usable(self, *, wait: bool = False) -> None:
        """Count an answer that held no verdict.

        Args:
            wait: True to leave it to `check` to end the run, because answers come in any order.

        Raises:
            RunAborted: Too many; the reason is JUDGE_OUTPUT_UNPARSABLE.
        """
        with self._lock:
            self.answers += 1
            self.unusable += 1
        if not wait:
            self.check()

    def check(self) -> None:
        """End the run if too many answers are unusable.

        Raises:
            RunAborted: They are; the reason is JUDGE_OUTPUT_UNPARSABLE.
        """
        with self._lock:
            answers = max(self.answers, self._answers_then)
            unusable = self.unusable
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
    """A `ChatClient` for one run: says what calls are for, and turns errors into what DSPy cannot swallow.

    The requests themselves are counted where they are made, below the run's cache: the client must
    have been made with the same meter.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        meter: SpendMeter,
        purpose: Purpose = Purpose.SEARCH,
        outage: Outage | None = None,
        tolerant: bool = False,
    ) -> None:
        """Wrap a client.

        Args:
            client: The model, behind the run's cache.
            meter: Where calls are added up.
            purpose: What calls through this one are for.
            outage: Waits for the model when it does not answer; None fails at once.
            tolerant: True to raise a refused request (such as a prompt over the context) as the
                ordinary error it is: a proposer can go on without that proposal, a judge cannot.
        """
        self._client = client
        self._meter = meter
        self._purpose = purpose
        self._outage = outage
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
            BudgetExhausted: The budget does not allow it, or the time was up before there was an answer.
            RunAborted: The model did not deliver.
            LMRequestError: The request was refused and the client is tolerant.
        """
        response = await self._paid(
            lambda: self._client.complete(request, timeout_s=timeout_s)
        )
        self._meter.answered(self._purpose, cached=response.usage.calls == 0)
        return response

    @property
    def embedding_model(self) -> str:
        """The embedding model of the client; "" if it has none."""
        return str(getattr(self._client, "embedding_model", ""))

    async def embed(
        self, texts: tuple[str, ...], *, timeout_s: float | None = None
    ) -> Embeddings:
        """Return a vector per text; raises as `complete`."""
        client = self._client
        if not isinstance(client, EmbeddingClient):
            raise TypeError(f"{self.model} does not embed")
        return await self._paid(lambda: client.embed(texts, timeout_s=timeout_s))

    async def _paid(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask within the budget, and turn what the model does not deliver into what ends a run."""
        with self._meter.call():
            return await self._within_budget(ask)

    async def _within_budget(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        purpose = PURPOSE.set(self._purpose)
        # Tasks take a copy of the context with them.
        call = asyncio.ensure_future(self._ask(ask))
        PURPOSE.reset(purpose)
        # An answer from the cache takes no time: it counts also when the time is up, so that a run
        # that goes on comes to where its search had ended.
        await asyncio.sleep(0)
        time_is_up = self._meter.stop_signal(self._purpose)
        try:
            first = asyncio.FIRST_COMPLETED
            both: set[asyncio.Future[Any]] = {call, time_is_up}
            await asyncio.wait(both, return_when=first)
            if not call.done():
                raise time_is_up.result()
            return call.result()
        except LMError as error:
            if self._tolerant and isinstance(error, LMRequestError):
                raise
            raise RunAborted(error) from error
        except OSError as error:  # the connection's own are errors of the model by now
            raise RunAborted(work_dir_error(error)) from error
        finally:
            call.cancel()
            time_is_up.cancel()

    async def _ask(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._outage is None:
            return await ask()
        return await self._outage.ask(
            ask, before_waiting=lambda: self._meter.raise_if_stopped(self._purpose)
        )

    async def close(self) -> None:
        """Release the model's connections."""
        await self._client.close()
