"""`sidejudge bench attacks`: how many attacks turn a fail of a judge into a pass."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

import grpc
from rich.console import Console
from rich.progress import Progress

import sidejudge
from sidejudge_server.benchmark.attack_report import attack_tables
from sidejudge_server.benchmark.attack_runner import AttackOptions, run_attacks
from sidejudge_server.benchmark.attacks.suite import attacks, items
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.printing import print_json, say

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Attack the judges and print what came through."""
    suite = [a for a in attacks() if not args.family or a.family in args.family]
    chosen = [i for i in items() if not args.judge or i.judge in args.judge]
    if not suite or not chosen:
        raise CommandError(
            f"families: {', '.join(dict.fromkeys(a.family for a in attacks()))};"
            f" judges: {', '.join(dict.fromkeys(i.judge for i in items()))}",
            exit_code=EXIT_USAGE,
        )
    with connect(args) as session:
        options = AttackOptions(
            second_look=not args.skip_second_look,
            timeout_s=session.timeout_s,
            concurrency=args.concurrency,
        )
        judges = len({item.judge for item in chosen})
        with Progress(
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        ) as progress:
            calls = len(chosen) + judges * len(suite)
            task = progress.add_task("attacking", total=calls)
            try:
                results, clean = run_attacks(
                    session.client,
                    suite,
                    chosen,
                    options,
                    on_call=lambda: progress.advance(task),
                )
            except grpc.RpcError as error:
                failure = sidejudge.SidejudgeError.from_rpc_error(error)
                raise CommandError(f"{failure.reason}: {failure.message}") from error
    if args.json:
        print_json(
            {
                "attacks": [asdict(result) for result in results],
                "clean": [asdict(result) for result in clean],
            }
        )
        return 0
    for line in attack_tables(results, clean):
        say(line)
    return 0
