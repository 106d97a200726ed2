"""Sufficient statistics of experiments, aggregated where the rows are."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader
from sidejudge_storage.records import ExperimentLabelRecord
from sidejudge_storage.tables import EXPERIMENT_LABELS, naive_utc

__all__ = [
    "FALSE_POSITIVE_VALUE",
    "QUALITY_VALUE",
    "ArmCalls",
    "ExperimentStatisticsReader",
    "JudgedSums",
    "LabelRate",
    "MetricStatistics",
    "StageCounts",
    "UnitMoments",
]

_LATEST = """
    SELECT evaluation_id, arm_id, max_by(unit, feedback_id) AS unit,
        max_by(stage, feedback_id) AS stage, max_by(quality, feedback_id) AS quality,
        max_by(label, feedback_id) AS label, arg_max_null(judged, feedback_id) AS judged,
        arg_max_null(confidence, feedback_id) AS confidence,
        max_by(answered, feedback_id) AS answered, min(feedback_id) AS arrival
    FROM experiment_labels WHERE experiment_id = ? GROUP BY evaluation_id, arm_id
"""
"""The labels that count: of each evaluation and arm the newest. (max_by passes over NULLs.)"""

QUALITY_VALUE, FALSE_POSITIVE_VALUE = "quality", "false_positive"
_LABEL_VALUES = {
    QUALITY_VALUE: ("quality", "true"),
    # Of items that people passed: did the arm fail them?
    FALSE_POSITIVE_VALUE: (
        "CAST(judged < 0.5 AS DOUBLE)",
        "label >= 0.5 AND judged IS NOT NULL",
    ),
}


@dataclass(frozen=True, slots=True)
class ArmCalls:
    """Calls of an arm, answered and in shadow; sums of natural logarithms of what is above 0."""

    arm_id: str
    evaluations: int
    failures: int
    latency_n: int
    latency_log_sum: float
    latency_log_squares: float
    latency_ms_p50: float | None
    cost_n: int
    cost_log_sum: float
    cost_log_squares: float
    cost_sum: float
    priced: int


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """Values of an arm's units; of metrics above 0 their natural logarithms."""

    n: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class MetricStatistics:
    """A metric by arm.

    Attributes:
        moments: By arm, over units; a unit's repeats are averaged first.
        values: Number of units by arm and value, ascending; empty for metrics above 0.
        differences: Number of pairs by candidate and difference to the baseline, ascending; for
            metrics above 0 the sign of the difference.
    """

    moments: dict[str, UnitMoments]
    values: dict[str, tuple[tuple[float, int], ...]]
    differences: dict[str, tuple[tuple[float, int], ...]]


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Labelled units of an arm in a stage whose answer went out, and how many of them failed."""

    stage: int
    arm_id: str
    units: int
    failures: int


@dataclass(frozen=True, slots=True)
class JudgedSums:
    """Sums over labelled items (y the label's value, f the judgment's) and judgments without label.

    ``binary`` says whether all of these numbers are 0 or 1.
    """

    arm_id: str
    n: int
    y: float
    yy: float
    f: float
    ff: float
    yf: float
    unlabelled: int
    fu: float
    ffu: float
    binary: bool


@dataclass(frozen=True, slots=True)
class LabelRate:
    """Labelled evaluations of a judge's deployed version: how many, how good, since when."""

    labels: int
    agreement: float | None
    days: float


class ExperimentStatisticsReader(Reader[ExperimentLabelRecord]):
    """Aggregates what an analysis is made of."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EXPERIMENT_LABELS)

    async def size(self, experiment_id: str, *, since: datetime) -> tuple[int, int]:
        """Return a number that grows with each call or assignment, and one with each label or outcome.

        Args:
            experiment_id: The experiment.
            since: Its start: older rows need not be looked at.
        """
        start = naive_utc(since)
        rows = await self._rows(
            """SELECT
                (SELECT count(*) FROM evaluations WHERE experiment_id = ? AND created_at >= ?)
                + (SELECT count(*) FROM shadow_judgments
                    WHERE experiment_id = ? AND created_at >= ?)
                + (SELECT count(*) FROM experiment_failures WHERE experiment_id = ?)
                + (SELECT count(*) FROM experiment_assignments WHERE experiment_id = ?),
                (SELECT count(*) FROM experiment_labels WHERE experiment_id = ?)
                + (SELECT count(*) FROM experiment_outcomes WHERE experiment_id = ?)""",
            [experiment_id, start, experiment_id, start, *[experiment_id] * 4],
        )
        return rows[0][0], rows[0][1]

    async def calls(self, experiment_id: str, *, since: datetime) -> list[ArmCalls]:
        """Return the calls of all arms that had any.

        Args:
            experiment_id: The experiment.
            since: Its start: older rows need not be looked at.
        """
        start = naive_utc(since)
        rows = await self._rows(
            """WITH calls AS (
                SELECT arm_id, lm_latency_ms, cost_usd FROM evaluations
                WHERE experiment_id = ? AND created_at >= ? AND arm_id IS NOT NULL
                UNION ALL
                SELECT arm_id, lm_latency_ms, cost_usd FROM shadow_judgments
                WHERE experiment_id = ? AND created_at >= ?
            ), answered AS (
                SELECT arm_id, count(*) AS evaluations,
                    count(*) FILTER (lm_latency_ms > 0) AS latency_n,
                    coalesce(sum(ln(lm_latency_ms)) FILTER (lm_latency_ms > 0), 0) AS latency_log_sum,
                    coalesce(sum(ln(lm_latency_ms) ** 2) FILTER (lm_latency_ms > 0), 0)
                        AS latency_log_squares,
                    approx_quantile(lm_latency_ms, 0.5) AS latency_ms_p50,
                    count(*) FILTER (cost_usd > 0) AS cost_n,
                    coalesce(sum(ln(cost_usd)) FILTER (cost_usd > 0), 0) AS cost_log_sum,
                    coalesce(sum(ln(cost_usd) ** 2) FILTER (cost_usd > 0), 0) AS cost_log_squares,
                    coalesce(sum(cost_usd), 0) AS cost_sum, count(cost_usd) AS priced
                FROM calls GROUP BY arm_id
            ), failed AS (
                SELECT arm_id, count(*) AS failures FROM experiment_failures
                WHERE experiment_id = ? GROUP BY arm_id
            )
            SELECT arm_id, coalesce(evaluations, 0), coalesce(failures, 0),
                coalesce(latency_n, 0), coalesce(latency_log_sum, 0),
                coalesce(latency_log_squares, 0), latency_ms_p50, coalesce(cost_n, 0),
                coalesce(cost_log_sum, 0), coalesce(cost_log_squares, 0), coalesce(cost_sum, 0),
                coalesce(priced, 0)
            FROM answered FULL JOIN failed USING (arm_id) ORDER BY arm_id""",
            [experiment_id, start, experiment_id, start, experiment_id],
        )
        return [ArmCalls(*row) for row in rows]

    async def label_metric(
        self, experiment_id: str, value: str, *, baseline: str, paired: bool
    ) -> MetricStatistics:
        """Return a metric that is made of labels.

        Args:
            experiment_id: The experiment.
            value: ``QUALITY_VALUE`` or ``FALSE_POSITIVE_VALUE``.
            baseline: The arm that the others are compared with.
            paired: Whether units have both arms; else the k-th units in order of arrival make a
                pair.
        """
        of_row, condition = _LABEL_VALUES[value]
        units = (
            f"SELECT unit, arm_id, avg({of_row}) AS value, min(arrival) AS arrival"  # noqa: S608 - texts are ours, values are bound
            f" FROM ({_LATEST}) WHERE {condition} GROUP BY unit, arm_id"
        )
        return await self._metric(
            units, [experiment_id], baseline=baseline, paired=paired, positive=False
        )

    async def outcome_metric(
        self,
        experiment_id: str,
        metric: str,
        *,
        baseline: str,
        paired: bool,
        positive: bool,
    ) -> MetricStatistics:
        """Return a metric that callers record; see `label_metric`.

        Args:
            experiment_id: The experiment.
            metric: Its name.
            baseline: The arm that the others are compared with.
            paired: Whether subjects have an outcome for both arms.
            positive: Whether it is above 0 without bound: moments are of logarithms then.
        """
        value = "avg(ln(value))" if positive else "avg(value)"
        units = (
            f"SELECT subject AS unit, arm_id, {value} AS value, min(created_at) AS arrival"  # noqa: S608 - texts are ours, values are bound
            " FROM experiment_outcomes WHERE experiment_id = ? AND metric = ?"
            " GROUP BY subject, arm_id"
        )
        return await self._metric(
            units,
            [experiment_id, metric],
            baseline=baseline,
            paired=paired,
            positive=positive,
        )

    async def stages(self, experiment_id: str, metric: str | None) -> list[StageCounts]:
        """Return labelled units and failures by stage and arm.

        Args:
            experiment_id: The experiment.
            metric: The outcome that says 0 for a failure; None for labels (quality below 0.5).
        """
        if metric is None:
            source = (
                "SELECT stage, arm_id, unit, avg(quality) AS value"  # noqa: S608 - texts are ours, values are bound
                f" FROM ({_LATEST}) WHERE answered GROUP BY stage, arm_id, unit"
            )
            params: list[object] = [experiment_id]
        else:
            source = (
                "SELECT stage, arm_id, subject AS unit, avg(value) AS value"
                " FROM experiment_outcomes WHERE experiment_id = ? AND metric = ?"
                " GROUP BY stage, arm_id, subject"
            )
            params = [experiment_id, metric]
        rows = await self._rows(
            "SELECT stage, arm_id, count(*), count(*) FILTER (value < 0.5)"  # noqa: S608 - texts are ours, values are bound
            f" FROM ({source}) GROUP BY ALL ORDER BY ALL",
            params,
        )
        return [StageCounts(*row) for row in rows]

    async def judged(
        self, experiment_id: str, *, since: datetime, own_arms: bool
    ) -> list[JudgedSums]:
        """Return labels beside judgments by arm, for estimates with the judge's help.

        Args:
            experiment_id: The experiment.
            since: Its start.
            own_arms: True for arms of the caller: f is the judge's answer. False for judge
                versions: y is whether the answer agrees with the label, and f whether its
                confidence is at least the median of the arm's confidences.
        """
        answer = (
            "CASE verdict WHEN 'pass' THEN 1.0 WHEN 'partial' THEN 0.5"
            " WHEN 'fail' THEN 0.0 ELSE score END"
            if own_arms
            else "confidence"
        )
        labelled = "judged" if own_arms else "confidence"
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""WITH latest AS ({_LATEST}),
            items AS (
                SELECT evaluation_id, arm_id, {answer} AS f FROM evaluations
                WHERE experiment_id = ? AND created_at >= ? AND arm_id IS NOT NULL
                UNION ALL
                SELECT evaluation_id, arm_id, {answer} AS f FROM shadow_judgments
                WHERE experiment_id = ? AND created_at >= ?
            ), cuts AS (
                SELECT arm_id, median(f) AS cut FROM items WHERE f IS NOT NULL GROUP BY arm_id
            ), l AS (
                SELECT arm_id, quality AS y,
                    {"judged" if own_arms else f"CAST({labelled} >= cut AS DOUBLE)"} AS f
                FROM latest JOIN cuts USING (arm_id) WHERE {labelled} IS NOT NULL
            ), u AS (
                SELECT i.arm_id, {"f" if own_arms else "CAST(f >= cut AS DOUBLE)"} AS f
                FROM items AS i JOIN cuts USING (arm_id)
                WHERE f IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM latest WHERE latest.evaluation_id = i.evaluation_id
                    AND latest.arm_id = i.arm_id
                )
            ), ls AS (
                SELECT arm_id, count(*) AS n, sum(y) AS y, sum(y * y) AS yy, sum(f) AS f,
                    sum(f * f) AS ff, sum(y * f) AS yf,
                    bool_and(y IN (0, 1) AND f IN (0, 1)) AS binary
                FROM l GROUP BY arm_id
            ), us AS (
                SELECT arm_id, count(*) AS unlabelled, sum(f) AS fu, sum(f * f) AS ffu,
                    bool_and(f IN (0, 1)) AS binary
                FROM u GROUP BY arm_id
            )
            SELECT arm_id, n, y, yy, ls.f, ff, yf, coalesce(unlabelled, 0), coalesce(fu, 0),
                coalesce(ffu, 0), ls.binary AND coalesce(us.binary, true)
            FROM ls LEFT JOIN us USING (arm_id) ORDER BY arm_id""",  # noqa: S608 - see above
            [
                experiment_id,
                experiment_id,
                naive_utc(since),
                experiment_id,
                naive_utc(since),
            ],
        )
        return [JudgedSums(*row) for row in rows]

    async def units(
        self, experiment_id: str, *, since: datetime, own_arms: bool
    ) -> list[tuple[int, str, int]]:
        """Return the number of units by stage and arm, for the sample ratio.

        Args:
            experiment_id: The experiment.
            since: Its start.
            own_arms: True for arms of the caller, whose units are those assigned; else they are
                the subjects of evaluations and of failed calls.
        """
        if own_arms:
            return await self._rows(
                "SELECT stage, arm_id, count(DISTINCT subject) FROM experiment_assignments"
                " WHERE experiment_id = ? GROUP BY ALL ORDER BY ALL",
                [experiment_id],
            )
        return await self._rows(
            """SELECT stage, arm_id, count(DISTINCT unit) FROM (
                SELECT stage, arm_id, if(subject = '', evaluation_id, subject) AS unit
                FROM evaluations
                WHERE experiment_id = ? AND created_at >= ? AND arm_id IS NOT NULL
                UNION ALL
                SELECT stage, arm_id,
                    if(subject = '', 'failure ' || row_number() OVER (), subject) AS unit
                FROM experiment_failures WHERE experiment_id = ? AND NOT shadow
            ) GROUP BY ALL ORDER BY ALL""",
            [experiment_id, naive_utc(since), experiment_id],
        )

    async def label_rate(
        self, judge_id: str, version: int, *, since: datetime
    ) -> LabelRate:
        """Return how often and how well people confirm a version."""
        rows = await self._rows(
            """SELECT count(*), avg(CASE WHEN f.score IS NULL
                    THEN CAST(f.verdict = e.verdict AS DOUBLE) ELSE 1 - abs(f.score - e.score) END),
                coalesce(epoch(max(f.created_at)) - epoch(min(f.created_at)), 0) / 86400
            FROM feedback AS f JOIN evaluations AS e USING (evaluation_id)
            WHERE f.judge_id = ? AND f.created_at >= ? AND e.version = ?""",
            [judge_id, naive_utc(since), version],
        )
        return LabelRate(*rows[0])

    async def _metric(
        self,
        units: str,
        params: Sequence[object],
        *,
        baseline: str,
        paired: bool,
        positive: bool,
    ) -> MetricStatistics:
        match = "b.unit = c.unit" if paired else "b.k = c.k"
        difference = (
            "sign(c.value - b.value)" if positive else "round(c.value - b.value, 12)"
        )
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""WITH units AS MATERIALIZED ({units}), numbered AS (
                SELECT *, row_number() OVER (PARTITION BY arm_id ORDER BY arrival, unit) AS k
                FROM units
            )
            SELECT 'moments' AS kind, arm_id, avg(value) AS value, count(*) AS n,
                coalesce(var_samp(value), 0) AS variance
            FROM units GROUP BY arm_id
            UNION ALL
            SELECT 'value', arm_id, round(value, 12) AS v, count(*), 0 FROM units
            WHERE NOT ? GROUP BY arm_id, v
            UNION ALL
            SELECT 'difference', c.arm_id, {difference} AS v, count(*), 0
            FROM numbered AS c JOIN numbered AS b ON {match}
            WHERE b.arm_id = ? AND c.arm_id <> ? GROUP BY c.arm_id, v
            ORDER BY kind, arm_id, value""",  # noqa: S608 - see above
            [*params, positive, baseline, baseline],
        )
        moments: dict[str, UnitMoments] = {}
        values: dict[str, list[tuple[float, int]]] = {}
        differences: dict[str, list[tuple[float, int]]] = {}
        for kind, arm_id, value, count, variance in rows:
            if kind == "moments":
                moments[arm_id] = UnitMoments(count, value, variance)
            else:
                into = values if kind == "value" else differences
                into.setdefault(arm_id, []).append((value, count))
        return MetricStatistics(
            moments,
            {arm: tuple(found) for arm, found in values.items()},
            {arm: tuple(found) for arm, found in differences.items()},
        )
