"""What is in progress when the server stops either ends whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_storage import Storage
from tests.storage import samples

REQUEST = "33333333-3333-4333-8333-333333333333"


async def _recall(resource_id: str) -> str:
    return resource_id


def test_work_whose_caller_has_gone_is_stored_before_the_end(tmp_path: Path) -> None:
    """Draining waits for it, with and without a request_id."""

    async def scenario() -> tuple[str | None, int]:
        storage = Storage.open(tmp_path / "r.duckdb")
        requests = RequestLog(storage)
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def perform(claim: Claim) -> str:
            asked.set()
            await go_on.wait()
            await commit(storage, samples.evaluation(evaluation_id="e"), *claim("e"))
            return "e"

        async def perform_unnamed(claim: Claim) -> str:
            await go_on.wait()
            await commit(storage, samples.feedback(), *claim("f"))
            return "f"

        caller = asyncio.create_task(
            requests.once(
                REQUEST, method="M", fingerprint="", perform=perform, recall=_recall
            )
        )
        unnamed = asyncio.create_task(
            requests.once(
                "", method="M", fingerprint="", perform=perform_unnamed, recall=_recall
            )
        )
        await asked.wait()
        caller.cancel()
        draining = asyncio.create_task(requests.drain(timeout_s=60))
        await asyncio.sleep(0)
        assert not draining.done()
        go_on.set()
        await draining
        stored = await storage.evaluations.get("e")
        await storage.close()
        assert unnamed.done()
        return stored.evaluation_id if stored else None, len(requests._running)

    assert asyncio.run(scenario()) == ("e", 0)


def test_work_that_does_not_end_is_cancelled(tmp_path: Path) -> None:
    """A language model that hangs cannot keep the server from stopping."""

    async def scenario() -> bool:
        storage = Storage.open(tmp_path / "r.duckdb")
        requests = RequestLog(storage)
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def perform(_: Claim) -> str:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return ""

        caller = asyncio.create_task(
            requests.once(
                REQUEST, method="M", fingerprint="", perform=perform, recall=_recall
            )
        )
        await asked.wait()
        await requests.drain(timeout_s=0)
        await asyncio.wait([caller])
        await storage.close()
        return cancelled.is_set() and caller.cancelled()

    assert asyncio.run(scenario())
