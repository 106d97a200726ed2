"""Options that several commands share, and how a command is declared."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = [
    "add_author",
    "add_budget",
    "add_client",
    "add_item",
    "add_search",
    "declare",
    "group",
    "key_value",
    "named_text",
]


def declare(
    commands: Any,  # noqa: ANN401 - argparse's own type is private
    name: str,
    handler: str,
    summary: str,
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: What add_subparsers returned.
        name: What people type.
        handler: ``module:function`` below `sidejudge_server.cli`, imported when it runs.
        summary: One line of help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary
    )
    parser.set_defaults(handler=handler)
    return parser


def group(commands: Any, name: str, summary: str) -> Any:  # noqa: ANN401 - as above
    """Add a command that only has subcommands, and return where they go."""
    parser = commands.add_parser(name, help=summary, description=summary)
    return parser.add_subparsers(
        dest=f"{name}_command", required=True, metavar="ACTION"
    )


def add_client(
    parser: argparse.ArgumentParser, *, timeout_s: float = 60.0, json: bool = True
) -> None:
    """Add the options of a command that talks to a sidecar."""
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="host:port or unix:/path of the sidecar (default: SIDEJUDGE_SERVER, else"
        " 127.0.0.1:50510)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=timeout_s,
        metavar="SECONDS",
        help="deadline of a call (default: %(default)g)",
    )
    if json:
        parser.add_argument(
            "--json", action="store_true", help="print JSON instead of a table"
        )


def add_author(parser: argparse.ArgumentParser) -> None:
    """Add who does it and why."""
    parser.add_argument("--author", default="", help="who does it")
    parser.add_argument("--reason", default="", help="why")


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add how much an optimization searches."""
    parser.add_argument("--trials", type=int, metavar="N", help="trials, 1 to 500")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="candidate instructions and demonstration sets, 2 to 50",
    )
    parser.add_argument(
        "--auto",
        choices=["light", "medium", "heavy"],
        help="a preset instead of --trials and --candidates",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed (server's default: 9)"
    )
    parser.add_argument(
        "--bootstrapped-demos",
        type=int,
        metavar="N",
        help="demonstrations made, 0 to 16",
    )
    parser.add_argument(
        "--labeled-demos", type=int, metavar="N", help="demonstrations taken, 0 to 32"
    )
    parser.add_argument(
        "--algorithm",
        choices=[
            "calibration",
            "labeled-demonstrations",
            "memory",
            "miprov2",
            "gepa",
            "auto",
        ],
        help="how to search (server's default: miprov2)",
    )
    parser.add_argument(
        "--no-early-stopping",
        action="store_true",
        help="score every candidate on all validation examples",
    )
    parser.add_argument(
        "--instruction-source",
        choices=["proposer", "curated"],
        help="where candidate instructions come from (default: the server decides)",
    )
    parser.add_argument(
        "--no-synthetic",
        action="store_true",
        help="leave synthetic examples out",
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add what an optimization may spend."""
    group = parser.add_argument_group(
        "budget", "What a run may spend; it stops before it would spend more."
    )
    group.add_argument(
        "--max-lm-calls", type=int, metavar="N", help="LM calls, retries included"
    )
    group.add_argument(
        "--max-tokens", type=int, metavar="N", help="prompt and generated tokens"
    )
    group.add_argument("--max-cost-usd", type=float, metavar="X", help="US dollars")
    group.add_argument(
        "--max-minutes",
        type=float,
        metavar="N",
        help="minutes at work (server's default: 30)",
    )
    group.add_argument("--max-trials", type=int, metavar="N", help="trials, 1 to 500")


def key_value(text: str) -> tuple[str, str]:
    """Read ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, value


def named_text(text: str) -> tuple[str, str]:
    """Read ``name=description``, the description may be missing."""
    name, _, description = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=description")
    return name, description


def add_item(parser: argparse.ArgumentParser) -> None:
    """Add the options that give an item to judge; `evaluate.read_item` reads them."""
    parser.add_argument("--artifact", help="what the agent made")
    parser.add_argument("--context", help="what the agent was asked")
    parser.add_argument("--ground-truth", help="what is known to be true")
    parser.add_argument(
        "--field",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="further input of a custom judge; repeatable",
    )
    parser.add_argument("--task-context", help="rubric: what the agent was asked")
    parser.add_argument("--agent-output", help="rubric: what the agent made")
    parser.add_argument(
        "--criterion",
        type=named_text,
        action="append",
        default=[],
        metavar="NAME=DESCRIPTION",
        help="rubric: what to look at; repeatable",
    )
    parser.add_argument(
        "--file",
        metavar="ITEM.json",
        help="read the inputs from a JSON file, - for stdin",
    )
