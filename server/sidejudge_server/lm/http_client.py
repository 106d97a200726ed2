"""The client of models behind an HTTP endpoint: limits, deadlines, retries, costs."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from sidejudge_server.config import LMSettings
from sidejudge_server.errors import DeadlineError, LMCredentialsError, LMRequestError
from sidejudge_server.lm.attempts import AttemptBound, AttemptMeter, attempt_bound
from sidejudge_server.lm.embedding import (
    MAX_TEXTS,
    ParsedEmbeddings,
    embedding_body,
    embedding_request,
    parse_embeddings,
)
from sidejudge_server.lm.failures import (
    AttemptFailedError,
    Refusal,
    read_refusal,
    refused,
    unavailable,
)
from sidejudge_server.lm.pricing import Price, price_of
from sidejudge_server.lm.providers import Endpoint
from sidejudge_server.lm.retry import Backoff, retry_after_s
from sidejudge_server.lm.types import ChatRequest, ChatResponse, Embeddings, LMUsage
from sidejudge_server.lm.wires import (
    Dialect,
    MalformedAnswerError,
    ParsedAnswer,
    TokenCounts,
    initial_dialect,
    max_output_tokens,
    parse_answer,
    request_body,
)

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ClientOptions", "HttpChatClient"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")
P = TypeVar("P", ParsedAnswer, ParsedEmbeddings)

# Refusals that may be about one parameter; OpenAI answers 403 to forbidden log probabilities.
_PARAMETER_STATUSES = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What differs between endpoints or is replaced in tests.

    Attributes:
        price: None if it is unknown.
        concurrency: Calls in flight at once; None for that of the settings.
        extra: Further members of each request's body.
        identity: What cached answers belong to; None for model and address.
        backoff: Waits before further attempts.
        sleep: How to wait.
        meter: Hears of every attempt before it is made and may forbid it; None for nobody.
    """

    price: Price | None = None
    concurrency: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    identity: str | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(random=random.Random()))  # noqa: S311 - jitter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    meter: AttemptMeter | None = None


class HttpChatClient:
    """A `ChatClient` over HTTP; connections are kept alive. Belongs to one event loop."""

    def __init__(
        self,
        settings: LMSettings,
        endpoint: Endpoint,
        *,
        options: ClientOptions | None = None,
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._options = options or ClientOptions(price_of(settings))
        self._dialect = initial_dialect(endpoint, logprobs=settings.logprobs)
        self._slots = asyncio.Semaphore(
            self._options.concurrency or settings.max_concurrency
        )
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def model(self) -> str:
        """The model as configured."""
        return self._endpoint.model

    @property
    def identity(self) -> str:
        """What cached answers belong to: the model and its address unless the options say else."""
        return self._options.identity or self._endpoint.identity

    @property
    def embedding_model(self) -> str:
        """The embedding model as the endpoint calls it; "" if none is configured or there are none."""
        if not self._endpoint.embeddings_url:
            return ""
        return self._settings.embedding_model or ""

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities, as far as is known by now."""
        return self._dialect.max_top_logprobs > 0

    async def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request.

        Args:
            request: What to ask.
            timeout_s: Seconds for all attempts and waits together, at least 0; None leaves it at
                the configured time per attempt and number of attempts.

        Raises:
            LMUnavailableError: Down, unreachable, too slow or talking nonsense, to the last attempt.
            LMRateLimitedError: Refuses because of too many requests, to the last attempt.
            LMCredentialsError: The key is missing or refused.
            LMRequestError: Refuses the request.
            DeadlineError: The time is up and no attempt has failed.
        """
        started = perf_counter()  # the loop's clock may count whole milliseconds
        answer = await self._retried(
            lambda deadline: self._attempt(request, deadline), timeout_s
        )
        return self._response(answer, perf_counter() - started)

    async def embed(
        self, texts: tuple[str, ...], *, timeout_s: float | None = None
    ) -> Embeddings:
        """Return a vector per text, 64 texts a call; limits and errors as of `complete`.

        Raises:
            LMRequestError: No embedding model is configured, or as above.
        """
        if not self.embedding_model:
            raise LMRequestError(
                f"{self.model} has no embedding model; set SIDEJUDGE_LM_EMBEDDING_MODEL",
                reason="LM_REQUEST_REJECTED",
                metadata={"model": self.model, "cause": "no embedding model"},
            )
        vectors: list[tuple[float, ...]] = []
        usage = LMUsage()
        for start in range(0, len(texts), MAX_TEXTS):
            batch = texts[start : start + MAX_TEXTS]
            started = perf_counter()
            answer = await self._retried(partial(self._embed_once, batch), timeout_s)
            vectors += answer.vectors
            usage += self._usage(answer.tokens, perf_counter() - started)
        return Embeddings(tuple(vectors), usage)

    async def _retried(
        self, attempt: Callable[[float | None], Awaitable[T]], timeout_s: float | None
    ) -> T:
        """Make attempts, given their deadline, until one succeeds or no further one makes sense."""
        self._check_key()
        now = asyncio.get_running_loop().time()
        deadline = None if timeout_s is None else now + timeout_s
        failure: AttemptFailedError | None = None
        for number in range(self._settings.max_retries + 1):
            try:
                if failure is not None:
                    await self._wait(failure, number, deadline)
                return await attempt(deadline)
            except AttemptFailedError as error:
                failure = error
                if not error.may_pass:
                    break
            except DeadlineError:
                if failure is None:
                    raise
                break  # what failed before says more
        assert failure is not None  # noqa: S101 - there is at least one attempt
        raise failure.error

    async def close(self) -> None:
        """Release connections; calls that wait or come later fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _check_key(self) -> None:
        if variable := self._endpoint.missing_key:
            raise LMCredentialsError(
                f"{self.model} needs a key; set {variable} (or SIDEJUDGE_LM_API_KEY) "
                "and restart",
                reason="LM_CREDENTIALS_REJECTED",
                metadata={"model": self.model},
            )

    async def _wait(
        self, failure: AttemptFailedError, attempt: int, deadline: float | None
    ) -> None:
        """Wait before a further attempt; DeadlineError if none could follow."""
        delay = self._options.backoff.delay_s(attempt, asked_s=failure.retry_after_s)
        now = asyncio.get_running_loop().time()
        if delay is None or (deadline is not None and now + delay >= deadline):
            raise self._deadline_error()
        _log.debug("lm.retry", model=self.model, attempt=attempt, delay_s=delay)
        await self._options.sleep(delay)

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(
            f"the deadline passed before {self.model} answered",
            reason="DEADLINE_EXCEEDED",
        )

    async def _attempt(
        self, request: ChatRequest, deadline: float | None
    ) -> ParsedAnswer:
        """Ask once, in the endpoint's dialect, which is narrowed as refusals show."""
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                while True:
                    dialect = self._dialect
                    bound = attempt_bound(
                        request,
                        max_output_tokens=max_output_tokens(self._endpoint, request),
                        price=self._options.price,
                    )
                    answer = await self._metered(
                        partial(self._post, request, dialect), bound
                    )
                    if isinstance(answer, ParsedAnswer):
                        wanted = request.top_logprobs and dialect.max_top_logprobs
                        if wanted and answer.text and not answer.logprobs:
                            self._narrow(replace(self._dialect, max_top_logprobs=0))
                        return answer
                    narrower = dialect.without(answer.complaint)
                    # Another call may have found the same out in the meantime.
                    if narrower is None and self._dialect == dialect:
                        raise refused(self._endpoint, answer, retry_after_s=None)
                    if narrower is not None and self._dialect == dialect:
                        self._narrow(narrower)
        except TimeoutError:
            raise self._deadline_error() from None

    async def _embed_once(
        self, texts: tuple[str, ...], deadline: float | None
    ) -> ParsedEmbeddings:
        """Ask for vectors once."""
        request = embedding_request(texts)
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                answer = await self._metered(
                    partial(self._post_texts, texts, request),
                    attempt_bound(
                        request, max_output_tokens=0, price=self._options.price
                    ),
                )
        except TimeoutError:
            raise self._deadline_error() from None
        if isinstance(answer, Refusal):
            raise refused(self._endpoint, answer, retry_after_s=None)
        return answer

    async def _post_texts(
        self, texts: tuple[str, ...], request: ChatRequest
    ) -> ParsedEmbeddings | Refusal:
        data = await self._send(
            self._endpoint.embeddings_url,
            embedding_body(self.embedding_model, texts),
            request,
        )
        if isinstance(data, Refusal):
            return data
        try:
            return parse_embeddings(data, count=len(texts))
        except MalformedAnswerError as error:
            cause = f"malformed answer: {error}"
            raise unavailable(self._endpoint, cause, maybe_billed=True) from None

    def _narrow(self, dialect: Dialect) -> None:
        """Take note that the endpoint does not accept or give something."""
        if self.supports_logprobs and not dialect.max_top_logprobs:
            _log.warning("lm.logprobs_unsupported", model=self.model)
        self._dialect = dialect

    async def _metered(
        self, post: Callable[[], Awaitable[P | Refusal]], bound: AttemptBound
    ) -> P | Refusal:
        """Ask once if the meter lets us, and tell it what that took."""
        if self._closed:
            raise unavailable(self._endpoint, "the client is closed")
        meter = self._options.meter
        if meter is None:
            return await post()
        ticket = await meter.begin(bound)
        usage: LMUsage | None = None
        answered = False
        try:
            answer = await post()
            answered = not isinstance(answer, Refusal)
            if isinstance(answer, Refusal):
                usage = LMUsage()
            elif (
                answer.tokens != TokenCounts()
            ):  # an endpoint may keep its counts to itself
                usage = self._usage(answer.tokens, 0.0)
        except AttemptFailedError as error:
            if not error.maybe_billed:
                usage = LMUsage()
            raise
        else:
            return answer
        finally:
            meter.end(ticket, usage, answered=answered)

    async def _post(
        self, request: ChatRequest, dialect: Dialect
    ) -> ParsedAnswer | Refusal:
        """Return the answer, or the refusal of a parameter; raise all other failures."""
        body = request_body(self._endpoint, request, dialect, self._options.extra)
        data = await self._send(self._endpoint.url, body, request)
        if isinstance(data, Refusal):
            return data
        try:
            return parse_answer(self._endpoint.wire, data, request)
        except MalformedAnswerError as error:
            cause = f"malformed answer: {error}"
            raise unavailable(self._endpoint, cause, maybe_billed=True) from None

    async def _send(
        self, url: str, body: bytes, request: ChatRequest
    ) -> bytes | Refusal:
        """Return the body of a 200, or the refusal of a parameter; raise all other failures."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._open_session().post(
                    url,
                    data=body,
                    allow_redirects=False,
                    proxy=self._endpoint.proxy,
                ) as response,
            ):
                data = await response.read()
        except TimeoutError:
            cause = f"no answer within {self._settings.timeout_s:g} s"
            raise unavailable(self._endpoint, cause, maybe_billed=True) from None
        except (aiohttp.ClientError, OSError) as error:
            # Without a connection nothing was sent.
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            cause = _cause(error)
            raise unavailable(self._endpoint, cause, maybe_billed=sent) from None
        if response.status == HTTPStatus.OK:
            return data
        refusal = read_refusal(
            response.status, data, request=request, api_key=self._endpoint.api_key
        )
        if response.status in _PARAMETER_STATUSES:
            return refusal
        raise refused(
            self._endpoint, refusal, retry_after_s=retry_after_s(response.headers)
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                headers=self._endpoint.headers,
                # The semaphore is the limit; time is limited per attempt and per call.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _response(self, answer: ParsedAnswer, latency_s: float) -> ChatResponse:
        return ChatResponse(
            text=answer.text,
            logprobs=answer.logprobs,
            usage=self._usage(answer.tokens, latency_s),
            finish_reason=answer.finish_reason,
        )

    def _usage(self, tokens: TokenCounts, latency_s: float) -> LMUsage:
        price = self._options.price
        return LMUsage(
            input_tokens=tokens.prompt,
            cached_input_tokens=tokens.cache_read,
            output_tokens=tokens.generated,
            calls=1,
            cost_usd=None if price is None else price.cost_usd(tokens),
            latency_s=latency_s,
        )


def _cause(error: Exception) -> str:
    """Say what went wrong with a connection, without addresses or anything that was sent."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return type(error).__name__
