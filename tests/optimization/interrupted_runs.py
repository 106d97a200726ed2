"""Runs that did not come to their end, for tests of how they go on."""

from __future__ import annotations

from dataclasses import replace

from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.spec import EventKind
from tests.optimization.service_setup import running

__all__ = ["SAFETY", "cancelled_run", "interrupted_run"]

SAFETY = CreateOptimization("safety")


async def interrupted_run(tmp_path):
    """Start a run, stop the server when it has found something, and return the run's id."""
    async with running(tmp_path) as server:
        await server.train()
        run_id = (await server.service.create(SAFETY)).optimization_id
        await server.watch_until(run_id, EventKind.BEST_IMPROVED)
        return run_id


async def cancelled_run(server, **fields):
    """Start a run, cancel it when it has found something, and return the run's id."""
    await server.train()
    record = await server.service.create(replace(SAFETY, **fields))
    await server.watch_until(record.optimization_id, EventKind.BEST_IMPROVED)
    await server.service.cancel(record.optimization_id)
    await server.watch_all(record.optimization_id)
    return record.optimization_id
