"""Run the stand-in as a process: prints its base URL, ends with its parent.

``python -m tests.stand_in [--port N] [--latency-ms N]``; it exits on SIGTERM, SIGINT or when
its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from tests.stand_in.server import StandIn


async def _serve(port: int, latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stand_in = StandIn(record=False, latency_s=latency_s)
    runner = await stand_in.serve(port=port)
    print(stand_in.base_url, flush=True)  # noqa: T201 - how the caller learns the address
    waiting = loop.run_in_executor(None, sys.stdin.read)
    waiting.add_done_callback(lambda _: stop.set())
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Parse arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.stand_in")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.latency_ms / 1000))


if __name__ == "__main__":
    main()
