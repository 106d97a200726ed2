"""The options of `sidejudge experiments`."""

from __future__ import annotations

import argparse
from typing import Any

from sidejudge_server.cli.options import (
    add_author,
    add_client,
    declare,
    group,
    key_value,
)

__all__ = ["add_experiments"]

_DECISIONS = ["ship", "reject", "futile", "guardrail", "invalid"]


def add_experiments(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge experiments` with its actions."""
    experiments = group(
        commands, "experiments", "Compare judge versions, or what you name."
    )
    _add_create(experiments)
    listed = declare(
        experiments, "list", "experiments:list_all", "List experiments, newest first."
    )
    listed.add_argument("--judge", metavar="JUDGE")
    listed.add_argument("--state", choices=["draft", "running", "concluded"])
    add_client(listed)
    show = declare(experiments, "get", "experiments:show", "Show an experiment.")
    _add_name(show)
    start = declare(experiments, "start", "experiments:start", "Start a draft.")
    add_author(start)
    _add_name(start)
    end = declare(experiments, "conclude", "experiments:conclude", "End an experiment.")
    end.add_argument(
        "--decision", choices=_DECISIONS, help="default: what the analysis decided"
    )
    end.add_argument("--winner", default="", metavar="ARM")
    end.add_argument(
        "--deploy-winner", action="store_true", help="make the winner serve"
    )
    add_author(end)
    _add_name(end)
    assign = declare(
        experiments, "assign", "experiments:assign", "Say which arm a subject has."
    )
    _add_name(assign)
    assign.add_argument("subject", metavar="SUBJECT")
    outcome = declare(
        experiments, "outcome", "experiments:outcome", "Record what was measured."
    )
    _add_name(outcome)
    outcome.add_argument("subject", metavar="SUBJECT")
    outcome.add_argument("values", nargs="+", type=key_value, metavar="METRIC=VALUE")
    outcome.add_argument("--arm", default="", help="needed in shadow mode")
    analyze = declare(
        experiments, "analyze", "experiments:analyze", "Say what is known now."
    )
    _add_name(analyze)
    watch = declare(
        experiments, "watch", "experiments:watch", "Follow an experiment to its end."
    )
    watch.add_argument("--from-start", action="store_true", help="begin with the log")
    _add_name(watch)
    _add_plan(experiments)


def _add_create(experiments: Any) -> None:  # noqa: ANN401 - as above
    create = declare(
        experiments, "create", "experiments:create", "Create an experiment as a draft."
    )
    create.add_argument("experiment", metavar="ID")
    create.add_argument("--judge", metavar="JUDGE", help="compare versions of a judge")
    create.add_argument(
        "--candidate",
        action="append",
        type=int,
        default=[],
        metavar="VERSION",
        help="a version against the deployed one; may be repeated",
    )
    create.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME[=WEIGHT]",
        help="an arm of your own, the baseline first; may be repeated",
    )
    create.add_argument("--mode", choices=["shadow", "split", "rollout"])
    create.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME:KIND[:ROLE[:DIRECTION]]",
        help="kind binary, score or positive; role primary (default for the first),"
        " guardrail or exploratory; direction higher (default) or lower",
    )
    create.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="SHARE:UNITS",
        help="of a rollout; may be repeated",
    )
    create.add_argument("--namespace", default="")
    create.add_argument("--traffic-share", type=float, metavar="SHARE")
    create.add_argument("--shadow-share", type=float, metavar="SHARE")
    create.add_argument("--alpha", type=float)
    create.add_argument("--min-improvement", type=float, metavar="SIZE")
    create.add_argument("--max-units", type=int, metavar="N")
    create.add_argument("--max-days", type=float, metavar="DAYS")
    create.add_argument(
        "--act", action="store_true", help="act on the decision without being asked"
    )
    create.add_argument("--description", default="")
    create.add_argument("--start", action="store_true", help="start it at once")
    add_client(create)


def _add_plan(experiments: Any) -> None:  # noqa: ANN401 - as above
    plan = declare(
        experiments, "plan", "experiments:plan", "Say how many labels it would take."
    )
    plan.add_argument("--judge", metavar="JUDGE", help="take the rate from its records")
    plan.add_argument("--baseline-rate", type=float, metavar="RATE")
    plan.add_argument("--min-improvement", type=float, metavar="SIZE")
    plan.add_argument("--loss-rate", type=float, metavar="RATE")
    plan.add_argument("--alpha", type=float)
    plan.add_argument("--power", type=float)
    plan.add_argument("--labels-per-day", type=float, metavar="N")
    plan.add_argument("--max-labels", type=int, metavar="N")
    add_client(plan)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="ID")
    add_client(parser)
