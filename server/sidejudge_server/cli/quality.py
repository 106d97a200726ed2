"""`sidejudge bench quality`: compare a judge with labels that people gave."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from sidejudge.v1 import judge_service_pb2
from sidejudge_server.benchmark.bias import bias_probes
from sidejudge_server.benchmark.report import markdown, plain, summarise
from sidejudge_server.benchmark.runner import RunOptions, run_examples
from sidejudge_server.benchmark.sampling import sample
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_FAILED, EXIT_OK, CommandError
from sidejudge_server.cli.names import judge_name, short, version_name
from sidejudge_server.cli.printing import print_json, say
from sidejudge_server.cli.training import read_examples

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Judge a sample of the file and report; exit code 1 if some examples got no answer."""
    examples = sample(
        [e for e in read_examples(args.data) if e.origin != "synthetic"],
        seed=args.seed,
        limit=args.limit,
        max_words=args.max_words,
        balanced=args.balanced,
    )
    if not examples:
        raise CommandError(
            "no examples left to judge; allow more with --max-words, --limit"
        )
    judge = judge_name(args.judge)
    rows = args.out.with_suffix(".rows.jsonl") if args.out else None
    with connect(args) as session:
        serving = session.client.judges.GetJudge(
            judge_service_pb2.GetJudgeRequest(name=judge), timeout=session.timeout_s
        ).judge.deployed_version
        options = RunOptions(
            judge=judge,
            judge_version=version_name(judge, args.version)
            if args.version
            else serving,
            timeout_s=session.timeout_s,
            concurrency=args.concurrency,
            omit_reasoning=not args.reasoning,
            n_samples=args.samples,
        )
        try:
            with Progress(
                console=Console(stderr=True),
                disable=not sys.stderr.isatty(),
                transient=True,
            ) as progress:
                task = progress.add_task("judging", total=len(examples))
                result = run_examples(
                    session.client,
                    examples,
                    options,
                    rows_path=rows,
                    on_answer=lambda: progress.advance(task),
                )
        except (OSError, ValueError) as error:
            raise CommandError(str(error)) from error
    if not result.answers:
        first = result.failures[0]
        raise CommandError(f"no example got an answer; {first.code}: {first.detail}")
    figures = summarise(result.answers, seed=args.seed)
    facts = {
        "judge version": short(options.judge_version),
        "data": f"{args.data.name}, SHA-256 {_digest(args.data)}",
        "sample": f"{len(examples)} examples, seed {args.seed}"
        + (f", at most {args.max_words} words" if args.max_words else "")
        + (", balanced" if args.balanced else "")
        + (f", each judged {args.samples} times" if args.samples > 1 else ""),
    }
    probes = bias_probes(result.answers, model=result.model, seed=args.seed)
    document = {
        **{name.replace(" ", "_"): value for name, value in facts.items()},
        "model": result.model,
        "lm_calls": result.lm_calls,
        "lm_seconds": round(result.lm_seconds, 3),
        "failure_count": len(result.failures),
        "agreement": plain(figures),
        "biases": [asdict(probe) for probe in probes],
    }
    if args.out:
        args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if args.json:
        print_json(document)
    else:
        say(
            markdown(
                f"Agreement of {short(judge)}",
                figures,
                result,
                facts=facts,
                probes=probes,
            )
        )
    return EXIT_FAILED if result.failures else EXIT_OK


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
