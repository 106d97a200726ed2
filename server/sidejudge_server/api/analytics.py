"""AnalyticsService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from sidejudge.v1 import analytics_service_pb2 as pb
from sidejudge.v1.analytics_service_pb2_grpc import AnalyticsServiceServicer
from sidejudge_server.analytics.quality import (
    DEFAULT_SPAN,
    QualityEstimate,
    QualityFigures,
    query_quality,
)
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.names import judge_name, version_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.errors import OverloadedError, QueryError, QueryLimitError
from sidejudge_storage import (
    QualityQuery,
    QueryEnd,
    QueryFailedError,
    QueryRefusedError,
    Storage,
    TooManyQueriesError,
)
from sidejudge_storage import QueryLimitError as StorageLimitError

__all__ = ["AnalyticsServicer"]

MAX_SQL_CHARS: Final = 20_000
MAX_ROWS: Final = 1_000_000
DEFAULT_ROWS: Final = 10_000
DEFAULT_TIMEOUT_S: Final = 10.0
MIN_TIMEOUT_S: Final = 0.01
MAX_TIMEOUT_S: Final = 60.0

_Request = pb.QueryQualityRequest
_BUCKETS: Final = {
    _Request.BUCKET_UNSPECIFIED: "",
    _Request.BUCKET_HOUR: "hour",
    _Request.BUCKET_DAY: "day",
    _Request.BUCKET_WEEK: "week",
    _Request.BUCKET_MONTH: "month",
}
_DIMENSIONS: Final = {
    _Request.DIMENSION_JUDGE: "judge_id",
    _Request.DIMENSION_JUDGE_VERSION: "version",
    _Request.DIMENSION_MODEL: "model",
    _Request.DIMENSION_LABEL: "label",
}


_COUNTS: Final = (
    "evaluations",
    "passed",
    "partial",
    "failed",
    "labelled",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "lm_calls",
)


class AnalyticsServicer(AnalyticsServiceServicer):
    """Converts and delegates to `analytics` and to the storage's query runner."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._max_text_chars = settings.server.max_text_chars

    async def QueryQuality(
        self, request: pb.QueryQualityRequest, context: object
    ) -> pb.QueryQualityResponse:
        """Return figures by time and slice."""
        query = _query(Checker(self._max_text_chars), request)
        figures = await query_quality(self._storage, query)
        wanted = set(request.group_by)
        return pb.QueryQualityResponse(rows=[_row(f, wanted) for f in figures])

    async def ExecuteQuery(
        self, request: pb.ExecuteQueryRequest, context: object
    ) -> AsyncGenerator[pb.ExecuteQueryResponse, None]:
        """Run a SELECT and stream its result."""
        checker = Checker(self._max_text_chars)
        sql = checker.text("sql", request.sql, limit=MAX_SQL_CHARS, required=True)
        rows = request.max_rows or DEFAULT_ROWS
        checker.whole("max_rows", rows, low=1, high=MAX_ROWS)
        timeout_s = DEFAULT_TIMEOUT_S
        if request.HasField("timeout"):
            timeout_s = request.timeout.seconds + request.timeout.nanos / 1e9
            if not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
                checker.add("timeout", "must be 10 ms to 60 s")
        checker.raise_if_any()
        running = self._storage.queries.run(sql, max_rows=rows, timeout_s=timeout_s)
        try:
            async with aclosing(running) as pieces:
                async for piece in pieces:
                    yield _piece(piece)
        except QueryRefusedError as error:
            raise QueryError(
                f"{error}; read only the documented views, with one SELECT",
                reason="QUERY_REFUSED",
                metadata={"problem": str(error)},
            ) from error
        except QueryFailedError as error:
            raise QueryError(
                str(error), reason="QUERY_FAILED", metadata={"problem": str(error)}
            ) from error
        except StorageLimitError as error:
            limit = "memory" if "memory" in str(error) else "time"
            raise QueryLimitError(
                f"{error}; aggregate or filter more",
                reason="QUERY_LIMIT_EXCEEDED",
                metadata={"limit": limit},
            ) from error
        except TooManyQueriesError as error:
            raise OverloadedError(
                str(error), reason="OVERLOADED", retry_after_s=1.0
            ) from error


def _piece(piece: bytes | QueryEnd) -> pb.ExecuteQueryResponse:
    if isinstance(piece, bytes):
        return pb.ExecuteQueryResponse(arrow_ipc=piece)
    response = pb.ExecuteQueryResponse(
        summary=pb.QuerySummary(rows=piece.rows, truncated=piece.truncated)
    )
    response.summary.duration.FromTimedelta(timedelta(seconds=piece.seconds))
    return response


def _query(checker: Checker, request: pb.QueryQualityRequest) -> QualityQuery:
    judge_id = checker.judge("judge", request.judge, required=False)
    version = checker.version("judge_version", request.judge_version, required=False)
    if judge_id and version and version.judge_id != judge_id:
        checker.add("judge_version", f"is not a version of judges/{judge_id}")
    bucket = checker.enum("bucket", request.bucket, _Request.Bucket.DESCRIPTOR)
    for index, dimension in enumerate(request.group_by):
        checker.enum(
            f"group_by[{index}]",
            dimension,
            _Request.Dimension.DESCRIPTOR,
            required=True,
        )
    labels = checker.labels("labels", request.labels)
    label_key = checker.text("label_key", request.label_key, limit=128)
    end = datetime.now(UTC)
    if request.HasField("end_time"):
        end = checker.time("end_time", request.end_time) or end
    start = None
    if request.HasField("start_time"):
        start = checker.time("start_time", request.start_time)
    checker.raise_if_any()
    wanted = [_DIMENSIONS[_Request.Dimension.ValueType(d)] for d in request.group_by]
    if "version" in wanted:
        wanted.append("judge_id")  # versions of two judges are not the same
    return QualityQuery(
        start=start or end - DEFAULT_SPAN,
        end=end,
        bucket=_BUCKETS[_Request.Bucket.ValueType(bucket)],
        group_by=tuple(dict.fromkeys(wanted)),
        judge_id=version.judge_id if version else judge_id,
        version=version.version if version else None,
        model=request.model or None,
        labels=labels,
        label_key=label_key,
    )


def _row(
    figures: QualityFigures, wanted: set[pb.QueryQualityRequest.Dimension.ValueType]
) -> pb.QualityRow:
    key, sums, latency = figures.key, figures.sums, figures.latency_ms
    row = pb.QualityRow(
        bucket_time=timestamp(key.bucket),
        model=key.model or "",
        label_value=key.label or "",
        mean_score=figures.mean_score,
        brier_score=figures.brier_score,
        calibration_error=figures.calibration_error,
        latency_ms_p50=latency.get(0.5),
        latency_ms_p90=latency.get(0.9),
        latency_ms_p95=latency.get(0.95),
        latency_ms_p99=latency.get(0.99),
        cost_usd=figures.cost_usd,
    )
    for name in _COUNTS:
        setattr(row, name, int(sums[name]))
    if key.judge_id is not None and _Request.DIMENSION_JUDGE in wanted:
        row.judge = judge_name(key.judge_id)
    if key.judge_id is not None and key.version is not None:
        row.judge_version = version_name(key.judge_id, key.version)
    for name, estimate in (
        ("agreement", figures.agreement),
        ("true_positive_rate", figures.true_positive_rate),
        ("true_negative_rate", figures.true_negative_rate),
    ):
        if estimate is not None:
            getattr(row, name).CopyFrom(_estimate(estimate))
    return row


def _estimate(estimate: QualityEstimate) -> pb.QualityEstimate:
    return pb.QualityEstimate(
        estimate=estimate.estimate,
        low=estimate.low,
        high=estimate.high,
        labels=estimate.labels,
    )
