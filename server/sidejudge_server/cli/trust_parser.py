"""The options of `sidejudge trust`."""

from __future__ import annotations

import argparse
from typing import Any

from sidejudge_server.cli.options import add_client, declare, group

__all__ = ["add_target", "add_trust"]


def add_trust(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge trust` with its actions."""
    trust = group(commands, "trust", "How far a judge's answers may be trusted.")
    _add_judge(declare(trust, "show", "trust:show", "Show what labels say."))
    certify = declare(
        trust, "certify", "trust:certify", "Show what meets a target, and why."
    )
    add_target(certify, default=0.9)
    _add_judge(certify)
    report = declare(trust, "report", "trust:report", "Put a judge beside people.")
    report.add_argument(
        "--include-picked",
        action="store_true",
        help="labels of items that somebody picked too",
    )
    report.add_argument(
        "--slice", default="", metavar="LABEL", help="split by a label of evaluations"
    )
    report.add_argument(
        "--epsilon",
        type=float,
        default=0.15,
        help="how much worse than an annotator it may be (default: 0.15)",
    )
    _add_judge(report)
    _add_judge(
        declare(
            trust,
            "consistency",
            "trust:consistency",
            "Show how far a judge agrees with itself.",
        )
    )


def add_target(parser: argparse.ArgumentParser, *, default: float | None) -> None:
    """Add the options of a target; without a default there is none unless it is named."""
    parser.add_argument(
        "--target-agreement",
        type=float,
        default=default,
        metavar="SHARE",
        help="share of accepted answers that agree with people, above 0.5 and below 1",
    )
    parser.add_argument(
        "--assurance",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="probability that this holds (default: 0.9)",
    )


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("judge", metavar="JUDGE")
    parser.add_argument("--version", metavar="N", help="default: the deployed one")
    add_client(parser)
