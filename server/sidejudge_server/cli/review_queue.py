"""`sidejudge review-queue`: what waits for labels, and what the labels say."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from sidejudge.v1 import review_service_pb2 as pb
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.evaluate import answer_text
from sidejudge_server.cli.names import judge_name, short, version_reference
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    number,
    print_message,
    print_table,
)

__all__ = ["annotators", "estimate", "list_items"]


def list_items(args: argparse.Namespace) -> int:
    """List what people should label next."""
    request = pb.ListReviewQueueRequest(
        judge=judge_name(args.judge),
        show_labelled=args.all,
        show_claimed=args.all,
    )
    with connect(args) as session:
        found = collect_pages(
            session.client.review.ListReviewQueue,
            request,
            "items",
            limit=args.limit,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(found)
        return 0
    print_table(
        ["evaluation", "judge said", ">worth", "why", ">drawn with", ">round", ">labels", "claimed by"],
        (
            (
                short(item.evaluation.name),
                answer_text(item.evaluation),
                number(item.worth, digits=2),
                ", ".join(_reason(r) for r in item.reasons),
                f"{item.inclusion_probability:.0%}",
                item.round,
                item.annotator_count,
                ", ".join(claim.annotator for claim in item.claims) or None,
            )
            for item in found.items
        ),
    )  # fmt: skip
    return 0


def estimate(args: argparse.Namespace) -> int:
    """Estimate how often people agree with a version."""
    weighting = pb.EstimateAgreementRequest.WEIGHTING_INVERSE_PROBABILITY
    if args.unweighted:
        weighting = pb.EstimateAgreementRequest.WEIGHTING_NONE
    request = pb.EstimateAgreementRequest(
        judge_version=version_reference(args.version),
        weighting=weighting,
        uniform_only=args.audit_only,
    )
    request.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=args.days))
    with connect(args) as session:
        found = session.client.review.EstimateAgreement(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    key_values(
        [
            (
                "agreement",
                f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
                if found.HasField("estimate")
                else None,
            ),
            ("cannot say", found.cannot_say),
            ("labels", f"{found.labelled} of {found.considered} evaluations"),
            ("rounds done", found.rounds),
            ("items waiting in others", found.waiting),
        ]
    )
    return 0


def annotators(args: argparse.Namespace) -> int:
    """Show how far people agree with each other."""
    request = pb.MeasureAnnotatorAgreementRequest(judge=judge_name(args.judge))
    request.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=args.days))
    with connect(args) as session:
        found = session.client.review.MeasureAnnotatorAgreement(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    key_values(
        [
            ("items", found.items),
            ("annotators", found.annotators),
            (
                "pairs that agree",
                f"{found.percent_agreement:.1%}"
                if found.HasField("percent_agreement")
                else None,
            ),
            (
                "Krippendorff's alpha",
                number(found.krippendorff_alpha)
                if found.HasField("krippendorff_alpha")
                else None,
            ),
            (
                "Gwet's AC1",
                f"{found.gwet_ac1:.3f} [{found.gwet_ac1_low:.3f}, {found.gwet_ac1_high:.3f}]"
                if found.HasField("gwet_ac1")
                else None,
            ),
            ("cannot say", found.cannot_say),
        ]
    )
    return 0


def _reason(value: pb.ReviewItem.Reason.ValueType) -> str:
    name = pb.ReviewItem.Reason.Name(value) if value in pb.ReviewItem.Reason.values() else str(value)  # fmt: skip
    return name.removeprefix("REASON_").lower().replace("_", " ")
