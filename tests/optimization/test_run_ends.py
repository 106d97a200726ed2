"""What becomes of a run: its version, its deployment, and its end when something dies."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import pytest

from sidejudge_server.judges.kinds import (
    KINDS,
    JudgeSpec,
    curated_instructions,
    initial_program,
)
from sidejudge_server.judges.types import JudgeKind
from sidejudge_server.optimization.plan import (
    InstructionSource,
    OptimizationConfig,
)
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.spec import EventKind
from tests.optimization import toy_workers
from tests.optimization.service_setup import running
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow

_SAFETY = CreateOptimization("safety")


def _kinds(events):
    return [event.kind.value for event in events]


def test_improvement_becomes_a_version_and_serves_if_asked(tmp_path):
    """The version says where it comes from; the gate's verb is in the history."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id, after=0)
            version = server.registry.get_version("safety")
            history = server.registry.deployments("safety")
            return record, events, version, history

    record, events, version, history = asyncio.run(scenario())
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert events[-1].kind is EventKind.FINISHED
    ended = events[-1].record
    assert (ended.state, ended.candidate_version, ended.phase) == ("succeeded", 2, "")
    assert json.loads(ended.decision_json)["deployed"] is True
    assert ended.ended_at >= ended.started_at
    assert (version.version, version.origin, version.parent_version) == (
        2,
        "optimization",
        1,
    )
    assert version.optimization_id == record.optimization_id
    assert version.model == "openai/stand-in"
    assert version.data_digest == json.loads(record.dataset_json)["digest"]
    assert version.metrics == {"test.accuracy": 0.9}
    assert (history[-1].verb, history[-1].version) == ("gate", 2)


def test_improvement_is_not_deployed_unasked(tmp_path):
    """It is kept as a version only."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            events = await server.watch_all(record.optimization_id)
            return events[-1].record, server.registry.get("safety")

    ended, judge = asyncio.run(scenario())
    assert ended.candidate_version == 2
    assert judge.deployed_version == 1
    assert json.loads(ended.decision_json)["deployed"] is False


def test_version_deployed_meanwhile_is_not_overruled(tmp_path):
    """The gate compared with another version than the one that serves now."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            await server.train()
            await server.train("relevance")
            first = await server.service.create(CreateOptimization("relevance"))
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            program = server.registry.get_version("safety").program
            changed = replace(program, instructions="Written by hand meanwhile.")
            version = await server.registry.add_version("safety", changed)
            await server.registry.deploy(
                "safety", version.version, author="a", reason="r"
            )
            server.executor._entry = toy_workers.improves
            await server.service.cancel(first.optimization_id)
            events = await server.watch_all(record.optimization_id, after=0)
            return record, events, server.registry.get("safety")

    record, events, judge = asyncio.run(scenario())
    assert record.state == "queued"
    assert judge.deployed_version == 2
    assert events[-1].record.candidate_version == 3
    assert json.loads(events[-1].record.decision_json)["deployed"] is False
    assert "deployed during the run" in events[-2].payload["message"]


def test_promising_candidate_goes_into_shadow_with_the_end_of_its_run(tmp_path):
    """It is not deployed, whatever was asked for; the next server knows it."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves_a_little) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id)
            shadows = await server.storage.shadow_candidates.of("safety")
            return events[-1].record, server.registry.get("safety"), shadows

    ended, judge, (shadow,) = asyncio.run(scenario())
    assert json.loads(ended.decision_json)["deployed"] is False
    assert "Version 2 is in shadow" in ended.summary
    assert judge.deployed_version == 1
    assert (shadow.state, shadow.version, shadow.baseline_version) == ("active", 2, 1)
    assert (shadow.wins, shadow.losses, shadow.pairs) == (5, 0, 40)
    assert shadow.deploy


def test_promising_candidate_against_a_version_of_the_past_stays_out_of_shadow(
    tmp_path,
):
    """Later corrections would be of another version than it was compared with."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            await server.train()
            await server.train("relevance")
            first = await server.service.create(CreateOptimization("relevance"))
            record = await server.service.create(_SAFETY)
            program = server.registry.get_version("safety").program
            changed = replace(program, instructions="Written by hand meanwhile.")
            version = await server.registry.add_version("safety", changed)
            await server.registry.deploy(
                "safety", version.version, author="a", reason="r"
            )
            server.executor._entry = toy_workers.improves_a_little
            await server.service.cancel(first.optimization_id)
            events = await server.watch_all(record.optimization_id, after=0)
            return events, await server.storage.shadow_candidates.of("safety")

    events, shadows = asyncio.run(scenario())
    assert shadows == []
    assert "does not go into shadow" in events[-2].payload["message"]


def test_result_that_comes_after_a_cancel_is_kept_but_not_deployed(tmp_path):
    """Somebody who cancels wants no deployment, however late the cancel was."""

    async def scenario():
        async with running(
            tmp_path, entry=toy_workers.finishes_when_cancelled
        ) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            run_id = record.optimization_id
            await server.watch_until(run_id, EventKind.BEST_IMPROVED)
            await server.service.cancel(run_id)
            ended = (await server.watch_all(run_id))[-1].record
            return ended, server.registry.get("safety").deployed_version

    ended, deployed = asyncio.run(scenario())
    assert (ended.state, ended.candidate_version) == ("cancelled", 2)
    assert ended.decision_json is None
    assert deployed == 1


def test_cancel_while_the_version_is_stored_deploys_nothing(tmp_path, monkeypatch):
    """It was acknowledged before the deployment: the version is kept, the run cancelled."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            storing, go_on = asyncio.Event(), asyncio.Event()
            add_version = server.registry.add_version

            async def slow(*args, **kwargs):
                storing.set()
                await go_on.wait()
                return await add_version(*args, **kwargs)

            monkeypatch.setattr(server.registry, "add_version", slow)
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            await asyncio.wait_for(storing.wait(), 20)
            asked = await server.service.cancel(record.optimization_id)
            go_on.set()
            ended = (await server.watch_all(record.optimization_id))[-1].record
            return asked, ended, server.registry.get("safety").deployed_version

    asked, ended, deployed = asyncio.run(scenario())
    assert asked.state == "cancelling"
    assert (ended.state, ended.candidate_version) == ("cancelled", 2)
    assert ended.decision_json is None
    assert deployed == 1


def test_worker_that_dies_three_times_fails_its_run_and_no_other(tmp_path):
    """Two deaths are made good; the third is told with its exit code, the best version is kept."""

    async def scenario():
        async with running(tmp_path, max_workers=2) as server:
            await server.train()
            await server.train("relevance")
            victim = await server.service.create(_SAFETY)
            other = await server.service.create(CreateOptimization("relevance"))
            for run in (victim, other):
                await server.watch_until(run.optimization_id, EventKind.BEST_IMPROVED)
            events = server.service.watch(victim.optimization_id, after_sequence=0)
            seen = []
            pids = set()
            async for event in events:
                seen.append(event)
                if event.kind in {EventKind.BEST_IMPROVED, EventKind.RESUMED}:
                    pids.add(await server.kill_worker(victim.optimization_id, but=pids))
            alive = server.executor.status(other.optimization_id).alive
            state = (await server.service.get(other.optimization_id)).state
            return seen, pids, alive, state

    seen, pids, alive, state = asyncio.run(scenario())
    failed = seen[-1].record
    error = json.loads(failed.error_json)
    assert _kinds(seen) == [
        "phase_changed",
        "warning",
        "phase_changed",
        "trial_completed",
        "best_improved",
        "resumed",
        "resumed",
        "finished",
    ]
    assert [e.payload["resume_count"] for e in seen if "reason" in e.payload] == [1, 2]
    assert "exit code -9" in seen[5].payload["reason"]
    assert len(pids) == 3
    assert failed.state == "failed"
    assert error["reason"] == "WORKER_CRASHED"
    assert error["metadata"]["exit_code"] == "-9"
    assert (failed.candidate_version, failed.resume_count) == (2, 2)
    assert (alive, state) == (True, "running")


def test_whole_run_with_the_real_worker(tmp_path):
    """From import to deployment: search, refit and gate against the stand-in."""
    definition = KINDS[JudgeKind.SAFETY]
    # A word that only one instruction has: with it in the prompt the stand-in judges well.
    curated = curated_instructions(initial_program(JudgeSpec(JudgeKind.SAFETY)))
    others = " ".join((definition.instructions, definition.question, *curated[1:]))
    word = max(
        set(re.findall(r"\w+", curated[0])) - set(re.findall(r"\w+", others)), key=len
    )

    async def scenario(base_url):
        async with running(tmp_path, base_url=base_url, entry=None) as server:
            await server.train(word=word)
            config = OptimizationConfig(
                num_trials=8,
                num_candidates=2,
                instruction_source=InstructionSource.CURATED,
            )
            record = await server.service.create(
                CreateOptimization("safety", config, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id, after=0)
            left = list(tmp_path.glob("*.runs/*"))
            return events, left, server.registry.get_version("safety")

    with running_stand_in() as lm:
        events, left, serving = asyncio.run(scenario(lm.base_url))
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    ended = events[-1].record
    assert ended.state == "succeeded", ended
    decision = json.loads(ended.decision_json)
    assert (decision["outcome"], decision["deployed"]) == ("improved", True)
    assert decision["pair_count"] == 40
    assert serving.version == ended.candidate_version == 2
    assert word in serving.program.instructions
    progress = json.loads(ended.progress_json)
    assert progress["trials_completed"] == progress["trials_total"] == 8
    assert progress["lm_calls"] == lm.call_count
    assert left == []
