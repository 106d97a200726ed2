"""MonitoringService."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from sidejudge.v1 import monitoring_service_pb2 as pb
from sidejudge.v1.monitoring_service_pb2_grpc import MonitoringServiceServicer
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.convert_evaluation import evaluation_message
from sidejudge_server.api.names import monitor_name, version_name
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.monitoring.monitors import Monitor, Monitors
from sidejudge_server.monitoring.performance import PerformancePoint, performance
from sidejudge_server.monitoring.state import EventKind, MonitorSettings, Phase
from sidejudge_storage import MonitorEventRecord, Storage

__all__ = ["MonitoringServicer"]

_Status, _Event = pb.MonitorStatus, pb.MonitorEvent
_STATES: Final = {
    Phase.LEARNING: _Status.STATE_LEARNING,
    Phase.WATCHING: _Status.STATE_WATCHING,
    Phase.ALARM: _Status.STATE_ALARM,
    Phase.INPUT_DRIFT: _Status.STATE_INPUT_DRIFT,
}
_KINDS: Final = {
    EventKind.STARTED: _Event.KIND_STARTED,
    EventKind.LEARNED: _Event.KIND_LEARNED,
    EventKind.ALARM: _Event.KIND_ALARM,
    EventKind.ROLLED_BACK: _Event.KIND_ROLLED_BACK,
    EventKind.PREVIOUS_BETTER: _Event.KIND_PREVIOUS_BETTER,
    EventKind.INPUT_DRIFT: _Event.KIND_INPUT_DRIFT,
}
_BUCKETS: Final = {
    pb.QueryPerformanceRequest.BUCKET_UNSPECIFIED: "day",
    pb.QueryPerformanceRequest.BUCKET_HOUR: "hour",
    pb.QueryPerformanceRequest.BUCKET_DAY: "day",
    pb.QueryPerformanceRequest.BUCKET_WEEK: "week",
}
_SETTINGS: Final = (
    "audit_share",
    "min_agreement",
    "tolerance",
    "auto_rollback",
    "rollback_evidence",
)
_LARGEST_LOG: Final = 690.0


class MonitoringServicer(MonitoringServiceServicer):
    """Converts and delegates to `monitoring`."""

    def __init__(
        self,
        monitors: Monitors,
        judges: JudgeRegistry,
        storage: Storage,
        tokens: TokenCodec,
        settings: Settings,
    ) -> None:
        self._monitors = monitors
        self._judges = judges
        self._storage = storage
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def GetMonitor(
        self, request: pb.GetMonitorRequest, context: object
    ) -> pb.GetMonitorResponse:
        """Read a monitor."""
        monitor = await self._monitors.get(self._judge_id("name", request.name))
        return pb.GetMonitorResponse(monitor=self._message(monitor))

    async def UpdateMonitor(
        self, request: pb.UpdateMonitorRequest, context: object
    ) -> pb.UpdateMonitorResponse:
        """Change how a judge is watched."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.monitor("monitor.name", request.monitor.name)
        change = _change(checker, request)
        monitor = await self._monitors.update(
            checker.passed(judge_id), change, etag=request.monitor.etag
        )
        return pb.UpdateMonitorResponse(monitor=self._message(monitor))

    async def RestartMonitor(
        self, request: pb.RestartMonitorRequest, context: object
    ) -> pb.RestartMonitorResponse:
        """Start anew."""
        monitor = await self._monitors.restart(self._judge_id("name", request.name))
        return pb.RestartMonitorResponse(monitor=self._message(monitor))

    async def ListAuditItems(
        self, request: pb.ListAuditItemsRequest, context: object
    ) -> pb.ListAuditItemsResponse:
        """List evaluations that were chosen by chance."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.monitor("parent", request.parent)
        paging = read_paging(checker, request, self._tokens)
        judge_id = self._judges.get(checker.passed(judge_id)).judge_id
        records = await self._storage.monitors.items(
            judge_id,
            unlabelled_only=request.unlabelled_only,
            before=paging.last_key,
            limit=paging.limit,
        )
        page = cut_page(
            records, evaluation_message, key=lambda r: r.evaluation_id, paging=paging
        )
        return pb.ListAuditItemsResponse(
            evaluations=page.items, next_page_token=page.next_page_token
        )

    async def ListMonitorEvents(
        self, request: pb.ListMonitorEventsRequest, context: object
    ) -> pb.ListMonitorEventsResponse:
        """List what a monitor has done."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.monitor("parent", request.parent)
        paging = read_paging(checker, request, self._tokens)
        judge_id = self._judges.get(checker.passed(judge_id)).judge_id
        records = await self._storage.monitors.events(
            judge_id,
            before=int(paging.last_key) if paging.last_key else None,
            limit=paging.limit,
        )
        page = cut_page(
            records, _event_message, key=lambda r: str(r.sequence), paging=paging
        )
        return pb.ListMonitorEventsResponse(
            events=page.items, next_page_token=page.next_page_token
        )

    async def QueryPerformance(
        self, request: pb.QueryPerformanceRequest, context: object
    ) -> pb.QueryPerformanceResponse:
        """Return performance over time."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.monitor("parent", request.parent)
        version = checker.version(
            "judge_version", request.judge_version, required=False
        )
        if version is not None and version.judge_id != judge_id:
            checker.add("judge_version", f"is not a version of judges/{judge_id}")
        bucket = checker.enum(
            "bucket", request.bucket, pb.QueryPerformanceRequest.Bucket.DESCRIPTOR
        )
        start, end = None, datetime.now(UTC)
        if request.HasField("end_time"):
            end = checker.time("end_time", request.end_time) or end
        if request.HasField("start_time"):
            start = checker.time("start_time", request.start_time)
        judge_id = self._judges.get(checker.passed(judge_id)).judge_id
        points = await performance(
            self._storage,
            judge_id,
            version=version.version if version else None,
            start=start,
            end=end,
            bucket=_BUCKETS[pb.QueryPerformanceRequest.Bucket.ValueType(bucket)],
        )
        return pb.QueryPerformanceResponse(
            points=[_point_message(judge_id, point) for point in points]
        )

    def _judge_id(self, field: str, name: str) -> str:
        checker = Checker(self._max_text_chars)
        return checker.passed(checker.monitor(field, name))

    def _message(self, monitor: Monitor) -> pb.Monitor:
        settings, state = monitor.settings, monitor.state
        judge_id = monitor.judge_id
        kind = self._judges.get(judge_id).spec.kind
        status = _Status(
            state=_STATES[state.phase],
            judge_version=version_name(judge_id, state.version),
            audit_labels=state.labels,
            agreement=state.agreement_sum / state.labels if state.labels else None,
            min_agreement=state.p0,
            drift_statistic=state.detector.statistic if state.detector else 0.0,
            previous_version=version_name(judge_id, state.previous_version)
            if state.previous_version
            else "",
            previous_wins=state.wins,
            previous_losses=state.losses,
            ties=state.ties,
            previous_better_e_value=math.exp(
                min(monitor.previous_better_log_e, _LARGEST_LOG)
            ),
            reason=state.reason,
        )
        return pb.Monitor(
            name=monitor_name(judge_id),
            audit_share=settings.audit_share,
            min_agreement=settings.min_agreement,
            tolerance=settings.tolerance,
            auto_rollback=settings.auto_rollback,
            rollback_evidence=settings.evidence(kind),
            status=status,
            etag=monitor.etag,
        )


def _change(
    checker: Checker, request: pb.UpdateMonitorRequest
) -> Callable[[MonitorSettings], MonitorSettings]:
    """Read what is to change; ranges are the domain's to check."""
    paths = list(request.update_mask.paths) or list(_SETTINGS)
    for path in paths:
        if path not in _SETTINGS:
            checker.add(
                "update_mask",
                f"{path!r} cannot change; any of {', '.join(_SETTINGS)} can",
            )
    checker.raise_if_any()
    default, wanted = MonitorSettings(), request.monitor
    values: dict[str, Any] = {
        path: getattr(wanted, path)
        if wanted.HasField(path)  # type: ignore[arg-type] # one of the names above
        else getattr(default, path)
        for path in paths
    }
    return lambda settings: replace(settings, **values)


def _event_message(record: MonitorEventRecord) -> pb.MonitorEvent:
    return pb.MonitorEvent(
        sequence=record.sequence,
        create_time=timestamp(record.created_at),
        kind=_KINDS[EventKind(record.kind)],
        judge_version=version_name(record.judge_id, record.version),
        reason=record.reason,
    )


def _point_message(judge_id: str, point: PerformancePoint) -> pb.PerformancePoint:
    row = point.row
    message = pb.PerformancePoint(
        bucket_time=timestamp(row.bucket),
        judge_version=version_name(judge_id, row.version),
        audit_items=row.items,
        labelled=row.labelled,
        cumulative_agreement=point.cumulative_agreement,
        latency_ms_p50=row.latency_ms_p50,
        latency_ms_p95=row.latency_ms_p95,
        mean_cost_usd=row.mean_cost_usd,
    )
    if point.interval is not None:
        message.agreement = row.agreement_sum / row.labelled
        message.agreement_low, message.agreement_high = point.interval
    if point.cumulative_interval is not None:
        message.cumulative_low, message.cumulative_high = point.cumulative_interval
    return message
