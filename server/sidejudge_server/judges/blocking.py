"""A chat client for code that blocks: DSPy's optimizers run in threads, our clients in a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from sidejudge_server.judges.evaluator import Answer, evaluate
from sidejudge_server.judges.types import JudgeInput, JudgeProgram
from sidejudge_server.lm.types import ChatClient, ChatRequest, ChatResponse

__all__ = ["BlockingClient", "LoopThread", "RunCancelled"]

T = TypeVar("T")


class RunCancelled(BaseException):
    """The run was cancelled while it waited for the language model.

    Not an Exception: optimizers swallow those and score them 0.
    """


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="sidejudge-lm", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class BlockingClient:
    """Runs a chat client in a thread with a loop of its own. Safe to use from many threads.

    Attributes:
        hide: Returns the ids of remembered examples that must not come up for an item.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        runs_in: LoopThread | None = None,
        hide: Callable[[JudgeProgram, JudgeInput], Collection[str]] | None = None,
    ) -> None:
        """Create it.

        Args:
            client: Answers.
            runs_in: Where it runs; clients that share connections must share this. None for a
                thread of its own, which ends with `close`.
            hide: See above; None hides nothing.
        """
        self._client = client
        self.hide = hide or (lambda _, __: ())
        thread = runs_in or LoopThread()
        self._owned = thread if runs_in is None else None
        self._loop = thread.loop
        # Guards the calls in progress, so that none starts unseen while cancel() runs.
        self._lock = threading.Lock()
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._cancelled = False

    @property
    def model(self) -> str:
        """The model as configured."""
        return self._client.model

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities."""
        return self._client.supports_logprobs

    def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request; errors are those of the client, and RunCancelled."""
        return self.run(self._client.complete(request, timeout_s=timeout_s))

    def evaluate(
        self, program: JudgeProgram, item: JudgeInput, *, explain: bool
    ) -> Answer:
        """Judge an item as the serving process does, but for ``hide``; errors as in `complete`."""
        hidden = self.hide(program, item)
        return self.run(
            evaluate(
                program,
                item,
                self._client,
                explain=explain,
                hidden=hidden,
                # What is optimised is the prompt that everybody gets.
                second_look=False,
            )
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the client's loop and wait for it.

        Raises:
            RunCancelled: `cancel` was called, before or meanwhile.
        """
        with self._lock:
            if self._cancelled:
                coroutine.close()
                raise RunCancelled
            call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._calls.add(call)
        try:
            return call.result()
        except concurrent.futures.CancelledError:
            raise RunCancelled from None
        finally:
            with self._lock:
                self._calls.discard(call)

    def cancel(self) -> None:
        """Make all calls that wait, and all later ones, raise RunCancelled at once."""
        with self._lock:
            self._cancelled = True
            calls = tuple(self._calls)
        for call in calls:
            call.cancel()

    def close(self) -> None:
        """Cancel what is in progress, and close client and thread if the thread is its own."""
        self.cancel()
        if self._owned is None or not self._owned.alive:
            return
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._owned.close()

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
