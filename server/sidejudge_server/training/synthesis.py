"""Has a language model write synthetic examples, within bounds, and puts them on the train side."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidRequestError,
    LMError,
)
from sidejudge_server.judges.codec import CodecError, canonical_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.lm.attempts import AttemptBound
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.types import ChatClient, LMUsage
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.labels import LabelRules, label_rules
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.synthetic import (
    PER_SOURCE,
    SHARE,
    Reading,
    choose_sources,
    read_answer,
    synthesis_request,
)
from sidejudge_storage import ExampleRecord, Storage

__all__ = ["MAX_CALLS", "MAX_COUNT", "Synthesis", "Synthesizer"]

_log = logging.getLogger(__name__)

MAX_COUNT = 100
MAX_CALLS = 200
DEFAULT_COUNT = 20
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Rejected:
    """A synthetic example that does not count; ``index`` counts what was read in one call."""

    index: int
    rejection: str
    detail: str


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What came of a request.

    Attributes:
        example_ids: Examples that count now.
        rejected: What the validator refused.
        unreadable_count: Examples that could not be read from answers, or were not as asked.
        lm_calls: Requests made, retries included.
        stopped_by: Why there are fewer than asked for; "" if there are not.
    """

    example_ids: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unreadable_count: int = 0
    lm_calls: int = 0
    stopped_by: str = ""

    def to_text(self) -> str:
        """Return a text that `from_text` reads."""
        return canonical_json(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Synthesis:
        """Read what `to_text` wrote."""
        document: dict[str, Any] = json.loads(text)
        document["example_ids"] = tuple(document["example_ids"])
        document["rejected"] = tuple(Rejected(**r) for r in document["rejected"])
        return cls(**document)


class _CallsUsedUpError(Exception):
    """No further request may be made."""


@dataclass(slots=True)
class _CallLimit:
    """Counts requests, retries included, and forbids those beyond a limit."""

    limit: int
    calls: int = 0

    async def begin(self, bound: AttemptBound) -> object:
        del bound
        if self.calls >= self.limit:
            raise _CallsUsedUpError
        self.calls += 1
        return self.calls

    def end(
        self, ticket: object, usage: LMUsage | None, *, answered: bool = False
    ) -> None:
        """Take note of nothing: calls alone are bounded."""


@dataclass(slots=True)
class _Progress:
    """What has been made so far."""

    ids: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    read: int = 0
    unreadable: int = 0
    stopped_by: str = ""


class Synthesizer:
    """Makes synthetic examples on request."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        collector: TrainingCollector,
        settings: Settings,
        *,
        requests: RequestLog,
        resolve_lm: Callable[[LMSettings], Awaitable[LMSettings]],
    ) -> None:
        """Make it.

        Args:
            storage: Holds the examples.
            registry: The judges.
            collector: Its intake is the one door into the training data.
            settings: Models and limits.
            requests: The process's log of requests.
            resolve_lm: Turns configured LM settings into those to connect with.
        """
        self._storage = storage
        self._registry = registry
        self._collector = collector
        self._settings = settings
        self._requests = requests
        self._resolve_lm = resolve_lm

    async def synthesize(
        self,
        judge_id: str,
        *,
        max_count: int = 0,
        max_lm_calls: int = 0,
        request_id: str = "",
    ) -> Synthesis:
        """Have variations and counter-examples of training examples written, validated and stored.

        Args:
            judge_id: The judge.
            max_count: At most so many, 1 to 100; 20 if 0.
            max_lm_calls: At most so many requests, 1 to 200; as many as ``max_count`` if 0.
            request_id: UUID of the request, or "".

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: A number is out of range, or the request_id was used.
            FailedPreconditionError: SYNTHETIC_LIMIT_REACHED.
            LMError: The model did not deliver, and nothing was made before.
            StorageUnavailableError: The examples were not written.
        """
        max_count = max_count or DEFAULT_COUNT
        max_lm_calls = max_lm_calls or min(max_count, MAX_CALLS)
        if violations := _violations(max_count, max_lm_calls):
            raise InvalidRequestError(violations)

        async def perform(claim: Claim) -> Synthesis:
            made = await self._synthesize(judge_id, max_count, max_lm_calls)
            if commands := claim(made.to_text()):
                await commit(self._storage, *commands)
            return made

        async def recall(text: str) -> Synthesis:
            return Synthesis.from_text(text)

        return await self._requests.once(
            request_id,
            method="SynthesizeTrainingExamples",
            fingerprint=canonical_json([judge_id, max_count, max_lm_calls]),
            perform=perform,
            recall=recall,
        )

    async def _synthesize(
        self, judge_id: str, max_count: int, max_lm_calls: int
    ) -> Synthesis:
        judge = self._registry.get(judge_id)
        program = self._registry.get_version(judge_id).program
        await self._collector.drain()
        examples = await self._storage.examples.accepted(judge_id)
        room = _room(judge_id, examples)
        wanted = min(max_count, room)
        # Answers may be of no use: more sources than needed.
        sources = choose_sources(examples, count=max_lm_calls)
        rules = label_rules(judge_id, judge.spec)
        limit = _CallLimit(max_lm_calls)
        progress = _Progress()
        if room < max_count:
            progress.stopped_by = (
                f"synthetic examples are at most half as many as the real ones on the train side, "
                f"so there was room for {room}"
            )
        settings = await self._resolve_lm(
            self._settings.prompt_lm or self._settings.task_lm
        )
        client = create_client(
            settings, model_dir=self._settings.model_dir, meter=limit
        )
        try:
            await self._make(
                client, program, sources, rules=rules, wanted=wanted, progress=progress
            )
        finally:
            await client.close()
        return Synthesis(
            tuple(progress.ids),
            tuple(progress.rejected),
            progress.unreadable,
            limit.calls,
            progress.stopped_by if len(progress.ids) < max_count else "",
        )

    async def _make(
        self,
        client: ChatClient,
        program: JudgeProgram,
        sources: Sequence[ExampleRecord],
        *,
        rules: LabelRules,
        wanted: int,
        progress: _Progress,
    ) -> None:
        """Ask about sources, a few at once, until there is enough; keep what was made on the way."""
        left = list(sources)
        while left and len(progress.ids) < wanted:
            missing = -(-(wanted - len(progress.ids)) // PER_SOURCE)
            size = min(missing, _AT_ONCE, len(left))
            wave, left = left[:size], left[size:]
            answers = await asyncio.gather(
                *(_ask(client, program, source, rules=rules) for source in wave),
                return_exceptions=True,
            )
            readings = [a for a in answers if isinstance(a, Reading)]
            await self._admit(rules, readings, wanted=wanted, progress=progress)
            errors = [a for a in answers if isinstance(a, BaseException)]
            if errors and not _ends_quietly(errors, progress):
                raise errors[0]
            if errors:
                return
        if len(progress.ids) < wanted:
            progress.stopped_by = (
                "every training example that there were calls for was asked about"
            )

    async def _admit(
        self,
        rules: LabelRules,
        readings: Sequence[Reading],
        *,
        wanted: int,
        progress: _Progress,
    ) -> None:
        candidates = [c for reading in readings for c in reading.candidates]
        progress.unreadable += sum(reading.unreadable for reading in readings)
        room = wanted - len(progress.ids)
        records = await self._collector.intake.admit_synthetic(
            rules, candidates, at_most=room
        )
        for record in records:
            if record.rejection is None:
                progress.ids.append(record.example_id)
            else:
                progress.rejected.append(
                    Rejected(progress.read, record.rejection, record.rejection_detail)
                )
            progress.read += 1


async def _ask(
    client: ChatClient,
    program: JudgeProgram,
    source: ExampleRecord,
    *,
    rules: LabelRules,
) -> Reading:
    try:
        request = synthesis_request(program, source)
    except CodecError:
        return Reading((), 0)
    answer = await client.complete(request)
    return read_answer(
        rules,
        source,
        answer.text,
        model=client.model,
        created_at=datetime.now(UTC),
    )


def _ends_quietly(errors: Sequence[BaseException], progress: _Progress) -> bool:
    """Note why no more is asked; False if there is nothing to keep, or a fault of ours."""
    if all(isinstance(error, _CallsUsedUpError) for error in errors):
        progress.stopped_by = "max_lm_calls was reached"
        return True
    failed = next((e for e in errors if isinstance(e, LMError)), None)
    if failed is None or not progress.ids:
        return False
    _log.warning("no further synthetic examples: %s", failed.reason)
    progress.stopped_by = f"the model did not deliver: {failed.message}"
    return True


def _room(judge_id: str, examples: Sequence[ExampleRecord]) -> int:
    """Return how many more synthetic examples there may be.

    Raises:
        FailedPreconditionError: None.
    """
    train = [e for e in examples if e.split == "train"]
    have = sum(e.origin == SYNTHETIC for e in train)
    limit = int(SHARE * (len(train) - have))
    if have < limit:
        return limit - have
    raise FailedPreconditionError(
        f"judges/{judge_id} has {have} synthetic examples; with {len(train) - have} real ones on the "
        f"train side there may be {limit}: record feedback or import more",
        reason="SYNTHETIC_LIMIT_REACHED",
        metadata={"have": str(have), "limit": str(limit)},
    )


def _violations(max_count: int, max_lm_calls: int) -> list[FieldViolation]:
    found = []
    if not 1 <= max_count <= MAX_COUNT:
        found.append(FieldViolation("max_count", f"must be 1 to {MAX_COUNT}"))
    if not 1 <= max_lm_calls <= MAX_CALLS:
        found.append(FieldViolation("max_lm_calls", f"must be 1 to {MAX_CALLS}"))
    return found
