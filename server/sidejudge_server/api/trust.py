"""TrustService."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import trust_service_pb2 as pb
from sidejudge.v1.trust_service_pb2_grpc import TrustServiceServicer
from sidejudge_server.api.convert_report import report_message
from sidejudge_server.api.convert_trust import (
    calibration_message,
    certificate_message,
    figure_message,
    selection_target,
)
from sidejudge_server.api.names import VersionName, version_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.trust.reliabilities import Reliabilities

__all__ = ["TrustServicer"]

_EPSILON: Final = 0.15
"""Of the alternative annotator test, beside skilled annotators."""


class TrustServicer(TrustServiceServicer):
    """Converts and delegates to `trust`."""

    def __init__(
        self, reliabilities: Reliabilities, judges: JudgeRegistry, settings: Settings
    ) -> None:
        self._reliabilities = reliabilities
        self._judges = judges
        self._max_text_chars = settings.server.max_text_chars

    async def GetConfidenceCalibration(
        self, request: pb.GetConfidenceCalibrationRequest, context: object
    ) -> pb.GetConfidenceCalibrationResponse:
        """Say what is known of a version's confidence."""
        checker = Checker(self._max_text_chars)
        of = self._version(checker, request.name)
        found = self._reliabilities.find(of.judge_id, of.version)
        return pb.GetConfidenceCalibrationResponse(
            judge_version=version_name(of.judge_id, of.version),
            model=self._reliabilities.model,
            calibration=calibration_message(found),
            agreement=found.agreed / found.labels if found and found.labels else None,
        )

    async def CertifySelection(
        self, request: pb.CertifySelectionRequest, context: object
    ) -> pb.CertifySelectionResponse:
        """Say which share of a version's answers meets a target."""
        checker = Checker(self._max_text_chars)
        target = selection_target(checker, "selection", request.selection)
        of = self._version(checker, request.name)
        certificate = await self._reliabilities.certificate(
            of.judge_id, of.version, target
        )
        return pb.CertifySelectionResponse(
            judge_version=version_name(of.judge_id, of.version),
            model=self._reliabilities.model,
            certificate=certificate_message(certificate),
        )

    async def GetJudgeReport(
        self, request: pb.GetJudgeReportRequest, context: object
    ) -> pb.GetJudgeReportResponse:
        """Put a version beside people."""
        checker = Checker(self._max_text_chars)
        epsilon = request.epsilon or _EPSILON
        if not 0 < epsilon < 1:
            checker.add("epsilon", "must be above 0 and below 1")
        of = self._version(checker, request.name)
        report = await self._reliabilities.report(
            of.judge_id,
            of.version,
            audit_only=not request.include_picked,
            slice_key=request.slice_label,
            epsilon=epsilon,
        )
        return report_message(
            report,
            judge_version=version_name(of.judge_id, of.version),
            model=self._reliabilities.model,
        )

    async def GetJudgeConsistency(
        self, request: pb.GetJudgeConsistencyRequest, context: object
    ) -> pb.GetJudgeConsistencyResponse:
        """Say how far a version agrees with itself."""
        of = self._version(Checker(self._max_text_chars), request.name)
        found = await self._reliabilities.consistency(of.judge_id, of.version)
        return pb.GetJudgeConsistencyResponse(
            judge_version=version_name(of.judge_id, of.version),
            model=self._reliabilities.model,
            evaluations=found.evaluations,
            samples=found.samples,
            within_item_variance=figure_message(found.within),
            noise_share=figure_message(found.noise_share),
            flip_rate=figure_message(found.flip_rate),
            reason=found.reason,
        )

    def _version(self, checker: Checker, name: str) -> VersionName:
        """Return the version that is meant, which exists."""
        judge_id, number = None, None
        if "/versions/" in name:
            named = checker.version("name", name)
            judge_id, number = (named.judge_id, named.version) if named else (None, 0)
        else:
            judge_id = checker.judge("name", name)
        version = self._judges.get_version(checker.passed(judge_id), number)
        return VersionName(version.judge_id, version.version)
