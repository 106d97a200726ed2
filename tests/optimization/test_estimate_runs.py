"""Estimates beside what real runs took, on a real database with real processes and the stand-in."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidejudge_server.optimization.plan import (
    AlgorithmName,
    Auto,
    InstructionSource,
    OptimizationConfig,
)
from sidejudge_server.optimization.queue import CreateOptimization
from tests.optimization.service_setup import running
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow

_FACTORS = {"lm_calls": (0.75, 1.35), "input_tokens": (0.75, 1.6)}
"""Estimated over actual. Prompts of candidates are expected to hold all demonstrations that they may."""


def _run(path, config, *, count):
    """Return the record of a run that was created, watched and read again."""

    async def scenario(base_url):
        async with running(path, base_url=base_url, entry=None) as server:
            await server.train(count=count)
            command = CreateOptimization("safety", config)
            preview = await server.service.estimate(command)
            record = await server.service.create(command)
            await server.watch_all(record.optimization_id)
            ended = await server.storage.optimizations.get(record.optimization_id)
            return preview, ended

    with running_stand_in(record=False) as stand_in:
        preview, ended = asyncio.run(scenario(stand_in.base_url))
        return preview, ended, stand_in.call_count


@pytest.mark.parametrize(
    ("count", "config"),
    [
        (
            60,
            OptimizationConfig(
                num_trials=10,
                num_candidates=5,
                instruction_source=InstructionSource.PROPOSER,
            ),
        ),
        (
            60,
            OptimizationConfig(
                num_trials=20,
                num_candidates=4,
                instruction_source=InstructionSource.CURATED,
            ),
        ),
        (
            40,
            OptimizationConfig(
                num_trials=6,
                num_candidates=3,
                max_bootstrapped_demos=0,
                instruction_source=InstructionSource.CURATED,
            ),
        ),
        (100, OptimizationConfig(algorithm=AlgorithmName.CALIBRATION)),
        (
            60,
            OptimizationConfig(
                algorithm=AlgorithmName.LABELED_DEMONSTRATIONS, num_trials=4
            ),
        ),
        # 90 validation examples: minibatches.
        (
            300,
            OptimizationConfig(
                auto=Auto.LIGHT, instruction_source=InstructionSource.CURATED
            ),
        ),
    ],
)
def test_estimated_calls_and_tokens_are_near_the_actual_ones(tmp_path, count, config):
    """On the side of too many rather than too few."""
    preview, ended, calls = _run(tmp_path, config, count=count)
    estimate = json.loads(ended.estimate_json)
    progress = json.loads(ended.progress_json)
    assert ended.state == "succeeded"
    assert estimate == preview.estimate.to_json()
    assert progress["lm_calls"] == calls
    for what, (least, most) in _FACTORS.items():
        assert least < estimate[what] / progress[what] < most, what
    assert estimate["trials"] == pytest.approx(progress["trials_completed"], abs=1)
    assert json.loads(preview.config_json) == json.loads(ended.config_json)
