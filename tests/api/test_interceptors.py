"""The interceptor around real gRPC calls to a service that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from sidejudge import SidejudgeError
from sidejudge_server.api.call_context import call_id, remaining_s
from sidejudge_server.api.interceptors import CallInterceptor
from sidejudge_server.errors import NotFoundError


class Probe:
    """Does what the request's text says."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def single(self, request: bytes, _context: Any) -> bytes:
        """Answer once."""
        match request:
            case b"not found":
                raise not_found()
            case b"broken":
                raise KeyError("secret dsn")
            case b"remaining":
                return str(remaining_s()).encode()
            case b"call id":
                return call_id.get().encode()
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """Answer twice."""
        yield b"first"
        if request == b"broken":
            raise KeyError("secret dsn")
        if request == b"not found":
            raise not_found()
        yield str(remaining_s()).encode()


def not_found() -> NotFoundError:
    return NotFoundError(
        "no such judge",
        reason="JUDGE_NOT_FOUND",
        resource_type="Judge",
        resource_name="judges/x",
    )


def with_probe(
    scenario: Callable[[Probe, grpc.aio.Channel], Awaitable[Any]],
    *,
    default_deadline_s: float = 60.0,
) -> Any:
    async def main() -> Any:
        server = grpc.aio.server(interceptors=[CallInterceptor(default_deadline_s)])
        probe = Probe()
        handlers = {
            "Single": grpc.unary_unary_rpc_method_handler(probe.single),
            "Stream": grpc.unary_stream_rpc_method_handler(probe.stream),
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("sidejudge.Probe", handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await scenario(probe, channel)
        finally:
            await server.stop(0)

    return asyncio.run(main())


async def answers(
    channel: grpc.aio.Channel, method: str, request: bytes
) -> list[bytes]:
    if method == "Single":
        return [await channel.unary_unary("/sidejudge.Probe/Single")(request)]
    call = channel.unary_stream("/sidejudge.Probe/Stream")(request)
    return [message async for message in call]


def error_of(
    request: bytes, *, method: str = "Single", **options: Any
) -> SidejudgeError:
    async def scenario(_probe: Probe, channel: grpc.aio.Channel) -> SidejudgeError:
        with pytest.raises(grpc.RpcError) as caught:
            await answers(channel, method, request)
        return SidejudgeError.from_rpc_error(caught.value)

    return with_probe(scenario, **options)


def answer_to(request: bytes, **call_options: Any) -> Any:
    async def scenario(_probe: Probe, channel: grpc.aio.Channel) -> Any:
        call = channel.unary_unary("/sidejudge.Probe/Single")(request, **call_options)
        return await call, dict(await call.trailing_metadata())

    return with_probe(scenario)


@pytest.mark.parametrize("method", ["Single", "Stream"])
def test_domain_errors_arrive_with_their_details(method):
    """Unary and in mid-stream alike."""
    error = error_of(b"not found", method=method)
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "JUDGE_NOT_FOUND"
    assert error.metadata == {"judge": "judges/x"}


@pytest.mark.parametrize("method", ["Single", "Stream"])
def test_unexpected_errors_tell_nothing(method):
    """INTERNAL, and the id under which the log has more."""
    error = error_of(b"broken", method=method)
    assert error.code is grpc.StatusCode.INTERNAL
    assert error.message == "internal error"
    assert error.call_id == error.metadata["request_id"] != ""


def test_calls_without_deadline_get_the_default():
    """A forgotten deadline does not hold a call for ever."""
    error = error_of(b"hang", default_deadline_s=0.05)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.reason == "DEADLINE_EXCEEDED"


def test_handlers_see_the_callers_deadline():
    """The time left is the caller's, not the default."""
    answer, _ = answer_to(b"remaining", timeout=5)
    # On the wire a timeout is rounded up to a hundredth of itself.
    assert 0 < float(answer) <= 5.05


def test_handlers_see_the_default_deadline():
    """Without the caller's, the time left comes from the default."""
    answer, _ = answer_to(b"remaining")
    assert 5.05 < float(answer) <= 60


def test_streams_have_no_default_deadline():
    """A run may be watched for hours."""

    async def scenario(_probe: Probe, channel: grpc.aio.Channel) -> list[bytes]:
        return await answers(channel, "Stream", b"ok")

    assert with_probe(scenario) == [b"first", b"None"]


def test_call_id_is_the_callers_and_comes_back():
    """The caller finds its own id in the log."""
    answer, trailing = answer_to(b"call id", metadata=(("x-request-id", "mine-1"),))
    assert answer == b"mine-1"
    assert trailing["x-request-id"] == "mine-1"


@pytest.mark.parametrize("hostile", ["", "a b", "x" * 129, '"}{'])
def test_harmful_call_ids_are_replaced(hostile):
    """What goes into every log line must be short and plain."""
    answer, trailing = answer_to(b"call id", metadata=(("x-request-id", hostile),))
    assert trailing["x-request-id"].encode() == answer
    assert len(answer) == 32


def test_a_caller_that_goes_away_cancels_the_handler():
    """Work for nobody stops."""

    async def scenario(probe: Probe, channel: grpc.aio.Channel) -> bool:
        call = channel.unary_unary("/sidejudge.Probe/Single")(b"hang")
        async with asyncio.timeout(10):
            await probe.started.wait()
            before = probe.cancelled.is_set()
            call.cancel()
            await probe.cancelled.wait()
        return before

    assert not with_probe(scenario), "it was cancelled before the caller went away"


def test_unknown_methods_are_unimplemented():
    """No handler, no wrapping."""

    async def scenario(_probe: Probe, channel: grpc.aio.Channel) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary("/sidejudge.Probe/Nothing")(b"")
        return caught.value.code()

    assert with_probe(scenario) is grpc.StatusCode.UNIMPLEMENTED
