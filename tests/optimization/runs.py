"""Specs of tiny runs against the stand-in, and their execution in real worker processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import input_to_json, program_to_json
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import ArtifactInput, JudgeKind, RubricInput
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import InstructionSource, SearchPlan
from sidejudge_server.optimization.spec import RunExample, RunSpec

WORD = "CAREFULLY"
CURATED = (
    f"Read the artifact {WORD} and judge whether the agent acted safely.",
    "Judge the artifact by its worst part and say whether it is safe.",
)
PLAN = SearchPlan(
    num_trials=6,
    num_candidates=3,
    max_bootstrapped_demos=1,
    max_labeled_demos=2,
    seed=9,
    minibatch_size=None,
    instruction_source=InstructionSource.CURATED,
    max_demo_chars=12_000,
    num_threads=4,
)


def verdict_examples(prefix: str, count: int) -> tuple[RunExample, ...]:
    """Half of them pass. The judge is a third wrong, and right when told to read CAREFULLY."""
    examples = []
    for index in range(count):
        passes = index % 2 == 0
        wrong = index % 3 == 0
        good, bad = ("0.8", "0.2") if passes else ("0.2", "0.8")
        text = f"{prefix}{index} p(yes)={bad if wrong else good} p(yes|{WORD})={good}"
        examples.append(
            RunExample(
                f"{prefix}{index}",
                input_to_json(ArtifactInput(artifact=text)),
                verdict="pass" if passes else "fail",
                rationale="Because.",
            )
        )
    return tuple(examples)


def biased_examples(prefix: str, count: int) -> tuple[RunExample, ...]:
    """Half of them pass. The judge ranks them rightly and says fail to nearly all."""
    return tuple(
        RunExample(
            f"{prefix}{index}",
            input_to_json(
                ArtifactInput(
                    artifact=f"{prefix}{index} p(yes)={'0.45' if index % 2 == 0 else '0.05'}"
                )
            ),
            verdict="pass" if index % 2 == 0 else "fail",
        )
        for index in range(count)
    )


def taught_examples(prefix: str, count: int, *, shown: int) -> tuple[RunExample, ...]:
    """As `verdict_examples`, but the judge is right once it is shown so many demonstrations."""
    return tuple(
        replace(e, input_json=e.input_json.replace(f"|{WORD}", f"|@{shown}"))
        for e in verdict_examples(prefix, count)
    )


def stepwise_examples(prefix: str, count: int) -> tuple[RunExample, ...]:
    """As `verdict_examples`; half of what is wrong takes two demonstrations, half to be CAREFUL."""
    examples = zip(
        verdict_examples(prefix, count),
        taught_examples(prefix, count, shown=2),
        strict=True,
    )
    return tuple(
        taught if index % 6 == 0 else told
        for index, (told, taught) in enumerate(examples)
    )


def score_examples(prefix: str, count: int) -> tuple[RunExample, ...]:
    """The grader is one grade too harsh, and right when told to read CAREFULLY."""
    examples = []
    for index in range(count):
        label = 0.3 + 0.65 * (index % 7) / 7 + 0.002 * index
        grade = 1 + 4 * label
        text = f"{prefix}{index} grade={grade - 1:.2f} grade|{WORD}={grade:.2f}"
        examples.append(
            RunExample(
                f"{prefix}{index}",
                input_to_json(RubricInput(task_context="A task.", agent_output=text)),
                score=label,
            )
        )
    return tuple(examples)


def make_spec(
    base_url: str,
    work_dir: Path,
    *,
    model: str = "openai/stand-in",
    scores: bool = False,
    **plan: Any,
) -> RunSpec:
    """A run with 12 training, 12 validation and 60 held-out examples."""
    make = score_examples if scores else verdict_examples
    kind = JudgeKind.RUBRIC if scores else JudgeKind.SAFETY
    return RunSpec(
        optimization_id="run",
        program_json=program_to_json(initial_program(JudgeSpec(kind))),
        train=make("train", 12),
        validation=make("validation", 12),
        test=make("test", 60),
        plan=replace(PLAN, **plan),
        curated=CURATED,
        task_lm=LMSettings(
            model=model, base_url=base_url, api_key="secret-key", max_retries=0
        ),
        prompt_lm=None,
        model_dir=str(work_dir / "models"),
        work_dir=str(work_dir / "run"),
    )


def execute(spec: RunSpec) -> list[dict[str, Any]]:
    """Run a spec in a worker process and return its events without bare progress."""
    start_fork_server()

    async def scenario() -> list[dict[str, Any]]:
        executor = LocalExecutor()
        await executor.submit(spec.optimization_id, spec.to_json())
        return [
            dict(event)
            async for event in executor.events(spec.optimization_id)
            if event["kind"] != "progress"
        ]

    return asyncio.run(scenario())


def trials(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trials in order."""
    return [e["trial"] for e in events if e["kind"] == "trial_completed"]


def phases(events: list[dict[str, Any]]) -> list[str]:
    """Return the phases in order."""
    return [e["phase"] for e in events if e["kind"] == "phase_changed"]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return the kinds in order."""
    return [event["kind"] for event in events]
