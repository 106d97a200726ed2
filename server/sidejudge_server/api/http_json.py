"""The same services as JSON over HTTP, for callers without gRPC.

Each request is a call to the gRPC server in this process, so validation, deadlines, limits, errors and
the access log are those of gRPC. ``POST /sidejudge.v1.EvaluationService/Evaluate`` takes and answers
proto3 JSON; streams of answers are server-sent events, streams of requests a JSON array.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from aiohttp import web
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

# Their types must be known for details of errors to become JSON.
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sidejudge_server.api.address import ListenAddress, listen_address, private_socket
from sidejudge_server.config import ConfigError, Settings

__all__ = ["HttpGateway"]

# As in google/rpc/code.proto.
_HTTP_STATUS: Final = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_FORWARDED: Final = ("authorization", "traceparent", "tracestate", "x-request-id")
_TIMEOUT: Final = "Connect-Timeout-Ms"
_DETAILS: Final = "grpc-status-details-bin"
_REQUEST_ID: Final = "x-request-id"
_LARGE: Final = 64 * 1024
"""Texts of more bytes are parsed in a thread, so that other calls go on."""
_FIRST_ANSWER_S: Final = 1.0
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Method:
    path: str
    request: type[Message]
    call: Callable[..., Any]
    takes_many: bool
    answers_many: bool


class _RefusedError(Exception):
    """A request that does not become a call."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = _error(status, code_pb2.Code.Name(code), message, [])


class HttpGateway:
    """JSON over HTTP in front of a gRPC server. Belongs to one event loop."""

    def __init__(
        self, settings: Settings, services: Iterable[str], *, grpc_address: str
    ) -> None:
        """Take the names of the services and where they are served.

        Raises:
            ConfigError: The address is not one to listen on.
        """
        server = settings.server
        self._address = listen_address(
            server.http_address or "", setting="server.http_address"
        )
        limit = server.max_message_bytes
        self._channel = grpc.aio.insecure_channel(
            grpc_address,
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                # The server in this process, whatever proxy the environment names.
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._methods = {m.path: m for m in _methods(services, self._channel)}
        # JSON of the same message is longer.
        self._max_body_bytes = 2 * limit
        app = web.Application(client_max_size=self._max_body_bytes)
        app.router.add_route("*", "/{service}/{method}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )

    async def start(self) -> str:
        """Listen and return the address that clients connect to.

        Raises:
            ConfigError: The address is in use.
        """
        await self._runner.setup()
        address = self._address
        with private_socket(address):
            site = self._site(address)
            try:
                await site.start()
            except OSError as error:
                problem = f"cannot be listened on: {error.strerror or error}"
                raise ConfigError(
                    [f"server.http_address = {address.text!r} {problem}"]
                ) from None
        if address.path is not None:
            return address.text
        return address.with_port(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Let running requests end for a second, then close."""
        await self._runner.cleanup()
        await self._channel.close()

    def _site(self, address: ListenAddress) -> web.BaseSite:
        if address.path is not None:
            return web.UnixSite(self._runner, str(address.path))
        return web.TCPSite(self._runner, address.host, address.port)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            method = self._method(request)
            sent = await _messages(request, method)
            timeout_s = _timeout_s(request)
        except _RefusedError as error:
            return _answer(error.document, error.status)
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is larger than {self._max_body_bytes} bytes"
            return _answer(_error(413, "RESOURCE_EXHAUSTED", text, []), 413)
        metadata = [
            (name, request.headers[name])
            for name in _FORWARDED
            if name in request.headers
        ]
        argument = sent if method.takes_many else sent[0]
        call = method.call(argument, timeout=timeout_s, metadata=metadata)
        try:
            if method.answers_many:
                return await _events(request, call)
            message = await call
            text = await _to_json(message)
        except grpc.aio.AioRpcError as error:
            status, document = _document_of(error)
            return _answer(document, status, trailing=error.trailing_metadata())
        finally:
            call.cancel()  # of a caller that has gone; nothing where it has ended
        return _answer(text, 200, trailing=await call.trailing_metadata())

    def _method(self, request: web.Request) -> _Method:
        """Return what is asked for, if it may be."""
        self._require_local_host(request)
        method = self._methods.get(request.path)
        if method is None:
            raise _RefusedError(
                404, code_pb2.UNIMPLEMENTED, f"there is no method {request.path}"
            )
        if request.method != "POST":
            raise _RefusedError(
                405, code_pb2.UNIMPLEMENTED, "use POST with the request as JSON"
            )
        # Browsers may not send this to another site without asking first, and are not answered.
        if request.content_type != "application/json":
            text = "the Content-Type must be application/json"
            raise _RefusedError(415, code_pb2.INVALID_ARGUMENT, text)
        return method

    def _require_local_host(self, request: web.Request) -> None:
        """Refuse names of others that lead here: a web page may point its own at this machine."""
        if self._address.path is not None:
            return
        host = request.host.rpartition(":")[0] or request.host
        if request.host.endswith("]"):
            host = request.host
        if host.lower() not in (*_LOCAL_NAMES, self._address.host.lower()):
            text = f"the Host header must name this machine, not {host}"
            raise _RefusedError(421, code_pb2.PERMISSION_DENIED, text)


def _methods(services: Iterable[str], channel: grpc.aio.Channel) -> Iterable[_Method]:
    pool = descriptor_pool.Default()
    for name in services:
        for method in pool.FindServiceByName(name).methods:
            request = message_factory.GetMessageClass(method.input_type)
            answer = message_factory.GetMessageClass(method.output_type)
            asks = "stream" if method.client_streaming else "unary"
            answers = "stream" if method.server_streaming else "unary"
            path = f"/{name}/{method.name}"
            make = getattr(channel, f"{asks}_{answers}")
            call = make(
                path,
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            yield _Method(
                path, request, call, method.client_streaming, method.server_streaming
            )


async def _messages(request: web.Request, method: _Method) -> list[Message]:
    """Return the request, or the requests of a stream."""
    body = await request.read()
    if len(body) > _LARGE:
        return await asyncio.to_thread(_parsed, body, method)
    return _parsed(body, method)


def _parsed(body: bytes, method: _Method) -> list[Message]:
    try:
        return _read(body, method)
    except (TypeError, ValueError, RecursionError, json_format.ParseError) as error:
        text = f"the body is not the JSON of {method.request.DESCRIPTOR.full_name}: {error}"
        raise _RefusedError(400, code_pb2.INVALID_ARGUMENT, text) from None


def _read(body: bytes, method: _Method) -> list[Message]:
    document = json.loads(body or b"{}")
    if not method.takes_many:
        if not isinstance(document, dict):
            raise TypeError("a request is a JSON object")
        return [json_format.ParseDict(document, method.request())]
    if not isinstance(document, list):
        raise TypeError("a stream of requests is a JSON array")
    return [json_format.ParseDict(one, method.request()) for one in document]


def _timeout_s(request: web.Request) -> float | None:
    text = request.headers.get(_TIMEOUT)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):  # noqa: PLR2004 - as in Connect
        problem = f"{_TIMEOUT} must be milliseconds in up to ten digits"
        raise _RefusedError(400, code_pb2.INVALID_ARGUMENT, problem)
    return int(text) / 1000


async def _events(request: web.Request, call: Any) -> web.StreamResponse:  # noqa: ANN401 - grpc has no type stubs
    """Send each answer as an event, and how the call ended as the last one."""
    answers: AsyncIterator[Message] = aiter(call)
    first = asyncio.ensure_future(anext(answers, None))
    # What fails at once has a status that every client understands; who watches something quiet
    # still hears soon that it is there.
    await asyncio.wait((first,), timeout=_FIRST_ANSWER_S)
    if first.done() and isinstance(error := first.exception(), grpc.aio.AioRpcError):
        status, document = _document_of(error)
        return _answer(document, status, trailing=error.trailing_metadata())
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    end = "event: end\ndata: {}\n\n"
    try:
        message = await first
        while message is not None:
            await response.write(await _event(message))
            message = await anext(answers, None)
    except grpc.aio.AioRpcError as error:
        _, document = _document_of(error)
        end = f"event: error\ndata: {json.dumps(document)}\n\n"
    finally:
        first.cancel()
    await response.write(end.encode())
    await response.write_eof()
    return response


async def _event(message: Message) -> bytes:
    # What an EventSource sends back as Last-Event-ID: the place to go on from.
    token = getattr(getattr(message, "event", message), "resume_token", "")
    identity = f"id: {token}\n" if token else ""
    return f"{identity}data: {await _to_json(message)}\n\n".encode()


async def _to_json(message: Message) -> str:
    if message.ByteSize() > _LARGE:
        return await asyncio.to_thread(json_format.MessageToJson, message, indent=None)
    return json_format.MessageToJson(message, indent=None)


def _document_of(error: grpc.aio.AioRpcError) -> tuple[int, _Json]:
    """Return an error as HTTP status and JSON, with its details as JSON of `google.rpc` messages."""
    status = _HTTP_STATUS.get(error.code(), 500)
    details: list[_Json] = []
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            known = json_format.MessageToDict(status_pb2.Status.FromString(value))
            details = known.get("details", [])
    return status, _error(status, error.code().name, error.details() or "", details)


def _error(status: int, code: str, message: str, details: list[_Json]) -> _Json:
    known = {"code": status, "status": code, "message": message, "details": details}
    return {"error": known}


def _answer(
    body: _Json | str,
    status: int,
    *,
    trailing: Iterable[tuple[str, Any]] | None = None,
) -> web.Response:
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    headers.update({k: v for k, v in trailing or () if k == _REQUEST_ID})
    if not isinstance(body, str):
        retry_s = _retry_after_s(body)
        if retry_s is not None:
            headers["Retry-After"] = str(retry_s)
        body = json.dumps(body)
    return web.Response(
        text=body, status=status, headers=headers, content_type="application/json"
    )


def _retry_after_s(document: Mapping[str, Any]) -> int | None:
    """Return whole seconds to wait, at least 1, if the error says when to come back."""
    name = error_details_pb2.RetryInfo.DESCRIPTOR.full_name
    for detail in document["error"]["details"]:
        if detail["@type"].endswith(name) and "retryDelay" in detail:
            return max(1, round(float(detail["retryDelay"].removesuffix("s"))))
    return None
