"""Estimates runs: renders real requests, looks at what recent calls took, and says what it rests on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import InvalidRequestError, NotFoundError
from sidejudge_server.judges.codec import (
    CodecError,
    canonical_json,
    input_from_json,
)
from sidejudge_server.judges.kinds import curated_instructions
from sidejudge_server.judges.prompt import build_request
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.types import (
    ConfidenceSource,
    Demonstration,
    JudgeInput,
    JudgeProgram,
    Verdict,
)
from sidejudge_server.judges.versions import JudgeVersion
from sidejudge_server.lm.pricing import price_of
from sidejudge_server.lm.providers import PROVIDERS, Provider
from sidejudge_server.lm.types import ChatRequest
from sidejudge_server.optimization.estimate import (
    NO_BOUNDS,
    Bounds,
    Expectation,
    Lengths,
    Rates,
    RunEstimate,
    estimate_run,
)
from sidejudge_server.optimization.plan import (
    InstructionSource,
    OptimizationConfig,
    SearchPlan,
)
from sidejudge_server.optimization.planning import completed_config, plan_for
from sidejudge_server.optimization.workload import DataCounts, expected_calls
from sidejudge_server.training.readiness import TrainingSet
from sidejudge_server.training.service import TrainingData, TrainingSets
from sidejudge_storage import EvaluationRecord, ExampleRecord, Storage

__all__ = ["Estimator", "Preview"]

_RECENT = 50
_SAMPLE = 40
_ENOUGH = 5
"""Recent evaluations below which their mean says less than the default."""
_SHORT_ANSWER_TOKENS = 16
"""Evaluations that were asked for the verdict alone, as a run asks, generate no more."""
_CHARS_PER_TOKEN = 4.0
_STATED_TOKENS = 8.0
_ASSUMED_INPUT_CHARS = 1_000.0
_LOCAL_CALL_S = 0.5
_REMOTE_CALL_S = 1.0
_LOCAL_PROPOSAL_S = 10.0
_REMOTE_PROPOSAL_S = 4.0
_FEW_HELD_OUT = 20


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would take, with its completed configuration and the data it would use."""

    estimate: RunEstimate
    config_json: str
    training_set: TrainingSet
    warnings: tuple[str, ...]
    reaches_gate: bool
    """False if the budget ends the run before the gate can speak."""


@dataclass(frozen=True, slots=True)
class _Recent:
    """What recent evaluations of a judge took; None for what they do not tell."""

    count: int
    call_s: float | None
    tokens_per_char: float | None
    output_tokens: float | None
    logprobs: bool | None
    with_reasons: bool


class Estimator:
    """Says what a run is expected to take."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        training: TrainingSets,
        settings: Settings,
    ) -> None:
        """Make it.

        Args:
            storage: Holds recent evaluations.
            registry: Their judge versions.
            training: What judges have to learn from.
            settings: Models, prices and concurrency.
        """
        self._storage = storage
        self._registry = registry
        self._training = training
        self._settings = settings

    async def preview(
        self, judge_id: str, config: OptimizationConfig, bounds: Bounds = NO_BOUNDS
    ) -> Preview:
        """Estimate a run that nobody has started, also if the data are not ready for one.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: The configuration is out of range.
            StorageUnavailableError: Examples could not be derived from feedback.
        """
        if violations := config.violations():
            raise InvalidRequestError(violations)
        version = self._registry.get_version(judge_id)
        data = await self._training.training_data(judge_id, synthetic=config.synthetic)
        plan = plan_for(self._settings, config, version, data.training_set)
        expected = await self.estimate(version, plan, data=data, bounds=bounds)
        return Preview(
            expected.estimate,
            canonical_json(completed_config(config, plan)),
            data.training_set,
            expected.warnings,
            expected.reaches_gate,
        )

    async def estimate(
        self,
        version: JudgeVersion,
        plan: SearchPlan,
        *,
        data: TrainingData,
        bounds: Bounds,
    ) -> Expectation:
        """Estimate a run and say what else to know before it starts.

        Args:
            version: The version that the run starts from.
            plan: Numbers of the search.
            data: What there is to learn from; may be empty.
            bounds: What the run may spend.
        """
        program = version.program
        counts = DataCounts(
            data.training_set.train_count,
            data.training_set.validation_count,
            data.training_set.test_count,
        )
        recent = await self._recent(version.judge_id)
        task = self._settings.task_lm
        logprobs = _gives_logprobs(task) if recent.logprobs is None else recent.logprobs
        work = expected_calls(
            plan,
            counts,
            curated_count=len(curated_instructions(program)),
            has_demonstrations=bool(program.demonstrations),
        )
        expected = estimate_run(
            work,
            plan,
            lengths=_lengths(program, data.examples, logprobs=logprobs),
            rates=self._rates(recent, logprobs=logprobs),
            bounds=bounds,
        )
        warnings = (*expected.warnings, *self._warnings(plan, counts))
        return replace(expected, warnings=warnings)

    def _rates(self, recent: _Recent, *, logprobs: bool) -> Rates:
        task = self._settings.task_lm
        prompt = self._settings.prompt_lm or task
        default_s = _LOCAL_CALL_S if _is_local(task) else _REMOTE_CALL_S
        proposal_s = _LOCAL_PROPOSAL_S if _is_local(prompt) else _REMOTE_PROPOSAL_S
        return Rates(
            tokens_per_char=recent.tokens_per_char or 1 / _CHARS_PER_TOKEN,
            output_tokens=recent.output_tokens or (1.0 if logprobs else _STATED_TOKENS),
            task_call_s=default_s if recent.call_s is None else recent.call_s,
            prompt_call_s=proposal_s,
            task_price=price_of(task),
            prompt_price=price_of(prompt),
            basis=_basis(recent, task=task, default_s=default_s),
        )

    def _warnings(self, plan: SearchPlan, counts: DataCounts) -> list[str]:
        task = self._settings.task_lm
        proposes = plan.instruction_source is InstructionSource.PROPOSER
        prompt = (self._settings.prompt_lm or task) if proposes else task
        found = [
            f"the price of {lm.model} is not known: set {prefix}INPUT_USD_PER_MTOK and "
            f"{prefix}OUTPUT_USD_PER_MTOK to see what a run costs"
            for lm, prefix in _distinct(
                (task, "SIDEJUDGE_LM_"),
                (
                    prompt,
                    "SIDEJUDGE_PROMPT_LM_"
                    if self._settings.prompt_lm
                    else "SIDEJUDGE_LM_",
                ),
            )
            if price_of(lm) is None
        ]
        if proposes and _is_local(prompt):
            found.append(
                f"{prompt.model} writes the instructions: models of its size mostly write "
                "unusable ones; take curated instructions or set SIDEJUDGE_PROMPT_LM"
            )
        if counts.test < _FEW_HELD_OUT:
            found.append(
                f"{counts.test} examples are held out for the gate: only a large improvement can "
                "be told from chance"
            )
        return found

    async def _recent(self, judge_id: str) -> _Recent:
        """Look at the last evaluations that the task model answered, those without reasons first."""
        records = await self._storage.evaluations.latest(
            judge_id, model=self._settings.task_lm.model, limit=_RECENT
        )
        measured = [r for r in records if r.lm_calls > 0]
        short = [
            r for r in measured if r.output_tokens <= _SHORT_ANSWER_TOKENS * r.lm_calls
        ]
        timed = short if len(short) >= _ENOUGH else measured
        calls = sum(r.lm_calls for r in timed)
        enough = len(timed) >= _ENOUGH
        return _Recent(
            count=len(timed) if enough else 0,
            call_s=sum(r.lm_latency_ms for r in timed) / 1000 / calls
            if enough
            else None,
            tokens_per_char=self._tokens_per_char(measured) if enough else None,
            output_tokens=sum(r.output_tokens for r in short) / calls
            if enough and timed is short
            else None,
            logprobs=any(
                r.confidence_source == ConfidenceSource.LOGPROB for r in measured
            )
            if measured
            else None,
            with_reasons=enough and timed is not short,
        )

    def _tokens_per_char(self, records: Sequence[EvaluationRecord]) -> float | None:
        """Compare the tokens that were counted with the requests as they must have been."""
        tokens = chars = 0
        for record in records:
            try:
                version = self._registry.get_version(record.judge_id, record.version)
                item = input_from_json(record.input_json)
            except (NotFoundError, CodecError):
                continue
            request = build_request(
                version.program, item, explain=True, supports_logprobs=True
            )
            tokens += record.input_tokens
            chars += record.lm_calls * _chars(request)
        return tokens / chars if tokens and chars else None


def _lengths(
    program: JudgeProgram, examples: Sequence[ExampleRecord], *, logprobs: bool
) -> Lengths:
    """Render requests about a spread of the examples, with and without demonstrations."""
    bare = replace(program, demonstrations=())
    serving, plain, shown = [], [], []
    for example in examples[:: max(1, len(examples) // _SAMPLE)]:
        item = input_from_json(example.input_json)
        demonstration = Demonstration(
            item,
            Verdict(example.verdict) if example.verdict else None,
            example.score,
            example.rationale,
        )
        one = replace(bare, demonstrations=(demonstration,))
        alone = _request_chars(bare, item, logprobs=logprobs)
        plain.append(alone)
        serving.append(_request_chars(program, item, logprobs=logprobs))
        shown.append(_request_chars(one, item, logprobs=logprobs) - alone)
    if not plain:
        asked = len(program.instructions) + _ASSUMED_INPUT_CHARS
        return Lengths(asked, asked, _ASSUMED_INPUT_CHARS, _ASSUMED_INPUT_CHARS)
    return Lengths(
        serving=statistics.fmean(serving),
        bare=statistics.fmean(plain),
        demonstration=statistics.fmean(shown),
        example=statistics.fmean(len(e.input_json) for e in examples),
    )


def _request_chars(program: JudgeProgram, item: JudgeInput, *, logprobs: bool) -> int:
    return _chars(
        build_request(program, item, explain=False, supports_logprobs=logprobs)
    )


def _chars(request: ChatRequest) -> int:
    return sum(len(message.content) for message in request.messages)


def _basis(recent: _Recent, *, task: LMSettings, default_s: float) -> str:
    """Say what an estimate rests on."""
    if recent.call_s is None:
        time = f"an assumed {default_s:g} s a call, because {task.model} has judged too little here"
    else:
        time = f"{recent.call_s:.2g} s a call, the mean of the last {recent.count} evaluations"
        if recent.with_reasons:
            time += " (with reasons, which a run leaves out: it will be faster)"
    tokens = (
        f"an assumed {_CHARS_PER_TOKEN:g} characters a token"
        if recent.tokens_per_char is None
        else f"{1 / recent.tokens_per_char:.1f} characters a token as measured"
    )
    return (
        f"{time}; requests rendered with the judge's own examples, {tokens}; no prompt cache of "
        "the provider, no repeated combination beyond chance"
    )


def _gives_logprobs(lm: LMSettings) -> bool:
    if lm.logprobs is not None:
        return lm.logprobs
    prefix = lm.model.partition("/")[0]
    return _is_local(lm) or PROVIDERS.get(prefix, Provider(None)).max_top_logprobs > 0


def _is_local(lm: LMSettings) -> bool:
    return lm.model.startswith("local/")


def _distinct(*models: tuple[LMSettings, str]) -> list[tuple[LMSettings, str]]:
    return list({lm.model: (lm, prefix) for lm, prefix in models}.values())
