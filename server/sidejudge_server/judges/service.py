"""Judge items: choose the version, ask the LM, store, answer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from sidejudge_server.config import Settings
from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    JudgeOutputError,
    LMError,
    NotFoundError,
    OverloadedError,
)
from sidejudge_server.judges.codec import canonical_json, input_to_json
from sidejudge_server.judges.evaluator import Answer, evaluate
from sidejudge_server.judges.fitting import fitting_input
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.judges.routing import NoRouter, Route, Router
from sidejudge_server.judges.samples import evaluate_repeatedly
from sidejudge_server.judges.slack import Slack
from sidejudge_server.judges.types import JudgeInput, Judgment
from sidejudge_server.judges.versions import Judge, JudgeVersion
from sidejudge_server.lm.types import ChatClient
from sidejudge_server.trust.codec import noting_suspicions, samples_json
from sidejudge_server.trust.types import Target
from sidejudge_storage import (
    EvaluationFilter,
    EvaluationKey,
    EvaluationRecord,
    Storage,
)
from sidejudge_storage.ids import new_id

__all__ = ["EvaluateCommand", "EvaluationService"]

_RECENT = 20_000
_OVERLOAD_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class EvaluateCommand:
    """One item to judge.

    Attributes:
        judge_id: The judge.
        input: Of the shape that the judge asks for.
        version: None for the deployed one.
        explain: False to leave reasoning and suggestions out.
        subject: The caller's key for who or what is judged.
        group: Keeps related items on one side of every data split; "" for a group of its own.
        labels: For slicing.
        request_id: UUID of the request, or "".
        timeout_s: Seconds that are left; None leaves it to the LM client.
        experiment_id: The experiment whose arm made what is judged, or "".
        arm_id: That arm, or "" for the one that the subject was assigned.
        target: What answers that are accepted are to meet; None to leave that open.
        n_samples: How many times to judge; the answer is their mean.
        second_look: Whether to judge again what seems to speak to its judge.
        model: Name of a further model that is to answer; "" for the one that serves.
    """

    judge_id: str
    input: JudgeInput
    version: int | None = None
    explain: bool = True
    subject: str = ""
    group: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    timeout_s: float | None = None
    experiment_id: str = ""
    arm_id: str = ""
    target: Target | None = None
    n_samples: int = 1
    second_look: bool = True
    model: str = ""


class Assess(Protocol):
    """Returns what an evaluation keeps of what is known of its confidence; see `trust`."""

    async def __call__(
        self,
        judge_id: str,
        version: int,
        confidence: float | None,
        target: Target | None,
        *,
        suspected: bool,
    ) -> str | None:
        """Return it; None if nothing is known and no target was asked for."""


AuditProbability = Callable[[str, str], float | None]
"""Given judge and evaluation, returns the probability with which it was chosen, None if it was not."""


@dataclass(frozen=True, slots=True)
class _Answered:
    version: JudgeVersion
    answer: Answer
    route: Route | None


class EvaluationService:
    """Judges items and reads what was judged."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        client: ChatClient,
        settings: Settings,
        *,
        requests: RequestLog | None = None,
        slack: Slack | None = None,
        router: Router | None = None,
        audit: AuditProbability | None = None,
        assess: Assess | None = None,
        models: Mapping[str, ChatClient] | None = None,
    ) -> None:
        """Create it.

        Args:
            storage: Where answers are kept.
            registry: The judges.
            client: The language model.
            settings: Limits.
            requests: The process's log of requests.
            slack: Told of every evaluation, so that background work stays out of the way.
            router: Says which version answers where experiments run.
            audit: Chooses answers of deployed versions for people to label.
            assess: Says what is known of an answer's confidence.
            models: Further language models by name.
        """
        self._storage = storage
        self._registry = registry
        self._client = client
        self._slack = slack or Slack(settings.task_lm.max_concurrency)
        self._requests = requests or RequestLog(storage)
        self._router: Router = router or NoRouter()
        self._audit = audit
        self._assess = assess
        self._models = dict(models or {})
        self._capacity = settings.server.max_pending_evaluations
        self._in_progress = 0
        self._recent: OrderedDict[str, EvaluationKey] = OrderedDict()

    @property
    def in_progress(self) -> int:
        """Evaluations that have been accepted and not answered yet."""
        return self._in_progress

    async def evaluate(self, command: EvaluateCommand) -> EvaluationRecord:
        """Judge an item and return it once it is on disk.

        Raises:
            NotFoundError: There is no such judge or version.
            InvalidRequestError: The input does not fit the judge, or the request_id was used.
            OverloadedError: Too many evaluations are in progress.
            LMError: The language model did not deliver.
            DeadlineError: ``timeout_s`` passed.
            StorageUnavailableError: The answer could not be stored.
        """

        # Checked inside: a repeat gets the first answer, whatever became of the judge since.
        async def perform(claim: Claim) -> EvaluationRecord:
            judge = self._registry.get(command.judge_id)
            self._registry.get_version(command.judge_id, command.version)
            item = fitting_input(judge, command.input)
            _require_verdicts(judge, command)
            route = await self._route(command)
            return await self._judge(command, route, item, claim=claim)

        if not command.request_id:
            return await perform(lambda _: ())
        return await self._requests.once(
            command.request_id,
            method="Evaluate",
            fingerprint=_fingerprint(command),
            perform=perform,
            recall=self.get,
        )

    async def get(self, evaluation_id: str) -> EvaluationRecord:
        """Return an evaluation; NotFoundError if there is none."""
        record = await self._storage.evaluations.get(evaluation_id)
        if record is None:
            name = f"evaluations/{evaluation_id}"
            raise NotFoundError(
                f"there is no {name}",
                reason="EVALUATION_NOT_FOUND",
                resource_type="Evaluation",
                resource_name=name,
            )
        return record

    async def list(
        self, criteria: EvaluationFilter, *, before: str | None = None, limit: int
    ) -> Sequence[EvaluationRecord]:
        """Return evaluations that match, newest first, at most ``limit``, older than ``before``."""
        return await self._storage.evaluations.list(
            criteria, before=before, limit=limit
        )

    def recent(self, evaluation_id: str) -> EvaluationKey | None:
        """Return what a recent evaluation answered without asking the database; None if unknown."""
        return self._recent.get(evaluation_id)

    async def _route(self, command: EvaluateCommand) -> Route | None:
        """Return the experiment that an evaluation is part of, if it is part of one."""
        if command.experiment_id:
            return await self._router.callers_route(
                command.experiment_id, command.subject, command.arm_id
            )
        if command.version is not None:
            return None
        return self._router.route(command.judge_id, command.subject)

    async def _judge(
        self,
        command: EvaluateCommand,
        route: Route | None,
        item: JudgeInput,
        *,
        claim: Claim,
    ) -> EvaluationRecord:
        if self._in_progress >= self._capacity:
            raise OverloadedError(
                f"{self._capacity} evaluations are in progress; try again soon",
                reason="OVERLOADED",
                retry_after_s=_OVERLOAD_RETRY_S,
            )
        self._in_progress += 1
        self._slack.enter()
        try:
            answered = await self._ask(command, route, item)
            record = self._audited(
                command,
                _record(command, answered, item, model=self._asked(command).model),
            )
            seen = answered.answer.suspicions
            record = await self._assessed(command, record, suspected=bool(seen))
            if seen:
                text = noting_suspicions(record.trust_json, seen)
                record = replace(record, trust_json=text)
            await commit(self._storage, record, *claim(record.evaluation_id))
        finally:
            self._in_progress -= 1
            self._slack.leave()
        self._remember(record)
        if record.experiment_id is not None:
            self._router.answered(record, item)
        return record

    async def _ask(
        self, command: EvaluateCommand, route: Route | None, item: JudgeInput
    ) -> _Answered:
        """Ask the version that is to answer, and where its answer is unusable the one to fall back to.

        What an experiment tries out must not cost the caller an answer; the answer of the other
        version then counts for no arm.
        """
        chosen = command.version if route is None else route.version
        version = self._registry.get_version(command.judge_id, chosen)
        began = time.monotonic()
        try:
            answer = await self._evaluate(command, version, item, spent_s=0.0)
        except LMError as error:
            if route is None:
                raise
            await self._router.failed(
                route,
                judge_id=version.judge_id,
                version=version.version,
                subject=command.subject,
                error=error,
            )
            if route.fallback is None or not isinstance(error, JudgeOutputError):
                raise
            version = self._registry.get_version(command.judge_id, route.fallback)
            spent_s = time.monotonic() - began
            answer = await self._evaluate(command, version, item, spent_s=spent_s)
            route = None
        return _Answered(version, answer, route)

    def _audited(
        self, command: EvaluateCommand, record: EvaluationRecord
    ) -> EvaluationRecord:
        """Choose an answer of the deployed version by chance for people to label."""
        if self._audit is None or command.version is not None:
            return record
        if record.version != self._registry.get_version(record.judge_id).version:
            return record
        probability = self._audit(record.judge_id, record.evaluation_id)
        if probability is None:
            return record
        return replace(record, audit_probability=probability)

    async def _assessed(
        self, command: EvaluateCommand, record: EvaluationRecord, *, suspected: bool
    ) -> EvaluationRecord:
        """Say what is known of the answer's confidence, and whether it meets the target.

        The labels are of answers to one question each by the model that serves; the mean of several
        is another judge, and so is another model.
        """
        if self._assess is None or command.n_samples > 1 or command.model:
            return record
        found = await self._assess(
            record.judge_id,
            record.version,
            record.confidence,
            command.target,
            suspected=suspected,
        )
        if found is None:
            return record
        return replace(record, trust_json=found)

    async def _evaluate(
        self,
        command: EvaluateCommand,
        version: JudgeVersion,
        item: JudgeInput,
        *,
        spent_s: float,
    ) -> Answer:
        timeout_s = command.timeout_s
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - spent_s)
        if command.n_samples > 1:
            return await evaluate_repeatedly(
                version.program,
                item,
                self._asked(command),
                n_samples=command.n_samples,
                explain=command.explain,
                timeout_s=timeout_s,
                second_look=command.second_look,
            )
        return await evaluate(
            version.program,
            item,
            self._asked(command),
            explain=command.explain,
            timeout_s=timeout_s,
            second_look=command.second_look,
        )

    def _asked(self, command: EvaluateCommand) -> ChatClient:
        """Return the model that is to answer, which whoever names one has looked for."""
        return self._models[command.model] if command.model else self._client

    def _remember(self, record: EvaluationRecord) -> None:
        self._recent[record.evaluation_id] = EvaluationKey(
            record.evaluation_id, record.judge_id, record.verdict, record.score
        )
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)


def _require_verdicts(judge: Judge, command: EvaluateCommand) -> None:
    if command.target is not None and judge.spec.answers_score:
        problem = f"{judge.name} answers a score without a confidence; leave it out"
        raise InvalidRequestError([FieldViolation("selection", problem)])


def _fingerprint(command: EvaluateCommand) -> str:
    parts: list[object] = [
        command.judge_id,
        command.version,
        input_to_json(command.input),
        command.explain,
        command.subject,
        command.group,
        dict(command.labels),
    ]
    if command.experiment_id:  # else as before there were experiments
        parts += [command.experiment_id, command.arm_id]
    if command.n_samples > 1:  # likewise
        parts.append({"n_samples": command.n_samples})
    if not command.second_look:  # likewise
        parts.append({"second_look": False})
    if command.target is not None:  # likewise
        parts.append(asdict(command.target))
    return canonical_json(parts)


def _record(
    command: EvaluateCommand, answered: _Answered, item: JudgeInput, *, model: str
) -> EvaluationRecord:
    version, answer, route = answered.version, answered.answer, answered.route
    result, usage = answer.result, answer.usage
    judgment = result if isinstance(result, Judgment) else None
    rubric = None if isinstance(result, Judgment) else result
    probabilities = judgment.probabilities if judgment else None
    source = judgment.confidence_source if judgment else rubric and rubric.source
    return EvaluationRecord(
        evaluation_id=new_id(),
        judge_id=version.judge_id,
        version=version.version,
        created_at=datetime.now(UTC),
        input_json=input_to_json(item),
        verdict=judgment.verdict.value if judgment else None,
        score=rubric.score if rubric else None,
        confidence=judgment.confidence if judgment else None,
        confidence_source=source.value if source else "none",
        p_pass=probabilities.passed if probabilities else None,
        p_partial=probabilities.partial if probabilities else None,
        p_fail=probabilities.failed if probabilities else None,
        score_stddev=rubric.stddev if rubric else None,
        reasoning=result.reasoning,
        suggestions_json=canonical_json(list(rubric.suggestions) if rubric else []),
        criterion_scores_json=canonical_json(
            [
                {"criterion": grade.criterion, "score": grade.score}
                for grade in (rubric.criterion_scores if rubric else ())
            ]
        ),
        model=model,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        lm_latency_ms=1000.0 * usage.latency_s,
        subject=command.subject,
        group_key=command.group,
        labels_json=canonical_json(dict(command.labels)),
        influences_json=canonical_json([asdict(i) for i in answer.influences])
        if version.program.memory is not None
        else None,
        trust_json=samples_json(answer.samples) if answer.samples else None,
        experiment_id=route.experiment_id if route else None,
        arm_id=route.arm_id if route else None,
        stage=route.stage if route else None,
    )
