"""Asks another version about an item, while nobody waits for the language model."""

from __future__ import annotations

from datetime import UTC, datetime

from sidejudge_server.errors import JudgeOutputError
from sidejudge_server.experiments.shadowing import ShadowAnswer
from sidejudge_server.judges.evaluator import evaluate
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.judges.slack import Slack
from sidejudge_server.judges.types import JudgeInput, Judgment
from sidejudge_server.lm.types import ChatClient
from sidejudge_storage import ShadowJudgmentRecord, Storage

__all__ = ["SecondOpinion"]

_ARM = "monitor"
"""What the judgments of monitors are kept under; they belong to no experiment."""


class SecondOpinion:
    """Judges items with a version that does not serve. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        client: ChatClient,
        *,
        slack: Slack,
    ) -> None:
        self._storage = storage
        self._judges = judges
        self._client = client
        self._slack = slack

    async def ask(
        self, judge_id: str, version: int, *, evaluation_id: str, item: JudgeInput
    ) -> ShadowAnswer:
        """Return what a version says of an item, asking the model if it was not asked before.

        Raises:
            LMError: The model did not deliver; an unusable answer is no error here.
            StorageUnavailableError: The answer could not be kept.
        """
        known = await self._storage.shadow_judgments.get("", _ARM, evaluation_id)
        if known is not None and known.version == version:
            return ShadowAnswer(known.verdict, known.score, known.confidence)
        program = self._judges.get_version(judge_id, version).program
        try:
            answer = await self._slack.run(
                lambda: evaluate(program, item, self._client, explain=False)
            )
        except JudgeOutputError:
            return ShadowAnswer()
        result, usage = answer.result, answer.usage
        judgment = result if isinstance(result, Judgment) else None
        found = ShadowAnswer(
            verdict=judgment.verdict.value if judgment else None,
            score=None if isinstance(result, Judgment) else result.score,
            confidence=judgment.confidence if judgment else None,
        )
        await commit(
            self._storage,
            ShadowJudgmentRecord(
                evaluation_id=evaluation_id,
                experiment_id="",
                arm_id=_ARM,
                judge_id=judge_id,
                version=version,
                created_at=datetime.now(UTC),
                verdict=found.verdict,
                score=found.score,
                confidence=found.confidence,
                model=self._client.model,
                input_tokens=usage.input_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                output_tokens=usage.output_tokens,
                lm_calls=usage.calls,
                cost_usd=usage.cost_usd,
                lm_latency_ms=1000.0 * usage.latency_s,
            ),
        )
        return found
