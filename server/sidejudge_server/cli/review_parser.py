"""The options of `sidejudge review` and `sidejudge review-queue`."""

from __future__ import annotations

from typing import Any

from sidejudge_server.cli.options import add_client, declare, group

__all__ = ["add_review"]


def add_review(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add both commands."""
    review = declare(
        commands, "review", "review:run", "Label what is worth a label, one by one."
    )
    review.add_argument("judge", metavar="JUDGE")
    review.add_argument(
        "--annotator", required=True, metavar="NAME", help="who labels; always the same"
    )
    review.add_argument(
        "--source", choices=["expert", "user", "downstream"], default="expert"
    )
    review.add_argument("--limit", type=int, metavar="N", help="stop after N labels")
    review.add_argument(
        "--annotators-per-item",
        type=int,
        default=1,
        metavar="N",
        help="label also what fewer than N others have (default: %(default)s)",
    )
    add_client(review, json=False)

    queue = group(commands, "review-queue", "What waits for labels, and what they say.")
    listing = declare(
        queue, "list", "review_queue:list_items", "List what to label next."
    )
    listing.add_argument("judge", metavar="JUDGE")
    listing.add_argument(
        "--all", action="store_true", help="labelled and claimed items too"
    )
    listing.add_argument("--limit", type=int, default=20, help="(default: %(default)s)")
    add_client(listing)
    estimate = declare(
        queue,
        "estimate",
        "review_queue:estimate",
        "Estimate how often people agree with a version.",
    )
    estimate.add_argument("version", metavar="JUDGE/NUMBER", help="such as relevance/3")
    estimate.add_argument("--days", type=float, default=30.0)
    estimate.add_argument(
        "--audit-only", action="store_true", help="labels of audit items alone"
    )
    estimate.add_argument(
        "--unweighted",
        action="store_true",
        help="count labels all alike; only with --audit-only",
    )
    add_client(estimate)
    annotators = declare(
        queue,
        "annotators",
        "review_queue:annotators",
        "Measure how far people agree with each other.",
    )
    annotators.add_argument("judge", metavar="JUDGE")
    annotators.add_argument("--days", type=float, default=30.0)
    add_client(annotators)
