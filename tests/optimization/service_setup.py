"""An optimization service on a real database with real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sidejudge_server.config import LMSettings, OptimizationSettings, Settings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.judges.types import ArtifactInput
from sidejudge_server.optimization.executor import LocalExecutor
from sidejudge_server.optimization.queue import OptimizationService
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.examples import ImportedExample
from sidejudge_server.training.service import FeedbackService
from sidejudge_storage import Storage
from tests.optimization.toy_workers import searches_until_cancelled


@dataclass
class Running:
    """Everything that a server would have made."""

    storage: Storage
    registry: JudgeRegistry
    feedback: FeedbackService
    executor: LocalExecutor
    service: OptimizationService

    async def watch_all(self, optimization_id, *, after=None):
        """Every event of a run until it ends."""
        events = self.service.watch(optimization_id, after_sequence=after)
        return [event async for event in events]

    async def watch_until(self, optimization_id, kind):
        """The first event of a kind from the start of the log."""
        events = self.service.watch(optimization_id, after_sequence=0)
        try:
            async for event in events:
                if event.kind == kind:
                    return event
        finally:
            await events.aclose()
        raise AssertionError(kind)

    async def kill_worker(self, optimization_id, *, but=()):
        """Kill the worker process of a run, once it has one whose id is not in ``but``."""
        while True:
            status = self.executor.status(optimization_id)
            if status.alive and status.pid not in but:
                os.kill(status.pid, signal.SIGKILL)
                return status.pid
            await asyncio.sleep(0.01)

    async def train(self, judge_id="safety", *, count=100, word="WORD"):
        """Import labelled examples; the judge is wrong on a third unless told the word."""
        items = []
        for index in range(count):
            passes = index % 2 == 0
            good, bad = ("0.8", "0.2") if passes else ("0.2", "0.8")
            plain = bad if index % 3 == 0 else good
            text = f"item {index} p(yes)={plain} p(yes|{word})={good}"
            items.append(
                ImportedExample(
                    ArtifactInput(artifact=text, context="A context."),
                    verdict="pass" if passes else "fail",
                )
            )
        outcome = await self.feedback.import_examples(judge_id, items)
        assert outcome.imported_count == count, outcome


@asynccontextmanager
async def running(
    path: Path,
    *,
    base_url="http://127.0.0.1:1/v1",
    entry=searches_until_cancelled,
    resolve_lm=None,
    limits=None,
    lm=None,
    **optimization,
):
    """Open the database and start the services; stop everything in the end.

    Args:
        path: Directory of the database.
        base_url: Of the stand-in.
        entry: What worker processes run; None for the real worker.
        resolve_lm: How workers reach a model; None for as configured.
        limits: What workers may do; None for anything.
        lm: Further fields of the model's settings.
        optimization: Settings of optimizations.
    """
    settings = Settings(
        storage=replace(Settings().storage, path=path / "test.duckdb"),
        task_lm=replace(
            LMSettings(
                model="openai/stand-in", base_url=base_url, api_key="k", max_retries=0
            ),
            **(lm or {}),
        ),
        optimization=OptimizationSettings(**optimization),
    )
    storage = Storage.open(settings.storage.path)
    try:
        requests = RequestLog(storage)
        registry = JudgeRegistry(storage, requests)
        await registry.load()
        collector = TrainingCollector(storage, registry)
        collector.start()
        feedback = FeedbackService(
            storage, registry, collector, settings, requests=requests
        )
        executor = LocalExecutor(**({"entry": entry} if entry else {}), limits=limits)
        service = OptimizationService(
            storage,
            registry,
            feedback,
            executor,
            settings,
            requests=requests,
            **({"resolve_lm": resolve_lm} if resolve_lm else {}),
        )
        await service.start()
        yield Running(storage, registry, feedback, executor, service)
        await service.close()
        await collector.close()
    finally:
        await storage.close()
