"""A child that keeps the protocol of the embedded one but serves the stand-in.

Run as ``fake_child.py MODE MODEL_PATH --context=N --threads=N``; the mode ``fails`` does not start,
``silent`` ends without a word.
"""

import asyncio
import json
import os
import sys

from tests.stand_in import StandIn


async def _serve():
    stand_in = StandIn()
    runner = await stand_in.serve()
    address = stand_in.base_url.removesuffix("/v1")
    print(json.dumps({"address": address}), flush=True)  # noqa: T201 - the protocol
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def main():
    """Play the child."""
    mode = sys.argv[1]
    key = sys.stdin.readline().strip()
    if mode == "silent":
        sys.exit(3)
    if mode == "fails" or len(key) < 20 or os.environ["OMP_WAIT_POLICY"] != "passive":
        print(json.dumps({"error": "out of memory"}), flush=True)  # noqa: T201 - the protocol
        sys.exit(1)
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
