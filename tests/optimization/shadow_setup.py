"""A judge with a candidate in shadow on a real database, judged by the stand-in."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.judges.codec import input_to_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.slack import Slack
from sidejudge_server.judges.types import ArtifactInput, RubricInput
from sidejudge_server.lm.client import create_client
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.optimization.shadow_evidence import Evidence
from sidejudge_server.optimization.shadow_judge import ShadowJudge
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.corrections import Correction
from sidejudge_server.training.examples import ImportedExample
from sidejudge_server.training.service import FeedbackService
from sidejudge_storage import Storage
from tests.storage import samples
from tests.training.builders import evaluation

WORD = "CAREFULLY"


@dataclass
class Shadowing:
    """What a server would have made of it."""

    storage: Storage
    registry: JudgeRegistry
    feedback: FeedbackService
    collector: TrainingCollector
    candidates: ShadowCandidates
    judge: ShadowJudge

    async def enter(
        self, judge_id="safety", *, wins=5, losses=0, pairs=20, deploy=True, run="run"
    ):
        """Put a new version into shadow that is right where it is told to be CAREFUL."""
        judge = self.registry.get(judge_id)
        program = self.registry.get_version(judge_id).program
        better = replace(program, instructions=f"Read it {WORD} ({run}).")
        version = await self.registry.add_version(judge_id, better)
        record = samples.optimization(
            optimization_id=run,
            judge_id=judge_id,
            baseline_version=judge.deployed_version,
            deploy_if_better=deploy,
        )
        gains = [0.3] * wins + [-0.3] * losses + [0.0] * (pairs - wins - losses)
        evidence = Evidence.of(gains, scores=program.scores)
        decision = {
            "wins": wins,
            "losses": losses,
            "pair_count": pairs,
            "bet_sums": evidence.sums,
        }
        async with self.candidates.entering(
            record, version.version, json.loads(json.dumps(decision))
        ) as commands:
            await self.storage.write(*commands)
        return version.version

    async def correct(
        self, count, *, candidate="right", baseline="wrong", version=1, **options
    ):
        """Correct so many answers of the baseline and wait until the candidate has seen them.

        Args:
            count: How many.
            candidate: What the candidate will be: right or wrong, unusable is the stand-in's.
            baseline: What the baseline was.
            version: That answered.
            options: ``text``, ``label``, ``group``, ``wait``.

        Returns:
            The evaluations that were corrected.
        """
        label = options.get("label", "fail")
        other = "pass" if label == "fail" else "fail"
        chance = {"pass": "0.9", "fail": "0.1"}
        says = chance[label if candidate == "right" else other]
        abouts = [
            replace(
                evaluation(
                    ArtifactInput(f"{options.get('text', 'item')} {i} p(yes)={says}"),
                    judge="safety",
                    group=options.get("group", ""),
                    verdict=label if baseline == "right" else other,
                ),
                version=version,
            )
            for i in range(count)
        ]
        await self.storage.write(*abouts)
        for about in abouts:
            await self.feedback.record(Correction(about.evaluation_id, verdict=label))
        await self.collector.drain()
        if options.get("wait", True):
            await self.judge.drain()
        return abouts

    async def restate(self, about, *, wait=True, **said):
        """Give the same label to an evaluation again; ``said`` is author or comment."""
        correction = Correction(about.evaluation_id, verdict="fail", **said)
        await self.feedback.record(correction)
        await self.collector.drain()
        if wait:
            await self.judge.drain()

    async def correct_scores(self, labels, *, baseline, candidate, wait=True):
        """Correct scores of the baseline; the candidate will grade as given."""
        abouts = [
            replace(
                evaluation(
                    RubricInput(f"task {i}", f"output {i} grade={1 + 4 * candidate}"),
                    judge="rubric",
                    score=baseline,
                ),
            )
            for i, _ in enumerate(labels)
        ]
        await self.storage.write(*abouts)
        for about, label in zip(abouts, labels, strict=True):
            await self.feedback.record(Correction(about.evaluation_id, score=label))
        await self.collector.drain()
        if wait:
            await self.judge.drain()

    async def bring(self, group, split):
        """Put an example of a group on a side, as an import before the shadow would."""
        item = ArtifactInput(f"{group} on {split}")
        await self.storage.write(
            samples.example(
                judge_id="safety",
                group_key=group,
                split=split,
                content_digest=f"digest of {group}",
                input_json=input_to_json(item),
            )
        )

    async def imported(self, count):
        """Import labelled examples, which are no corrections."""
        items = [
            ImportedExample(ArtifactInput(f"imported {i}"), verdict="fail")
            for i in range(count)
        ]
        await self.feedback.import_examples("safety", items)
        await self.judge.drain()

    def latest(self, judge_id="safety"):
        """The newest candidate as it is on disk and in memory."""
        return self.candidates.latest(judge_id)


@asynccontextmanager
async def shadowing(path, base_url, *, model="stand-in"):
    """Open the database and follow its candidates; stop everything in the end."""
    settings = Settings(
        task_lm=LMSettings(
            model=f"openai/{model}", base_url=base_url, api_key="k", max_retries=0
        )
    )
    storage = Storage.open(path / "test.duckdb")
    client = create_client(settings.task_lm, model_dir=path)
    try:
        registry = JudgeRegistry(storage)
        await registry.load()
        candidates = ShadowCandidates(storage)
        await candidates.load()
        judge = ShadowJudge(storage, registry, candidates, client, slack=Slack(4))
        collector = TrainingCollector(storage, registry)
        collector.on_accepted(judge.hear)
        collector.start()
        judge.start()
        feedback = FeedbackService(storage, registry, collector, settings)
        yield Shadowing(storage, registry, feedback, collector, candidates, judge)
        await judge.close()
        await collector.close()
    finally:
        await client.close()
        await storage.close()
