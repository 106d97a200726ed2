"""A judge beside people, as messages."""

from __future__ import annotations

from collections.abc import Sequence

from sidejudge.v1 import optimization_pb2
from sidejudge.v1 import trust_service_pb2 as pb
from sidejudge_server.api.convert_common import verdict_value
from sidejudge_server.api.convert_trust import figure_message
from sidejudge_server.trust.report_types import Annotators, JudgeReport, Part

__all__ = ["report_message"]

_NO_LABELS = (
    "no audit item of this version with this model has a label; label what ListAuditItems shows,"
    " or set include_picked"
)


def report_message(
    report: JudgeReport, *, judge_version: str, model: str
) -> pb.GetJudgeReportResponse:
    """Return a report."""
    return pb.GetJudgeReportResponse(
        judge_version=judge_version,
        model=model,
        items=report.items,
        agreement=figure_message(report.agreement),
        true_positive_rate=figure_message(report.true_positive_rate),
        true_negative_rate=figure_message(report.true_negative_rate),
        balanced_accuracy=figure_message(report.balanced_accuracy),
        kappa=figure_message(report.kappa),
        confusion=[
            optimization_pb2.ConfusionCell(
                label=verdict_value(cell.label),
                verdict=verdict_value(cell.verdict),
                count=cell.items,
            )
            for cell in report.cells
        ],
        confidence_bins=[
            pb.ConfidenceBin(
                items=part.items,
                mean_confidence=part.mean_confidence,
                agreement=figure_message(part.agreement),
            )
            for part in report.bins
        ],
        mean_absolute_error=figure_message(report.mean_absolute_error),
        spearman=report.spearman,
        kendall_tau=report.kendall_tau,
        by_source=_parts(report.by_source),
        by_slice=_parts(report.by_slice),
        annotator_test=_test(report.annotators),
        reason="" if report.items else _NO_LABELS,
    )


def _parts(parts: Sequence[Part]) -> list[pb.ReportPart]:
    return [
        pb.ReportPart(
            name=part.name, items=part.items, agreement=figure_message(part.agreement)
        )
        for part in parts
    ]


def _test(annotators: Annotators) -> pb.AnnotatorTest:
    return pb.AnnotatorTest(
        annotators=annotators.annotators,
        items=annotators.items,
        winning_rate=annotators.winning_rate,
        advantage=annotators.advantage,
        may_replace=annotators.may_replace,
        reason=annotators.reason,
    )
