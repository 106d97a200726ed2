"""The cheapest grpc.aio server there is: one rpc that does nothing. Prints its port."""

from __future__ import annotations

import asyncio

import grpc


async def _nothing(_request: bytes, _context: object) -> bytes:
    return b""


async def _serve() -> None:
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "bench.Empty", {"Call": grpc.unary_unary_rpc_method_handler(_nothing)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
