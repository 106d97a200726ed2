"""Plain ``dspy.MIPROv2`` on the data of a run, in a process of its own: what ours is compared with.

The judge module, the metric, the client, the model that writes and all numbers are those of our runs;
identical requests are answered once, as DSPy's own cache does for its LMs. Everything else is the
original with its defaults. ``python -m bench.plain_mipro SPEC RESULT``: a run's spec as JSON in,
seconds, calls and the best program as JSON out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import dspy
from dspy.teleprompt import MIPROv2  # noqa: TID251 - the original itself is what is measured

from sidejudge_server.judges.blocking import BlockingClient
from sidejudge_server.judges.codec import program_from_json, program_to_json
from sidejudge_server.judges.dspy_judge import (
    JudgeLM,
    JudgeModule,
    program_from_module,
)
from sidejudge_server.lm.caching_client import CachingClient
from sidejudge_server.lm.call_cache import CallCache
from sidejudge_server.lm.client import create_client
from sidejudge_server.optimization.algorithms.context import dspy_example
from sidejudge_server.optimization.prompt_lm import make_prompt_lm
from sidejudge_server.optimization.scoring import labelled
from sidejudge_server.optimization.spec import RunSpec
from sidejudge_server.training.metrics import soft_judge_metric, soft_rubric_metric


def compile_plain(spec: RunSpec) -> dict[str, Any]:
    """Run the original optimizer and return seconds, calls, scores and the best program."""
    client = CachingClient(
        create_client(spec.task_lm, model_dir=Path(spec.model_dir)), CallCache(None)
    )
    blocking = BlockingClient(client)
    program = program_from_json(spec.program_json)
    plan = spec.plan
    optimizer = MIPROv2(
        metric=soft_rubric_metric if program.scores else soft_judge_metric,
        prompt_model=make_prompt_lm(blocking),
        task_model=JudgeLM(blocking),
        auto=None,
        num_candidates=plan.num_candidates,
        max_bootstrapped_demos=plan.max_bootstrapped_demos,
        max_labeled_demos=plan.max_labeled_demos,
        num_threads=plan.num_threads,
        seed=plan.seed,
    )
    train = [dspy_example(labelled(e)) for e in spec.train]
    validation = [dspy_example(labelled(e)) for e in spec.validation]
    started = time.perf_counter()
    best = optimizer.compile(
        JudgeModule(program),
        trainset=train,
        valset=validation,
        num_trials=plan.num_trials,
        minibatch=plan.minibatch_size is not None,
        minibatch_size=plan.minibatch_size or len(validation),
    )
    seconds = time.perf_counter() - started
    cache = client.cache
    return {
        "seconds": seconds,
        "asked": cache.hits + cache.misses,
        "calls": cache.misses,
        "best_score": best.score / 100,
        "program": program_to_json(program_from_module(best, program)),
    }


def main() -> None:
    """Read the spec, run, write the result."""
    source, target = map(Path, sys.argv[1:3])
    dspy.configure(disable_history=True)
    result = compile_plain(RunSpec.from_json(json.loads(source.read_text())))
    target.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
