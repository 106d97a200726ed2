"""What crosses the pipe between the server and a worker: plain data, JSON both ways.

Secrets (API keys) are part of a spec and travel through the pipe only: a spec is never written to a
file, a log or an event.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import input_from_json
from sidejudge_server.judges.types import JudgeInput
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.plan import SearchPlan
from sidejudge_server.optimization.spending import Spend

__all__ = ["EventKind", "Phase", "Progress", "RunExample", "RunSpec", "spent_before"]


class Phase(StrEnum):
    """What a running optimization is doing, in this order; algorithms leave some out."""

    PREPARING = "preparing"
    BASELINE = "baseline"
    BOOTSTRAPPING = "bootstrapping"
    DISTILLING = "distilling"
    PROPOSING = "proposing"
    SEARCHING = "searching"
    REFITTING = "refitting"
    GATING = "gating"


class EventKind(StrEnum):
    """Kinds of events.

    The first seven are rows of the durable log. ``SNAPSHOT`` and ``HEARTBEAT`` are made for one watcher,
    ``PROGRESS`` and the four last come from the worker and are not shown as they are.
    """

    PHASE_CHANGED = "phase_changed"
    INSTRUCTION_PROPOSED = "instruction_proposed"
    TRIAL_COMPLETED = "trial_completed"
    BEST_IMPROVED = "best_improved"
    WARNING = "warning"
    FINISHED = "finished"
    RESUMED = "resumed"
    SNAPSHOT = "snapshot"
    HEARTBEAT = "heartbeat"
    PROGRESS = "progress"
    RESULT = "result"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def is_final(self) -> bool:
        """Whether a worker says nothing more after it."""
        return self in _FINAL


_FINAL = {EventKind.RESULT, EventKind.FAILED, EventKind.CANCELLED, EventKind.CRASHED}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is and what it has spent; ``cost_usd`` None when a price is unknown.

    ``waiting_for`` names what it waits for, such as a model that does not answer; mostly "".
    """

    trials_completed: int = 0
    trials_total: int = 0
    baseline_score: float | None = None
    best_score: float | None = None
    lm_calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    elapsed_s: float = 0.0
    eta_s: float | None = None
    waiting_for: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Progress:
        """Read what `to_json` wrote; unknown keys are ignored."""
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in document.items() if k in known})


@dataclass(frozen=True, slots=True)
class RunExample:
    """A labelled example; ``verdict`` xor ``score``. ``input_json`` is canonical judge input.

    A language model claims the label of a ``synthetic`` one: it may become a demonstration.

    Examples of one ``group`` belong together; "" is a group of its own.
    """

    example_id: str
    input_json: str
    verdict: str | None = None
    score: float | None = None
    rationale: str = ""
    synthetic: bool = False
    group: str = ""

    @property
    def input(self) -> JudgeInput:
        """The input; CodecError if the JSON is none."""
        return input_from_json(self.input_json)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All that a worker needs; it opens no database and reads no configuration.

    Attributes:
        optimization_id: Identifies the run in logs.
        program_json: The version that serves: where the search starts and what the gate compares with.
        train: Demonstrations come from these.
        validation: Candidates are scored and refitted on these.
        test: The gate alone looks at these.
        plan: Numbers of the search.
        curated: Instructions shipped for the kind, to compete or to stand in for refused proposals.
        task_lm: The model that judges; an embedded one with the address of the server's own process.
        prompt_lm: The model that writes instructions; None takes the task model.
        model_dir: Where models are kept.
        work_dir: Private directory of the run: call cache and log.
        shared_with_earlier: For each earlier use of held-out examples, how many of ``test`` it
            looked at; decides how much of the error rate the gate may spend.
        budget: What the run may spend, all of its lives together.
        spent: What earlier lives have spent.
        elapsed_s: How long earlier lives were at work.
        lm_outage_s: How long a model may fail to answer before that ends the run.
    """

    optimization_id: str
    program_json: str
    train: tuple[RunExample, ...]
    validation: tuple[RunExample, ...]
    test: tuple[RunExample, ...]
    plan: SearchPlan
    curated: tuple[str, ...]
    task_lm: LMSettings = field(repr=False)
    prompt_lm: LMSettings | None = field(repr=False)
    model_dir: str
    work_dir: str
    shared_with_earlier: tuple[int, ...] = ()
    budget: OptimizationBudget = field(default_factory=OptimizationBudget)
    spent: Spend = field(default_factory=Spend)
    elapsed_s: float = 0.0
    lm_outage_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a JSON object, keys included: for the pipe only."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunSpec:
        """Read what `to_json` wrote.

        Raises:
            KeyError: A field is missing.
        """
        prompt = document["prompt_lm"]
        return cls(
            optimization_id=document["optimization_id"],
            program_json=document["program_json"],
            train=_examples(document["train"]),
            validation=_examples(document["validation"]),
            test=_examples(document["test"]),
            plan=SearchPlan.from_json(document["plan"]),
            curated=tuple(document["curated"]),
            task_lm=LMSettings(**document["task_lm"]),
            prompt_lm=LMSettings(**prompt) if prompt else None,
            model_dir=document["model_dir"],
            work_dir=document["work_dir"],
            shared_with_earlier=tuple(document["shared_with_earlier"]),
            budget=OptimizationBudget.from_json(document["budget"]),
            spent=Spend(**document["spent"]),
            elapsed_s=document["elapsed_s"],
            lm_outage_s=document["lm_outage_s"],
        )


def spent_before(progress: Progress) -> Spend:
    """Return what a run had spent when it made this progress."""
    fields = Spend.__dataclass_fields__
    return Spend(**{name: getattr(progress, name) for name in fields})


def _examples(documents: list[dict[str, Any]]) -> tuple[RunExample, ...]:
    return tuple(RunExample(**document) for document in documents)
