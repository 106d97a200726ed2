"""A process that writes for ever and says on a pipe what was acknowledged; made to be killed.

``python -m tests.storage.writing_child DATABASE TASKS ROUND`` prints the id of each row after its
write returned. Rows are numbered within their task, so that a gap can be seen.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sidejudge_storage import Storage, StorageOptions
from tests.storage import samples


async def _write_for_ever(storage: Storage, prefix: str) -> None:
    number = 0
    while True:
        number += 1
        name = f"{prefix}-{number:06}"
        # Two tables, so that a unit that was cut in half would show.
        await storage.write(
            samples.evaluation(evaluation_id=name),
            samples.feedback(feedback_id=name),
        )
        os.write(1, f"{name}\n".encode())  # unbuffered: the reader knows at once


async def _main(path: Path, tasks: int, round_number: str) -> None:
    # Checkpoints every few flushes, so that some kills hit one.
    storage = Storage.open(path, StorageOptions(checkpoint_bytes=64_000))
    repair = storage.repair
    os.write(1, f"ready {repair.message if repair else 'clean'}\n".encode())
    await asyncio.gather(
        *(_write_for_ever(storage, f"{round_number}-{t:02}") for t in range(tasks))
    )


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
