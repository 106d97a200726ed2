"""`sidejudge demo`: judge, correct, optimise, deploy if better; then leave it running to play with."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from sidejudge.v1 import optimization_pb2
from sidejudge_server.benchmark.sampling import sample
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.demo import story
from sidejudge_server.cli.demo.material import JUDGES, SEED, load, set_aside
from sidejudge_server.cli.demo.pacing import examples_that_fit, trials_that_fit
from sidejudge_server.cli.demo.sidecar import DemoSidecar, stop_running
from sidejudge_server.cli.failures import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
)
from sidejudge_server.cli.models import pull_with_progress
from sidejudge_server.cli.names import short
from sidejudge_server.cli.optimizations import print_run
from sidejudge_server.cli.optimize import search_config
from sidejudge_server.cli.printing import duration, say
from sidejudge_server.config import DEFAULT_MODEL, default_model_dir

__all__ = ["run"]

_DEFAULT_JUDGE = "faithfulness"
_LOCAL = "local/"
# All items set aside are one call; an embedded model may need seconds for each.
_CALL_TIMEOUT_S = 1800.0
# Small, for a small model; the number of trials is what the time allows.
_DEFAULT_SEARCH = {
    "candidates": 3,
    "bootstrapped_demos": 1,
    "labeled_demos": 4,
}


def run(args: argparse.Namespace) -> int:
    """Run the demo; exit code 1 if a step failed. Not getting better is no failure."""
    directory: Path = args.directory
    if args.stop:
        stopped = stop_running(directory)
        say(f"Stopped process {stopped.pid}." if stopped else "No demo is running.")
        return EXIT_OK
    judge = str(args.judge or _DEFAULT_JUDGE).removeprefix("judges/")
    if judge not in JUDGES:
        raise CommandError(
            f"the demo has data for {', '.join(JUDGES)}, not for {judge!r}",
            exit_code=EXIT_USAGE,
        )
    if args.minutes <= 0:
        raise CommandError("--minutes must be more than 0", exit_code=EXIT_USAGE)
    if args.corrections < 1:
        raise CommandError("--corrections must be at least 1", exit_code=EXIT_USAGE)
    config = _config(args)
    keep = args.keep if args.keep is not None else not os.environ.get("CI")
    if stopped := stop_running(directory):
        say(f"Stopped the demo of before, process {stopped.pid}.")
    lm = str(args.lm or os.environ.get("SIDEJUDGE_LM") or DEFAULT_MODEL)
    # Also when it is ended by a signal it must not leave its sidecar behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    began = time.monotonic()
    if lm.startswith(_LOCAL):
        pull_with_progress(lm.removeprefix(_LOCAL), default_model_dir(os.environ))
    say(f"1. A sidecar with {lm} on a fresh database in {directory}/")
    with DemoSidecar(directory, lm=lm) as sidecar:
        say(f"  it serves at {sidecar.address}")
        finished = _tell(
            sidecar.address,
            judge,
            config,
            args=args,
            end=began + 60 * args.minutes,
        )
        say(f"\nThe demo took {duration(timedelta(seconds=time.monotonic() - began))}.")
        if keep:
            sidecar.keep()
            _invite(sidecar.address, judge, finished, directory)
    succeeded = finished.state == optimization_pb2.Optimization.STATE_SUCCEEDED
    return EXIT_OK if succeeded else EXIT_FAILED


def _tell(
    address: str,
    judge: str,
    config: optimization_pb2.OptimizationConfig,
    *,
    args: argparse.Namespace,
    end: float,
) -> optimization_pb2.Optimization:
    examples = load(judge, limit=args.examples)
    material = set_aside(examples, count=min(args.corrections, args.examples))
    session_args = argparse.Namespace(server=address, timeout=_CALL_TIMEOUT_S)
    with connect(session_args) as session:
        say("\n2. Labelled examples of the other judges, written for sidejudge, go in")
        for name in JUDGES:
            if name != judge:
                story.import_starter_data(session, name, load(name))
        say(f"\n3. {judge} judges {len(material.judged)} items; one of them:")
        began = time.monotonic()
        judged = story.judge_sample(session, judge, material.judged)
        seconds = time.monotonic() - began
        say(
            f"  right on {judged.right} of {len(judged.pairs)};"
            f" {judged.lm_calls} LM calls, {seconds:.0f} s"
        )
        seconds_per_call = seconds / max(1, judged.lm_calls)
        recorded = story.correct(session, judged)
        say(f"\n4. {recorded} corrections and confirmations become training examples")
        fitting = examples_that_fit(
            seconds_per_call=seconds_per_call,
            seconds_left=end - time.monotonic(),
            available=len(examples),
        )
        if fitting < len(examples):
            say(f"  at {seconds_per_call:.1f} s a call {fitting} examples fit the time")
        others = sample(material.imported, seed=SEED, limit=fitting - recorded)
        story.import_starter_data(session, judge, others)
        training_set = story.show_readiness(session, judge)
        if not config.HasField("num_trials") and not config.auto:
            config.num_trials = trials_that_fit(
                training_set,
                seconds_per_call=seconds_per_call,
                seconds_left=end - time.monotonic(),
            )
        say("\n5. An optimization looks for a better version")
        finished = story.optimise(session, judge, config)
        print_run(finished)
        say(f"\n{story.outcome_text(finished)}")
        calls = judged.lm_calls + finished.progress.lm_calls
        say(f"{calls} LM calls in all.")
        return finished


def _config(args: argparse.Namespace) -> optimization_pb2.OptimizationConfig:
    """Return the search that was asked for; what was not, is sized for the default model."""
    chosen = dict(vars(args))
    for option, value in _DEFAULT_SEARCH.items():
        preset = args.auto and option in {"trials", "candidates"}
        if chosen[option] is None and not preset:
            chosen[option] = value
    return search_config(argparse.Namespace(**chosen))


def _invite(
    address: str,
    judge: str,
    finished: optimization_pb2.Optimization,
    directory: Path,
) -> None:
    program = sys.argv[0] if Path(sys.argv[0]).name == "sidejudge" else "sidejudge"
    to_server = f"--server {address}"
    item = (
        "--task-context 'Say when the shop opens.' --agent-output 'At nine.'"
        if judge == "rubric"
        else "--context 'When does the shop open?' --artifact 'It sells shoes.'"
        " --ground-truth 'The shop opens at nine and sells shoes.'"
    )
    where = (
        ""
        if directory == Path("sidejudge-demo")
        else f" --directory {shlex.quote(str(directory))}"
    )
    say(
        f"\nThe sidecar stays at {address}. Play with it:\n"
        f"  {program} evaluate {judge} {to_server} {item}\n"
        f"  {program} optimizations trials {short(finished.name)} {to_server}\n"
        f"  {program} judges versions {judge} {to_server}\n"
        f"Stop it:\n  {program} demo --stop{where}"
    )
