"""The one interceptor: call id, deadline, errors to statuses, access log.

Texts of requests and answers are never logged. Calls to other services than ours (health,
reflection) pass untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter
from typing import Any, NoReturn

import grpc
import structlog

from sidejudge_server.api.call_context import call_id, call_id_of, deadline
from sidejudge_server.api.status import log_fault, status_parts, translate
from sidejudge_server.errors import SidejudgeError

__all__ = ["CallInterceptor"]

_PREFIX = "/sidejudge."
_log = structlog.get_logger(__name__)

_Continuation = Callable[[Any], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no type stubs
    """Surrounds every call of ours.

    Args:
        default_deadline_s: Deadline of calls that bring none. Streams have none: an optimization
            may be watched for hours.
    """

    def __init__(self, default_deadline_s: float) -> None:
        self._default_deadline_s = default_deadline_s
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: _Continuation,
        handler_call_details: Any,  # noqa: ANN401 - grpc has no type stubs
    ) -> Any:  # noqa: ANN401 - grpc has no type stubs
        """Return the handler of a method, wrapped if it is ours."""
        method: str = handler_call_details.method
        if (wrapped := self._wrapped.get(method)) is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_PREFIX):
            return handler
        self._wrapped[method] = wrapped = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - grpc has no type stubs
        options = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behaviour = handler.stream_stream or handler.unary_stream
            return make(self._streaming(method, behaviour), **options)
        # An import takes as long as its caller sends.
        default_s = None if handler.request_streaming else self._default_deadline_s
        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = handler.stream_unary or handler.unary_unary
        return make(self._single(method, behaviour, default_s), **options)

    def _single(
        self,
        method: str,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        default_s: float | None,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: Any) -> Any:  # noqa: ANN401 - any message
            started = perf_counter()
            remaining = context.time_remaining()
            limit = default_s if remaining is None else remaining
            now = asyncio.get_running_loop().time()
            end = None if limit is None else now + limit
            _begin(method, context, end)
            try:
                async with asyncio.timeout_at(end):
                    answer = await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await _abort(context, error, perf_counter() - started)
            _log.debug("call", code="OK", duration_ms=(perf_counter() - started) * 1000)
            return answer

        return handle

    def _streaming(
        self, method: str, behaviour: Callable[[Any, Any], AsyncGenerator[Any, None]]
    ) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
        async def handle(request: Any, context: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401 - any message
            # Not the loop's clock, which counts whole milliseconds.
            started = perf_counter()
            remaining = context.time_remaining()
            now = asyncio.get_running_loop().time()
            _begin(method, context, None if remaining is None else now + remaining)
            count = 0
            try:
                async with aclosing(behaviour(request, context)) as answers:
                    async for answer in answers:
                        count += 1
                        yield answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await _abort(context, error, perf_counter() - started)
            _log.debug(
                "call",
                code="OK",
                messages=count,
                duration_ms=(perf_counter() - started) * 1000,
            )

        return handle


def _begin(method: str, context: Any, end: float | None) -> None:  # noqa: ANN401 - grpc has no type stubs
    identity = call_id_of(context.invocation_metadata())
    call_id.set(identity)
    deadline.set(end)
    structlog.contextvars.bind_contextvars(request_id=identity, method=method)
    context.set_trailing_metadata((("x-request-id", identity),))


async def _abort(context: Any, error: Exception, duration_s: float) -> NoReturn:  # noqa: ANN401 - grpc has no type stubs
    """End the call with the error's status; a fault of ours goes to the log whole."""
    parts = status_parts(error, call_id.get())
    known = translate(error)
    if isinstance(known, SidejudgeError):
        _log.info(
            "call",
            code=parts.code.name,
            reason=known.reason,
            duration_ms=duration_s * 1000,
        )
    log_fault(error)
    await context.abort(parts.code, parts.message, parts.trailing_metadata)
    raise AssertionError("abort always raises")
