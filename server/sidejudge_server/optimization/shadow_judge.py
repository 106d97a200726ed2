"""Judges later corrections with candidates in shadow, in the background, and acts on the evidence.

One correction at a time, only while the language model has a free slot. What is still to be judged is
read from the database after the last correction that was counted, so nothing is kept in memory but
the names of judges, and a restart counts nothing twice and forgets nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from sidejudge_server.errors import (
    ConflictError,
    JudgeOutputError,
    LMRequestError,
    NotFoundError,
)
from sidejudge_server.judges.agreement import agreement
from sidejudge_server.judges.codec import CodecError, input_from_json
from sidejudge_server.judges.evaluator import evaluate
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.slack import Slack
from sidejudge_server.judges.types import JudgeProgram, Judgment
from sidejudge_server.lm.types import ChatClient
from sidejudge_server.optimization.shadow import (
    DEPLOYED,
    DROPPED,
    PROVEN,
    ShadowCandidates,
    evidence_of,
    figures,
    overtaken,
)
from sidejudge_server.optimization.shadow_evidence import BAR
from sidejudge_server.training.splits import Split
from sidejudge_storage import ExampleRecord, ShadowCandidateRecord, Storage

__all__ = ["ShadowJudge"]

_log = logging.getLogger(__name__)

_AUTHOR = "sidejudge"
_PAGE = 50
_RETRY_S = 30.0
"""How long to leave a language model or a database alone that has failed."""


class ShadowJudge:
    """Follows the active candidates of all judges. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        candidates: ShadowCandidates,
        client: ChatClient,
        *,
        slack: Slack,
    ) -> None:
        """Make it; nothing happens before `start`.

        Args:
            storage: Where corrections are.
            registry: The judges.
            candidates: Their candidates, loaded.
            client: The language model that serves.
            slack: Says when it has a free slot.
        """
        self._storage = storage
        self._registry = registry
        self._candidates = candidates
        self._client = client
        self._slack = slack
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        candidates.on_entered(self.look_at)
        registry.on_deployed(self._look_if_active)

    def start(self) -> None:
        """Begin, first with corrections that came while nobody looked."""
        for judge_id in self._candidates.active_judges():
            self.look_at(judge_id)
        self._task = asyncio.create_task(self._work(), name="shadow-judge")

    async def close(self) -> None:
        """Stop at once; what is not counted yet is judged after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def hear(self, judge_id: str, _: Sequence[ExampleRecord]) -> None:
        """Take note of new corrections."""
        self._look_if_active(judge_id)

    def _look_if_active(self, judge_id: str) -> None:
        if self._candidates.active(judge_id) is not None:
            self.look_at(judge_id)

    def look_at(self, judge_id: str) -> None:
        """Look for corrections of a judge soon."""
        self._waiting[judge_id] = None
        self._idle.clear()
        self._wake.set()

    async def drain(self) -> None:
        """Return when every correction that was announced has been looked at."""
        await self._idle.wait()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                judge_id = next(iter(self._waiting))
                try:
                    await self._follow(judge_id)
                except Exception as error:  # noqa: BLE001 - the corrections are safe, try again
                    cause = type(error).__name__  # the text may quote what was judged
                    _log.warning("a candidate in shadow has to wait: %s", cause)
                    # It may be about this judge alone: the others come first.
                    self._waiting.pop(judge_id, None)
                    self._waiting[judge_id] = None
                    await asyncio.sleep(_RETRY_S)
            self._idle.set()

    async def _follow(self, judge_id: str) -> None:
        """Judge what a candidate has not seen, until there is nothing more or it is decided."""
        position, followed = "", ""
        while candidate := self._candidates.active(judge_id):
            if candidate.optimization_id != followed:
                position, followed = "", candidate.optimization_id
            if await self._decide(candidate):
                continue
            # What comes from now on announces the judge again.
            self._waiting.pop(judge_id, None)
            after = max(position, candidate.last_example_id)
            try:
                page = await self._storage.examples.corrections(
                    judge_id, after=after, limit=_PAGE
                )
                for example in await self._counting(candidate, page):
                    await self._judge(candidate, example)
                    break
                else:
                    if len(page) < _PAGE:
                        return
                    position = page[-1].example_id
            except BaseException:
                self._waiting[judge_id] = None
                raise
        self._waiting.pop(judge_id, None)

    async def _counting(
        self, candidate: ShadowCandidateRecord, page: Sequence[ExampleRecord]
    ) -> list[ExampleRecord]:
        """Return the corrections that are evidence.

        The baseline has answered them, and the candidate was not made from their like: a group is
        new, or on the test side. Each input is evidence once, however often it is labelled: not
        if it was there when the shadow began, perhaps as a pair of the gate, or was passed by
        since. A label that replaces one that nobody has looked at yet still counts.
        """
        answered = await self._storage.evaluations.versions(
            [e.evaluation_id for e in page if e.evaluation_id is not None]
        )
        old = await self._storage.examples.groups_before(
            candidate.judge_id,
            {example.group_key for example in page},
            before=candidate.start_id,
        )
        first = await self._storage.examples.first_by_digest(
            candidate.judge_id, {example.content_digest for example in page}
        )
        return [
            example
            for example in page
            if answered.get(example.evaluation_id or "") == candidate.baseline_version
            and (example.split == Split.TEST or example.group_key not in old)
            and first[example.content_digest] > candidate.last_example_id
        ]

    async def _judge(
        self, candidate: ShadowCandidateRecord, example: ExampleRecord
    ) -> None:
        version = self._registry.get_version(candidate.judge_id, candidate.version)
        baseline = _quality(example, example.judged_verdict, example.judged_score)
        try:
            worth = await self._ask(version.program, example)
        except (LMRequestError, CodecError):
            # It may be the item or the configuration; neither says anything of the candidate.
            await self._candidates.skip(candidate, example_id=example.example_id)
            return
        await self._candidates.add(
            candidate, worth - baseline, example_id=example.example_id
        )

    async def _ask(self, program: JudgeProgram, example: ExampleRecord) -> float:
        """Return what the candidate's answer is worth; an unusable one is worth nothing."""
        item = input_from_json(example.input_json)
        try:
            answer = await self._slack.run(
                lambda: evaluate(program, item, self._client, explain=False)
            )
        except JudgeOutputError:
            return 0.0
        result = answer.result
        if isinstance(result, Judgment):
            return _quality(example, result.verdict.value, None)
        return _quality(example, None, result.score)

    async def _decide(self, candidate: ShadowCandidateRecord) -> bool:
        """End a candidate's shadow if there is a reason to; return whether there was."""
        judge = self._registry.find(candidate.judge_id)
        if judge is None or judge.deleted:
            await self._candidates.end(candidate, DROPPED, "the judge was deleted")
            return True
        over = overtaken(candidate, judge.deployed_version)
        evidence = evidence_of(candidate)
        if over is not None:
            await self._candidates.end(candidate, *over)
        elif evidence.e_value_against >= BAR:
            text = figures(candidate, evidence.e_value_against, "worse")
            await self._candidates.end(candidate, DROPPED, text)
        elif evidence.e_value >= BAR:
            text = figures(candidate, evidence.e_value, "better")
            if candidate.deploy and not await self._deploy(candidate, text, judge.etag):
                return True
            state = DEPLOYED if candidate.deploy else PROVEN
            await self._candidates.end(candidate, state, text)
        else:
            return False
        return True

    async def _deploy(
        self, candidate: ShadowCandidateRecord, reason: str, etag: str
    ) -> bool:
        """Make a candidate serve; return False if somebody was faster."""
        try:
            await self._registry.deploy(
                candidate.judge_id,
                candidate.version,
                author=_AUTHOR,
                reason=f"optimizations/{candidate.optimization_id}: {reason}",
                etag=etag,
                verb="gate",
            )
        except (ConflictError, NotFoundError):
            return False
        return True


def _quality(example: ExampleRecord, verdict: str | None, score: float | None) -> float:
    """Return what an answer to a correction is worth, 0..1."""
    return agreement(
        label_verdict=example.verdict,
        label_score=example.score,
        verdict=verdict,
        score=score,
    )
