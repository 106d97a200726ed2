"""A feedback service on a real database, for tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidejudge_server.config import Settings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.service import FeedbackService
from sidejudge_storage import Storage


@dataclass
class Running:
    """Everything that a server would have made."""

    storage: Storage
    registry: JudgeRegistry
    collector: TrainingCollector
    service: FeedbackService

    async def examples(self, judge="relevance"):
        """All examples of a judge, oldest first, accepted or not."""
        pages = self.service.export(judge, include_rejected=True)
        return [example async for page in pages for example in page]


@asynccontextmanager
async def running(path, *, start=True, **given):
    """Open the database and start the service; stop both in the end."""
    storage = Storage.open(path / "test.duckdb")
    try:
        requests = RequestLog(storage)
        await requests.load()
        registry = JudgeRegistry(storage, requests)
        await registry.load()
        collector = TrainingCollector(storage, registry)
        if start:
            collector.start()
        service = FeedbackService(
            storage, registry, collector, Settings(), requests=requests, **given
        )
        yield Running(storage, registry, collector, service)
        await collector.close()
    finally:
        await storage.close()
