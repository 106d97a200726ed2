"""The sidecar as a whole: what it is made of, in which order it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from sidejudge_server import __version__
from sidejudge_server.analytics.day_sums import DaySums
from sidejudge_server.api.address import listen_address
from sidejudge_server.api.server import SERVICES, DomainServices, GrpcServer
from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import LMError
from sidejudge_server.experiments.experimenting import Experimenting
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.judges.service import EvaluationService
from sidejudge_server.judges.slack import Slack
from sidejudge_server.juries.service import JuryService
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.embedded import EmbeddedClient
from sidejudge_server.lm.types import ChatClient
from sidejudge_server.logging import configure_logging
from sidejudge_server.monitoring.monitors import Monitors
from sidejudge_server.monitoring.second_opinion import SecondOpinion
from sidejudge_server.optimization.executor import LocalExecutor
from sidejudge_server.optimization.policies import PolicyService
from sidejudge_server.optimization.queue import OptimizationService
from sidejudge_server.optimization.scheduler import PolicyScheduler
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.optimization.shadow_judge import ShadowJudge
from sidejudge_server.optimization.watchdog import WorkerLimits
from sidejudge_server.review.queue import ReviewQueue
from sidejudge_server.review.selection import (
    AgreementProbability,
    Answer,
    stated_agreement,
)
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.service import FeedbackService
from sidejudge_server.training.synthesis import Synthesizer
from sidejudge_server.trust.reliabilities import Reliabilities
from sidejudge_storage import Storage, StorageError, StorageOptions

__all__ = ["Application", "serve"]

_log = structlog.get_logger(__name__)

_FORCED_EXIT = 130
_MIB = 1024 * 1024
_LAST_WRITES_S = 1.0
"""How long work whose callers were cut off may take to end after the calls."""


@dataclass(frozen=True, slots=True)
class _Parts:
    services: DomainServices
    client: ChatClient


class Application:
    """A sidecar in this process. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Make it; nothing is opened before `start`.

        Raises:
            ConfigError: The address is not one to listen on.
        """
        listen_address(settings.server.address)
        self._settings = settings
        self._cleanup = AsyncExitStack()
        self._server: GrpcServer | None = None
        self._optimizations: OptimizationService | None = None
        self._scheduler: PolicyScheduler | None = None
        self.monitors: Monitors | None = None
        """What watches the judges, once it has started."""
        self.reliabilities: Reliabilities | None = None
        """What is known of the judges' confidence, once it has started."""
        self.review: ReviewQueue | None = None
        """The review queues, once it has started."""
        self.experimenting: Experimenting | None = None
        """The experiments, once it has started."""
        self._warm_up: asyncio.Task[None] | None = None
        self.address = ""
        """Where clients connect to, once it has started."""
        self.http_address = ""
        """Where JSON over HTTP is served, once it has started; "" for nowhere."""

    async def start(self) -> None:
        """Open everything and serve; on failure nothing stays open.

        Raises:
            StorageError: The database cannot be opened; the message says the way out.
            ConfigError: The address cannot be listened on, or there is no such model.
        """
        try:
            parts = await self._open()
            self._server = GrpcServer(self._settings, parts.services)
            self.address = await self._server.start()
            await self._start_http()
        except BaseException:
            if self._server is not None:
                await self._server.stop(0)
            await self._cleanup.aclose()
            raise
        if isinstance(parts.client, EmbeddedClient):
            self._warm_up = asyncio.create_task(_warm_up(parts.client))
            self._cleanup.push_async_callback(_end, self._warm_up)

    async def _start_http(self) -> None:
        """Serve JSON over HTTP too, if that is configured."""
        if self._settings.server.http_address is None:
            return
        # Its imports take 11 MiB, which most sidecars save.
        from sidejudge_server.api.http_json import HttpGateway

        gateway = HttpGateway(self._settings, SERVICES, grpc_address=self.address)
        self._cleanup.push_async_callback(gateway.stop)
        self.http_address = await gateway.start()

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Refuse new calls, let running ones end, and close everything.

        Args:
            drain_s: How long calls may take to end; None for the configured time.
        """
        grace_s = self._settings.server.drain_s if drain_s is None else drain_s
        if self._server is not None:
            await self._server.drain()
            stopping = asyncio.create_task(self._server.stop(grace_s))
            # Else the end of a run would start the next one.
            if self._scheduler is not None:
                await self._scheduler.close()
            # Ends the calls that watch experiments.
            if self.experimenting is not None:
                await self.experimenting.send_watchers_away()
            # Ends the runs, and with them the calls that watch them.
            if self._optimizations is not None:
                await self._optimizations.close()
            await stopping
        await self._cleanup.aclose()

    async def _open(self) -> _Parts:
        """Open storage, clients and services; what was opened is closed in reverse."""
        settings = self._settings
        storage = await self._open_storage()
        requests = RequestLog(storage)
        await requests.load()
        registry = JudgeRegistry(storage, requests)
        await registry.load()
        client = create_client(settings.task_lm, model_dir=settings.model_dir)
        self._cleanup.push_async_callback(client.close)
        embedded = isinstance(client, EmbeddedClient)
        models = self._further_clients()
        slack = Slack(1 if embedded else settings.task_lm.max_concurrency)
        experimenting = Experimenting(
            storage,
            registry,
            client,
            requests=requests,
            slack=slack,
            shadow_workers=1
            if embedded
            else max(1, settings.task_lm.max_concurrency // 2),
        )
        opinion = SecondOpinion(storage, registry, client, slack=slack)
        monitors = Monitors(storage, registry, opinion)
        reliabilities = Reliabilities(storage, registry, model=client.model)
        evaluations = EvaluationService(
            storage,
            registry,
            client,
            settings,
            requests=requests,
            slack=slack,
            router=experimenting.router,
            audit=monitors.audit_probability,
            assess=reliabilities.assess,
            models=models,
        )
        juries = JuryService(
            storage, registry, evaluations, requests, models=tuple(models)
        )
        await juries.load()
        shadows = ShadowCandidates(storage)
        shadow_judge = ShadowJudge(storage, registry, shadows, client, slack=slack)
        collector = TrainingCollector(
            storage, registry, max_text_chars=settings.server.max_text_chars
        )
        feedback = FeedbackService(
            storage,
            registry,
            collector,
            settings,
            recent=evaluations.recent,
            requests=requests,
        )
        self.review = ReviewQueue(
            storage,
            registry,
            settings.review,
            agreement=_expected_agreement(reliabilities),
        )
        await self.review.start()
        for watcher in (experimenting, monitors, reliabilities, juries, self.review):
            feedback.on_recorded(watcher.hear)
        resolve_lm = _resolver(settings, client)
        synthesizer = Synthesizer(
            storage,
            registry,
            collector,
            settings,
            requests=requests,
            resolve_lm=resolve_lm,
        )
        optimizations = OptimizationService(
            storage,
            registry,
            feedback,
            LocalExecutor(limits=_worker_limits(settings)),
            settings,
            requests=requests,
            resolve_lm=resolve_lm,
            shadows=shadows,
        )
        policies = PolicyService(storage, registry, feedback, optimizations, settings)
        scheduler = PolicyScheduler(policies)
        policies.listeners.append(scheduler.wake)
        optimizations.on_ended(scheduler.wake)
        feedback.on_imported(scheduler.wake)
        collector.on_accepted(lambda judge_id, _: scheduler.wake(judge_id))
        collector.on_accepted(shadow_judge.hear)
        collector.start()
        self._cleanup.push_async_callback(collector.close)
        await optimizations.start()
        self._optimizations = optimizations
        self._cleanup.push_async_callback(optimizations.close)
        await scheduler.start()
        self._scheduler = scheduler
        self._cleanup.push_async_callback(scheduler.close)
        shadow_judge.start()
        self._cleanup.push_async_callback(shadow_judge.close)
        await self._start_watching(storage, experimenting, monitors, reliabilities)
        # First of all: it may still start a run, and needs the model and the database.
        self._cleanup.push_async_callback(requests.drain, timeout_s=_LAST_WRITES_S)
        repair = storage.repair.message if storage.repair is not None else ""
        services = DomainServices(
            registry,
            evaluations,
            feedback,
            synthesizer,
            optimizations,
            policies,
            shadows,
            experimenting,
            monitors,
            reliabilities,
            juries,
            self.review,
            storage,
            storage.database_id,
            repair,
        )
        return _Parts(services, client)

    def _further_clients(self) -> dict[str, ChatClient]:
        """Return a client for each further model; embedded ones start with their first call."""
        clients = {
            name: create_client(settings, model_dir=self._settings.model_dir)
            for name, settings in self._settings.models.items()
        }
        for client in clients.values():
            self._cleanup.push_async_callback(client.close)
        return clients

    async def _start_watching(
        self,
        storage: Storage,
        experimenting: Experimenting,
        monitors: Monitors,
        reliabilities: Reliabilities,
    ) -> None:
        """Begin with experiments, monitors, confidences and daily sums; they are closed in reverse."""
        await experimenting.start()
        self.experimenting = experimenting
        self._cleanup.push_async_callback(experimenting.close)
        await monitors.start()
        self.monitors = monitors
        self._cleanup.push_async_callback(monitors.close)
        await reliabilities.start()
        self.reliabilities = reliabilities
        self._cleanup.push_async_callback(reliabilities.close)
        day_sums = DaySums(storage)
        day_sums.start()
        self._cleanup.push_async_callback(day_sums.close)

    async def _open_storage(self) -> Storage:
        settings = self._settings.storage
        options = StorageOptions(
            memory_limit=settings.memory_limit,
            threads=settings.threads,
            accept_data_loss=settings.accept_data_loss,
        )
        storage = await asyncio.to_thread(Storage.open, settings.path, options)
        self._cleanup.push_async_callback(storage.close)
        if storage.repair is not None:
            _log.warning("database repaired", repair=storage.repair.message)
        return storage


async def serve(settings: Settings, *, ready_file: Path | None = None) -> int:
    """Run a sidecar until SIGTERM or SIGINT; a second signal forces the exit.

    Args:
        settings: All settings.
        ready_file: Gets one JSON line with the address once calls are answered.

    Returns:
        Exit code: 0 after an orderly stop, 1 if the database cannot be opened.

    Raises:
        ConfigError: The address cannot be listened on, or there is no such model.
    """
    configure_logging(settings.server.log_level)
    stop_asked = _stop_signals()
    application = Application(settings)
    try:
        await application.start()
    except StorageError as error:
        sys.stderr.write(f"sidejudge: {error}\n")
        return 1
    # Modules and services stay to the end: not to be looked at in every full collection.
    gc.freeze()
    _announce(application, settings, ready_file)
    await stop_asked.wait()
    _log.info("stopping", drain_s=settings.server.drain_s)
    await application.stop()
    # Frozen objects would be reported as leaks of native code at the end of the process.
    gc.unfreeze()
    _log.info("stopped")
    return 0


def _stop_signals() -> asyncio.Event:
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            # Children see their pipes close and end by themselves.
            os._exit(_FORCED_EXIT)
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return asked


def _announce(
    application: Application, settings: Settings, ready_file: Path | None
) -> None:
    addresses = {"address": application.address}
    if application.http_address:
        addresses["http_address"] = application.http_address
    _log.info(
        "listening",
        **addresses,
        version=__version__,
        database=str(settings.storage.path),
        model=settings.task_lm.model,
    )
    line = json.dumps({"event": "listening", **addresses, "pid": os.getpid()})
    if ready_file is not None:
        ready_file.write_text(f"{line}\n", encoding="utf-8")
    with suppress(OSError):  # nobody may be reading
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


async def _warm_up(client: EmbeddedClient) -> None:
    """Load the embedded model; without it everything but judging works."""
    try:
        await client.start()
    except LMError as error:
        _log.warning("the model cannot judge", cause=error.message)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _expected_agreement(reliabilities: Reliabilities) -> AgreementProbability:
    """Return how far people are expected to agree: the calibrated confidence where there is one."""

    def expected(judge_id: str, version: int, answer: Answer) -> float:
        mapped = reliabilities.calibrated(judge_id, version, answer.confidence)
        if mapped is None:
            return stated_agreement(judge_id, version, answer)
        return mapped

    return expected


def _worker_limits(settings: Settings) -> WorkerLimits:
    return WorkerLimits(
        memory_bytes=settings.optimization.worker_memory_mb * _MIB,
        silence_s=settings.optimization.worker_silence_s,
    )


def _resolver(
    settings: Settings, client: ChatClient
) -> Callable[[LMSettings], Awaitable[LMSettings]]:
    """Return how workers reach a model: the embedded one through the process of the server."""

    async def resolve(wanted: LMSettings) -> LMSettings:
        if (
            isinstance(client, EmbeddedClient)
            and wanted.model == settings.task_lm.model
        ):
            return await client.shared_settings()
        return wanted

    return resolve
