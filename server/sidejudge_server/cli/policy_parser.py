"""The options of `sidejudge policy`."""

from __future__ import annotations

import argparse
from typing import Any

from sidejudge_server.cli.options import (
    add_budget,
    add_client,
    add_search,
    declare,
    group,
)

__all__ = ["add_policy"]


def add_policy(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge policy` with its actions."""
    policy = group(commands, "policy", "When a judge is optimized by itself.")
    show = declare(
        policy, "show", "policy:show", "Show the policy and what it waits for."
    )
    show.add_argument("judge", metavar="JUDGE")
    add_client(show)

    change = declare(
        policy, "set", "policy:set_policy", "Change what is named; the rest stays."
    )
    change.add_argument("judge", metavar="JUDGE")
    change.add_argument(
        "--enabled",
        action=argparse.BooleanOptionalAction,
        help="whether it starts runs (a new policy does not)",
    )
    change.add_argument(
        "--min-new-examples",
        type=int,
        metavar="N",
        help="accepted examples since the last run (a new policy: 50)",
    )
    change.add_argument(
        "--min-disagreements",
        type=int,
        metavar="N",
        help="of these, how many the judge had got wrong (a new policy: 5)",
    )
    change.add_argument(
        "--cool-down",
        type=float,
        metavar="HOURS",
        help="from the end of a run to the next start (a new policy: 6)",
    )
    change.add_argument(
        "--deploy-if-better",
        action=argparse.BooleanOptionalAction,
        help="whether it deploys what the gate says is better (a new policy does not)",
    )
    add_search(change)
    add_budget(change)
    add_client(change)

    pause = declare(policy, "pause", "policy:pause", "Start nothing until resumed.")
    pause.add_argument("judge", metavar="JUDGE")
    pause.add_argument("--reason", default="", help="who and why")
    add_client(pause)
    resume = declare(policy, "resume", "policy:resume", "End a pause.")
    resume.add_argument("judge", metavar="JUDGE")
    add_client(resume)
