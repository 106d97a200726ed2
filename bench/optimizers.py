"""Our search beside plain ``dspy.MIPROv2``: time, LM calls, and what the winner is worth.

`make bench-optimizers` prints a table; ``--json FILE`` keeps the figures. Both have the same data,
judge module, metric, model, seed, numbers and calls at once; the language model is the simulated judge
(20 ms an answer) in a process of its own, which counts requests. The arms take turns, so that a busy
machine slows all of them. Nothing is asserted: the table says what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import numpy as np

from bench.processes import ROOT, simulated_judge
from bench.simulated_judge import TASKS, item_text, rightness
from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import (
    input_to_json,
    program_from_json,
    program_to_json,
)
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.prompt import render_messages
from sidejudge_server.judges.types import (
    ArtifactInput,
    JudgeInput,
    JudgeKind,
    JudgeProgram,
    RubricInput,
)
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import OptimizationConfig, make_plan
from sidejudge_server.optimization.spec import RunExample, RunSpec

PLAIN, WHOLE, RACING = "plain MIPROv2", "ours, everything scored", "ours"
ARMS = (PLAIN, WHOLE, RACING)
HELD_OUT = 1_000
TEST = 60
_FIRST_HELD_OUT = 100_000


@dataclass(frozen=True, slots=True)
class Result:
    """What one arm did on one task and seed.

    Attributes:
        seconds: Of the search: `compile()`, or from the baseline to the end of the search.
        process_s: From the start of the process to the same moment.
        calls: Requests that reached the model until then, all kinds.
        asked: Before identical ones were answered once; None if not counted.
        validation: Best mean metric on all validation examples.
        held_out: Exact mean metric of that program on 1,000 new items.
        dropped: Trials that were stopped early.
    """

    seconds: float
    process_s: float
    calls: int
    asked: int | None
    validation: float
    held_out: float
    dropped: int


def item(task: str, world: int, number: int) -> tuple[JudgeInput, str]:
    """Return an item and its label."""
    if TASKS[task].scores:
        label = f"{(0.07 + 0.061803 * number) % 1:.3f}"
        text = item_text(task, world, number, label)
        return RubricInput(task_context="A task.", agent_output=text), label
    label = "pass" if number % 2 else "fail"
    return ArtifactInput(artifact=item_text(task, world, number, label)), label


def examples(task: str, world: int, numbers: Sequence[int]) -> tuple[RunExample, ...]:
    """Return labelled items as a run gets them."""
    result = []
    for number in numbers:
        judged, label = item(task, world, number)
        labels: dict[str, Any] = (
            {"score": float(label)} if TASKS[task].scores else {"verdict": label}
        )
        result.append(RunExample(f"e{number}", input_to_json(judged), **labels))
    return tuple(result)


def make_spec(
    task: str, seed: int, *, base_url: str, directory: Path, options: argparse.Namespace
) -> RunSpec:
    """Return a run of a task; each seed has its own items, phrases and order."""
    scores = TASKS[task].scores
    plan = make_plan(
        OptimizationConfig(
            num_trials=options.trials, num_candidates=options.candidates, seed=seed
        ),
        scores=scores,
        train_count=options.train,
        validation_count=options.validation,
        curated_count=0,
        default_lm_calls=10**6,
        local=False,
        max_concurrency=options.threads,
        prompt_model=True,
    )
    kind = JudgeKind.RUBRIC if scores else JudgeKind.SAFETY
    train, validation = options.train, options.validation
    return RunSpec(
        optimization_id="bench",
        program_json=program_to_json(initial_program(JudgeSpec(kind))),
        train=examples(task, seed, range(train)),
        validation=examples(task, seed, range(train, train + validation)),
        test=examples(task, seed, range(50_000, 50_000 + TEST)),
        plan=plan,
        curated=(),
        task_lm=LMSettings(model="openai/simulated", base_url=base_url, api_key="k"),
        prompt_lm=None,
        model_dir=str(directory / "models"),
        work_dir=str(directory / "work"),
    )


def held_out(program: JudgeProgram, task: str, world: int) -> float:
    """Return the exact mean metric of a program on new items, without asking the model."""
    values = []
    for number in range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + HELD_OUT):
        messages = render_messages(
            program, item(task, world, number)[0], stated_confidence=False
        )
        values.append(rightness([asdict(m) for m in messages]))
    return statistics.fmean(values)


def wire_calls(base_url: str) -> int:
    """Return the requests that the model has had."""
    with urllib.request.urlopen(f"{base_url}/calls") as answer:  # noqa: S310 - our own process on loopback
        calls: int = json.load(answer)["calls"]
    return calls


def run_plain(spec: RunSpec, task: str, base_url: str, directory: Path) -> Result:
    """Run plain MIPROv2 in a process."""
    source, target = directory / "spec.json", directory / "result.json"
    source.write_text(json.dumps(spec.to_json()))
    before = wire_calls(base_url)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bench.plain_mipro", str(source), str(target)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "DSPY_CACHEDIR": str(directory / "dspy"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        },
    )
    elapsed = time.perf_counter() - started
    document = json.loads(target.read_text())
    return Result(
        seconds=document["seconds"],
        process_s=elapsed,
        calls=wire_calls(base_url) - before,
        asked=document["asked"],
        validation=document["best_score"],
        held_out=held_out(program_from_json(document["program"]), task, spec.plan.seed),
        dropped=0,
    )


async def _events(spec: RunSpec) -> list[tuple[float, dict[str, Any]]]:
    executor = LocalExecutor()
    started = time.perf_counter()
    await executor.submit(spec.optimization_id, spec.to_json())
    return [
        (time.perf_counter() - started, dict(event))
        async for event in executor.events(spec.optimization_id)
    ]


def run_ours(spec: RunSpec, task: str) -> Result:
    """Run our search in a worker process; the gate runs too, after what is measured."""
    events = asyncio.run(_events(spec))
    if events[-1][1]["kind"] != "result":
        raise RuntimeError(f"the run ended with {events[-1][1]}")
    at = {e["phase"]: (t, e) for t, e in events if e["kind"] == "phase_changed"}
    end, refitting = at["refitting"]
    trials = [e["trial"] for _, e in events if e["kind"] == "trial_completed"]
    improved = [e for _, e in events if e["kind"] == "best_improved"]
    best = improved[-1]["program"] if improved else spec.program_json
    # The map is fitted after the search, and plain MIPROv2 has none.
    start = program_from_json(spec.program_json)
    program = replace(program_from_json(best), score_map=start.score_map)
    return Result(
        seconds=end - at["baseline"][0],
        process_s=end,
        calls=refitting["progress"]["lm_calls"],
        asked=None,
        validation=max(t["score"] for t in trials if t["full_evaluation"]),
        held_out=held_out(program, task, spec.plan.seed),
        dropped=sum(t["stopped_early"] for t in trials),
    )


def compare(
    task: str, seed: int, *, base_url: str, options: argparse.Namespace
) -> dict[str, Result]:
    """Run all arms once; who begins changes with the seed."""
    results = {}
    turn = seed % len(ARMS)
    for arm in (*ARMS[turn:], *ARMS[:turn]):
        with tempfile.TemporaryDirectory(prefix="sidejudge-bench-") as name:
            directory = Path(name)
            # The original overwrites the first instruction that it asks for by the current one.
            model = (
                f"openai/simulated-{task}_{seed}-{ARMS.index(arm)}"
                f"-{options.candidates - 1}-{int(arm == PLAIN)}"
            )
            spec = make_spec(
                task, seed, base_url=base_url, directory=directory, options=options
            )
            spec = replace(spec, task_lm=replace(spec.task_lm, model=model))
            if arm == PLAIN:
                results[arm] = run_plain(spec, task, base_url, directory)
                continue
            spec = replace(spec, plan=replace(spec.plan, early_stopping=arm == RACING))
            results[arm] = run_ours(spec, task)
    return results


def summary(pairs: Sequence[Mapping[str, Result]], arm: str) -> dict[str, float]:
    """Return medians of an arm's ratios to plain MIPROv2, and paired differences of results."""

    def ratios(name: str) -> list[float]:
        return [getattr(p[arm], name) / getattr(p[PLAIN], name) for p in pairs]

    difference = np.array([p[arm].held_out - p[PLAIN].held_out for p in pairs])
    error = difference.std(ddof=1) / len(pairs) ** 0.5 if len(pairs) > 1 else np.nan
    return {
        "calls": statistics.median(ratios("calls")),
        "calls_worst": max(ratios("calls")),
        "seconds": statistics.median(ratios("seconds")),
        "seconds_worst": max(ratios("seconds")),
        "process_s": statistics.median(ratios("process_s")),
        "held_out_difference": float(difference.mean()),
        "held_out_error": float(error),
        "same_winner": sum(bool(d == 0) for d in difference),
    }


def table(results: Mapping[str, Sequence[Mapping[str, Result]]]) -> str:
    """Return Markdown: medians of each arm, then ratios."""
    lines = [
        "| task | arm | calls | seconds | with process | validation | held out | dropped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, pairs in results.items():
        for arm in ARMS:
            middle = {
                name: statistics.median(getattr(p[arm], name) for p in pairs)
                for name in Result.__dataclass_fields__
                if name != "asked"
            }
            lines.append(
                f"| {task} | {arm} | {middle['calls']:.0f} | {middle['seconds']:.2f} | "
                f"{middle['process_s']:.2f} | {middle['validation']:.3f} | "
                f"{middle['held_out']:.3f} | {middle['dropped']:.0f} |"
            )
    lines += [
        "",
        (
            "| task | arm | calls / plain | worst | seconds / plain | worst | with process | "
            "held out minus plain | same program |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, pairs in results.items():
        for arm in ARMS[1:]:
            s = summary(pairs, arm)
            lines.append(
                f"| {task} | {arm} | {s['calls']:.3f} | {s['calls_worst']:.3f} | "
                f"{s['seconds']:.3f} | {s['seconds_worst']:.3f} | {s['process_s']:.3f} | "
                f"{s['held_out_difference']:+.4f} +- {1.96 * s['held_out_error']:.4f} | "
                f"{s['same_winner']:.0f} of {len(pairs)} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--validation", type=int, default=60)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    start_fork_server()
    load = [os.getloadavg()[0]]
    results: dict[str, list[dict[str, Result]]] = {}
    with simulated_judge(options.latency_ms) as base_url:
        for task in options.tasks:
            results[task] = []
            for seed in range(1, options.seeds + 1):
                found = compare(task, seed, base_url=base_url, options=options)
                results[task].append(found)
                load.append(os.getloadavg()[0])
                print(task, seed, found[PLAIN].calls, found[RACING].calls, flush=True)
    print(
        f"\nLoad average {min(load):.1f} to {max(load):.1f}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, dspy {dspy.__version__}; {options.trials} trials, "
        f"{options.candidates} candidates, {options.train} training and "
        f"{options.validation} validation examples, {options.threads} calls at once, "
        f"{options.latency_ms:g} ms an answer, medians of {options.seeds} seeds.\n"
    )
    print(table(results))
    if options.json:
        document = {
            "options": {k: str(v) for k, v in vars(options).items()},
            "load": load,
            "results": {
                task: [{arm: asdict(r) for arm, r in p.items()} for p in pairs]
                for task, pairs in results.items()
            },
            "summary": {
                task: {arm: summary(pairs, arm) for arm in ARMS[1:]}
                for task, pairs in results.items()
            },
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
