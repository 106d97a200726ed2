"""All that experiments are made of, put together."""

from __future__ import annotations

from collections.abc import Sequence

from sidejudge_server.experiments.analyst import Analyst
from sidejudge_server.experiments.enrolment import Enrolment
from sidejudge_server.experiments.labelling import Labelling
from sidejudge_server.experiments.registry import ExperimentRegistry
from sidejudge_server.experiments.rollout import Rollouts
from sidejudge_server.experiments.router import ExperimentRouter
from sidejudge_server.experiments.shadowing import ShadowJudging
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.judges.slack import Slack
from sidejudge_server.lm.types import ChatClient
from sidejudge_storage import FeedbackRecord, Storage

__all__ = ["Experimenting"]


class Experimenting:
    """The experiments of a sidecar. Belongs to one event loop.

    Attributes:
        registry: What experiments there are.
        enrolment: Subjects and outcomes.
        router: Which version answers.
        analyst: What is known of them.
    """

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        client: ChatClient,
        *,
        requests: RequestLog,
        slack: Slack,
        shadow_workers: int,
    ) -> None:
        """Put it together; nothing is read before `start`.

        Args:
            storage: Where everything is kept.
            judges: The judges.
            client: The language model.
            requests: The process's log of requests.
            slack: Says when the model is free.
            shadow_workers: Items judged in shadow at once.
        """
        self.registry = ExperimentRegistry(storage, judges, requests)
        self.enrolment = Enrolment(storage, self.registry, requests)
        self._shadowing = ShadowJudging(
            storage, judges, client, slack=slack, workers=shadow_workers
        )
        self.router = ExperimentRouter(
            storage, self.registry, self.enrolment, self._shadowing
        )
        self._labelling = Labelling(storage, self.registry, self._shadowing)
        self.analyst = Analyst(storage, self.registry, judges)
        self._rollouts = Rollouts(self.registry)
        self._labelling.on_labelled(self.analyst.look_at)
        self.enrolment.on_recorded(self.analyst.look_at)
        self.analyst.on_analysed(self._rollouts.analysed)
        self.router.on_call(self._rollouts.called)

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk."""
        self._labelling.hear(records)

    async def start(self) -> None:
        """Read what there is, take up what a restart has interrupted, and begin."""
        await self.registry.load()
        await self.enrolment.load()
        self._shadowing.start()
        self.analyst.start()
        await self._labelling.start()

    async def send_watchers_away(self) -> None:
        """End the calls that watch experiments: the server stops."""
        await self.registry.close()

    async def close(self) -> None:
        """Stop; what is not labelled or analysed yet is taken up at the next start."""
        await self._labelling.close()
        await self.analyst.close()
        await self._rollouts.close()
        await self.registry.close()
        await self._shadowing.close()

    async def drain(self) -> None:
        """Wait until what was recorded is judged in shadow, labelled, analysed and acted upon."""
        await self._shadowing.drain()
        await self._labelling.drain()
        await self.analyst.drain()
        await self._rollouts.drain()
