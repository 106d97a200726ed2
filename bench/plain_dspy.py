"""Plain DSPy on the same examples: `dspy.Predict` in the usual text format, as is or after MIPROv2.

Runs as a process of its own, because DSPy's cache and settings are global. Standard input brings one
JSON object, see `PlainTask`; the result goes to the file that it names. DSPy's own defaults apply
wherever the task says nothing: ChatAdapter (with its fallback to JSON), the proposer that sees the
program, the data and tips, and the cache, which is kept beside the result, so that a run that is
repeated after an interruption goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.wire_counter import counted

__all__ = ["PlainTask"]

Dspy = Any
"""Modules, examples and predictions: dspy publishes no types."""

_VERDICT_TOKENS = 60
_PROPOSAL_TOKENS = 200
_NEVER = 10**9
"""Answers that cannot be read score 0; DSPy's default gives up at the tenth."""


@dataclass(frozen=True, slots=True)
class PlainTask:
    """What to run.

    Attributes:
        model: Name that the endpoint knows.
        base_url: OpenAI-compatible endpoint.
        api_key: What it asks for.
        instructions: Docstring of the signature: what version 1 of the judge is told.
        labels: Values of the verdict.
        train: Rows with ``key``, ``artifact``, ``ground_truth``, ``context``, ``label``.
        validation: Likewise.
        test: Likewise; only scored on.
        optimize: False to score as is.
        trials: Of MIPROv2.
        candidates: Instructions and demonstration sets.
        labeled_demos: At most.
        bootstrapped_demos: At most.
        seed: Of MIPROv2.
        cache_dir: DSPy's cache.
        result: File for what came out.
    """

    model: str
    base_url: str
    api_key: str
    instructions: str
    labels: list[str]
    train: list[dict[str, str]]
    validation: list[dict[str, str]]
    test: list[dict[str, str]]
    optimize: bool
    trials: int
    candidates: int
    labeled_demos: int
    bootstrapped_demos: int
    seed: int
    cache_dir: str
    result: str


def run(task: PlainTask) -> dict[str, Any]:
    """Score plain DSPy on the held-out examples and return answers, calls and seconds."""
    import dspy  # not before the environment says not to fetch prices

    dspy.configure_cache(disk_cache_dir=task.cache_dir, restrict_pickle=True)
    with counted(task.base_url, task.api_key) as wire:
        options = {
            "api_base": wire.base_url,
            "api_key": "none",
            "timeout": 900,
        }
        name = f"openai/{task.model}"
        lm = dspy.LM(name, temperature=0.0, max_tokens=_VERDICT_TOKENS, **options)
        writer = dspy.LM(name, max_tokens=_PROPOSAL_TOKENS, **options)
        dspy.configure(lm=lm, adapter=dspy.ChatAdapter(), disable_history=True)
        module = dspy.Predict(_signature(dspy, task))
        started = time.perf_counter()
        if task.optimize:
            module = _optimized(dspy, task, module, lm=lm, writer=writer)
        searched_s, searched = time.perf_counter() - started, wire.count
        items = [_answer(module, row) for row in task.test]
        total_s = time.perf_counter() - started
        return {
            "items": items,
            "search": {"seconds": searched_s, **asdict(searched)},
            "scoring": {
                "seconds": total_s - searched_s,
                **asdict(wire.count.since(searched)),
            },
            "instructions": module.signature.instructions,
            "demonstrations": len(module.demos),
            "trials": [
                log.get("full_eval_score")
                for log in getattr(module, "trial_logs", {}).values()
            ],
        }


def _signature(dspy: Dspy, task: PlainTask) -> Dspy:
    fields: dict[str, Any] = {
        name: (str, dspy.InputField())
        for name in ("artifact", "ground_truth", "context")
        if any(row[name] for row in task.train + task.validation)
    }
    fields["judgment"] = (Literal[tuple(task.labels)], dspy.OutputField())
    return dspy.Signature(fields, task.instructions)


def _optimized(
    dspy: Dspy, task: PlainTask, module: Dspy, *, lm: Dspy, writer: Dspy
) -> Dspy:
    optimizer = dspy.MIPROv2(
        metric=lambda example, answer, trace=None: example.judgment == answer.judgment,
        task_model=lm,
        prompt_model=writer,
        auto=None,
        num_candidates=task.candidates,
        max_bootstrapped_demos=task.bootstrapped_demos,
        max_labeled_demos=task.labeled_demos,
        num_threads=1,
        max_errors=_NEVER,
        seed=task.seed,
    )
    return optimizer.compile(
        module,
        trainset=[_example(dspy, module, row) for row in task.train],
        valset=[_example(dspy, module, row) for row in task.validation],
        num_trials=task.trials,
        minibatch=False,
    )


def _example(dspy: Dspy, module: Dspy, row: dict[str, str]) -> Dspy:
    names = list(module.signature.input_fields)
    inputs = {name: row[name] for name in names}
    return dspy.Example(**inputs, judgment=row["label"]).with_inputs(*names)


def _answer(module: Dspy, row: dict[str, str]) -> dict[str, str]:
    """Return the verdict on a row; an unusable answer is an empty one, with the kind of error."""
    inputs = {name: row[name] for name in module.signature.input_fields}
    try:
        return {"key": row["key"], "answer": str(module(**inputs).judgment)}
    except Exception as error:  # noqa: BLE001 - DSPy raises whatever; it counts as a wrong answer
        return {"key": row["key"], "answer": "", "error": type(error).__name__}


def main() -> None:
    """Read the task, run it, write the result."""
    # Before dspy is imported: otherwise the first call asks the network for a price list.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"
    task = PlainTask(**json.load(sys.stdin))
    # DSPy prints; its examples are nobody's business.
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        result = run(task)
    Path(task.result).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
