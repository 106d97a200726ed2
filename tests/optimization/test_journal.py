"""Journals of runs: what makes one unusable, what it must not hold, and how long it stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidejudge_server.config import Settings, StorageSettings
from sidejudge_server.errors import (
    FailedPreconditionError,
)
from sidejudge_server.optimization.journal import Journals
from sidejudge_server.optimization.resume import MAX_FRUITLESS, ResumeOptimization
from tests.optimization import toy_workers
from tests.optimization.interrupted_runs import SAFETY, cancelled_run, interrupted_run
from tests.optimization.service_setup import running

pytestmark = pytest.mark.slow
_FIRST_LIFE = ["phase_changed", "warning", "phase_changed", "trial_completed"]


def _kinds(events):
    return [event.kind.value for event in events]


def _edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _other_seed(document):
    document["content"]["spec"]["plan"]["seed"] = 10


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (Path.unlink, "its journal is gone"),
        (lambda path: path.write_text("{"), "its journal is damaged"),
        (lambda path: path.write_bytes(b"\xff\x00"), "its journal is damaged"),
        (lambda path: path.write_text("[1]"), "its journal is damaged"),
        (lambda path: _edit(path, _other_seed), "its journal is damaged"),
    ],
)
def test_damaged_journal_ends_the_run_with_the_cause(tmp_path, damage, cause):
    """At a restart and when asked: clear state, reason and event; the best version is kept."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        (journal,) = tmp_path.glob("*.runs/*/journal.json")
        damage(journal)
        async with running(tmp_path) as server:
            events = await server.watch_all(run_id, after=0)
            with pytest.raises(FailedPreconditionError) as refused:
                await server.service.resume(ResumeOptimization(run_id))
            again = await server.service.create(SAFETY)
            return events, refused.value, again

    events, refused, again = asyncio.run(scenario())
    ended = events[-1].record
    error = json.loads(ended.error_json)
    assert (ended.state, ended.candidate_version) == ("failed", 2)
    assert (error["reason"], error["metadata"]["cause"]) == ("SERVER_RESTARTED", cause)
    assert _kinds(events) == [*_FIRST_LIFE, "best_improved", "finished"]
    assert refused.metadata["cause"] == cause
    assert again.state == "running"


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"model": "openai/another"}, "the task model was openai/stand-in and is"),
        ({"base_url": "http://127.0.0.1:2/v1"}, "or its address or settings"),
        ({"logprobs": False}, "or its address or settings"),
        ({"embedding_model": "another"}, "or its address or settings"),
    ],
)
def test_changed_model_ends_the_run_with_the_cause(tmp_path, changed, cause):
    """Answers of another model would not make the run that was begun."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        async with running(tmp_path, lm=changed) as server:
            return (await server.watch_all(run_id))[-1].record

    ended = asyncio.run(scenario())
    assert cause in json.loads(ended.error_json)["message"]


def test_changed_key_does_not_matter(tmp_path):
    """A key that was refused is replaced, and the run goes on."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        changed = {"api_key": "another", "timeout_s": 5.0, "max_retries": 1}
        async with running(tmp_path, lm=changed, entry=toy_workers.improves) as server:
            return (await server.watch_all(run_id))[-1].record.state

    assert asyncio.run(scenario()) == "succeeded"


def test_other_version_of_the_optimizer_ends_the_run_with_the_cause(
    tmp_path, monkeypatch
):
    """It would search otherwise."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        monkeypatch.setattr(
            "sidejudge_server.optimization.journal.importlib.metadata.version",
            lambda name: {"dspy": "3.5.0"}.get(name, "1"),
        )
        async with running(tmp_path) as server:
            return (await server.watch_all(run_id))[-1].record

    ended = asyncio.run(scenario())
    assert "it was started with dspy" in json.loads(ended.error_json)["message"]


def test_examples_that_come_meanwhile_do_not_change_the_run(tmp_path):
    """It goes on with those that it had."""

    async def scenario():
        async with running(tmp_path) as server:
            run_id = await cancelled_run(server)
            before = (await server.service.get(run_id)).dataset_json
            await server.train(count=160, word="OTHER")
            server.executor._entry = toy_workers.tells_its_examples
            await server.service.resume(ResumeOptimization(run_id))
            warning = (await server.watch_all(run_id, after=0))[-2]
            after = (await server.service.get(run_id)).dataset_json
            return before, warning.payload["message"], after

    before, told, after = asyncio.run(scenario())
    assert before == after
    assert sum(json.loads(told)) == 100


def test_journal_holds_no_key_and_is_its_owners_alone(tmp_path):
    """Keys come from the configuration whenever a run goes on."""

    async def scenario():
        async with running(tmp_path, lm={"api_key": "very-secret"}) as server:
            await server.train()
            await server.service.create(SAFETY)
            (directory,) = tmp_path.glob("*.runs/*")
            text = (directory / "journal.json").read_text()
            modes = [
                path.stat().st_mode & 0o777
                for path in (directory, directory / "journal.json")
            ]
            return text, modes

    text, modes = asyncio.run(scenario())
    assert "very-secret" not in text
    assert "item 5" in text
    assert modes == [0o700, 0o600]


def test_run_whose_journal_cannot_be_written_is_not_started(tmp_path):
    """A full or missing disk is told; nothing is left behind."""

    async def scenario():
        blocked = tmp_path / "blocked"
        blocked.write_text("")
        async with running(tmp_path, work_dir=blocked) as server:
            await server.train()
            with pytest.raises(Exception, match="journal cannot be written") as refused:
                await server.service.create(SAFETY)
            active = await server.storage.optimizations.active()
            return refused.value.reason, active

    reason, active = asyncio.run(scenario())
    assert reason == "STORAGE_UNAVAILABLE"
    assert active == []


def test_model_that_cannot_be_reached_fails_its_run_and_not_the_request(tmp_path):
    """A model string without a known provider is the run's problem, told by its worker."""

    async def scenario():
        unknown = {"model": "nobody/x", "base_url": None}
        async with running(tmp_path, lm=unknown, entry=None) as server:
            await server.train()
            run_id = (await server.service.create(SAFETY)).optimization_id
            return (await server.watch_all(run_id))[-1].record

    ended = asyncio.run(scenario())
    assert ended.state == "failed"


def test_run_that_makes_no_progress_does_not_go_on_for_ever(tmp_path):
    """A run that takes the server down with it is left alone in the end, and can be asked for."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        for _ in range(MAX_FRUITLESS):
            async with running(tmp_path) as server:
                assert (await server.service.get(run_id)).state == "running"
        async with running(tmp_path) as server:
            ended = (await server.watch_all(run_id))[-1].record
            again = await server.service.resume(ResumeOptimization(run_id))
            return ended, again

    ended, again = asyncio.run(scenario())
    assert ended.state == "failed"
    assert "5 restarts in a row" in json.loads(ended.error_json)["message"]
    assert again.state == "running"


def test_journals_of_runs_that_ended_long_ago_are_deleted_at_the_start(tmp_path):
    """Those of active and recent runs stay."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    settings = Settings(storage=StorageSettings(path=tmp_path / "x.duckdb"))
    journals = Journals(settings, "database")
    ended = {
        "active": None,
        "old": now - timedelta(days=8),
        "recent": now - timedelta(days=6),
    }
    for name in ended:
        journals.work_dir(name).mkdir(parents=True)

    deleted = journals.sweep(ended, now=now)

    assert deleted == ["old"]
    assert [d.name for d in journals.directories()] == ["active", "recent"]


def test_start_deletes_what_was_never_begun_and_nothing_of_others(tmp_path):
    """Only a journal of this database without a row; the directory may be anybody's."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        (root,) = tmp_path.glob("*.runs")
        (root / "photographs").mkdir()
        never_begun = root / "never-begun"
        shutil.copytree(root / run_id, never_begun)
        foreign = root / "of-another-database"
        shutil.copytree(root / run_id, foreign)
        document = json.loads((foreign / "journal.json").read_text())
        document["content"]["database"] = "another"
        document["digest"] = hashlib.sha256(
            json.dumps(
                document["content"], sort_keys=True, separators=(",", ":")
            ).encode()
        ).hexdigest()
        (foreign / "journal.json").write_text(json.dumps(document))
        async with running(tmp_path):
            return run_id, {path.name for path in root.iterdir()}

    run_id, left = asyncio.run(scenario())
    assert left == {run_id, "photographs", "of-another-database"}


def test_without_retention_only_the_log_of_a_cancelled_run_is_left(tmp_path):
    """Judged texts do not outlive the run; it cannot be resumed."""

    async def scenario():
        async with running(tmp_path, journal_days=0.0) as server:
            run_id = await cancelled_run(server)
            with pytest.raises(FailedPreconditionError) as refused:
                await server.service.resume(ResumeOptimization(run_id))
            left = [p.name for p in tmp_path.glob("*.runs/*/*")]
            return refused.value.metadata["cause"], left

    cause, left = asyncio.run(scenario())
    assert cause == "its journal is gone"
    assert left == []
