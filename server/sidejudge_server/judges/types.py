"""The nouns of judging: kinds, inputs, programs, answers. Pure data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "ArtifactInput",
    "ConfidenceSource",
    "Criterion",
    "CriterionScore",
    "Demonstration",
    "JudgeInput",
    "JudgeKind",
    "JudgeProgram",
    "JudgeResult",
    "Judgment",
    "LabelOffsets",
    "RubricInput",
    "RubricResult",
    "ScoreMap",
    "Verdict",
    "VerdictProbabilities",
]


class JudgeKind(StrEnum):
    """What a judge looks at."""

    RUBRIC = "rubric"
    RELEVANCE = "relevance"
    FAITHFULNESS = "faithfulness"
    MINIMALITY = "minimality"
    SAFETY = "safety"
    CUSTOM = "custom"


class Verdict(StrEnum):
    """The answer of a judge that does not score."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    PARTIAL = "partial"
    FAIL = "fail"


class ConfidenceSource(StrEnum):
    """Where a probability comes from."""

    LOGPROB = "logprob"
    STATED = "stated"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that a rubric looks at."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class RubricInput:
    """Input of a judge that scores."""

    task_context: str
    agent_output: str
    criteria: tuple[Criterion, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactInput:
    """Input of a judge that answers a verdict. ``fields`` only for custom judges."""

    artifact: str
    ground_truth: str | None = None
    context: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


JudgeInput = RubricInput | ArtifactInput


@dataclass(frozen=True, slots=True)
class LabelOffsets:
    """Decision rule: added to ln P(pass) and ln P(partial), in nats; fail has 0."""

    passed: float = 0.0
    partial: float = 0.0


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """score = clip(intercept + slope * raw, 0, 1)."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A worked example: an input with its right answer (``verdict`` xor ``score``) and why."""

    input: JudgeInput
    verdict: Verdict | None = None
    score: float | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class JudgeProgram:
    """All that decides how a judge version answers; what the renderer and the decoder read.

    Attributes:
        kind: What it looks at.
        scores: True if it answers a score, else a verdict.
        binary: True if it never answers partial.
        instructions: First text that the LM reads.
        question: Closes every prompt; yes means pass. Ignored by judges that score.
        demonstrations: Shown in this order, before the item.
        offsets: Decision rule of verdicts.
        score_map: Map of raw scores.
        input_fields: Names of a custom judge's further inputs, in prompt order.
    """

    kind: JudgeKind
    scores: bool
    binary: bool
    instructions: str
    question: str
    demonstrations: tuple[Demonstration, ...] = ()
    offsets: LabelOffsets = LabelOffsets()
    score_map: ScoreMap = ScoreMap()
    input_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerdictProbabilities:
    """P(pass), P(partial), P(fail); they add up to 1."""

    passed: float
    partial: float
    failed: float


@dataclass(frozen=True, slots=True)
class Judgment:
    """A verdict; ``probabilities`` are the LM's, before the decision rule, None if it gave none."""

    verdict: Verdict
    confidence: float | None
    confidence_source: ConfidenceSource
    probabilities: VerdictProbabilities | None
    reasoning: str


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """Score of one criterion, 0..1."""

    criterion: str
    score: float


@dataclass(frozen=True, slots=True)
class RubricResult:
    """A score 0..1 after the score map; ``raw_score`` before it; ``stddev`` None without logprobs."""

    score: float
    raw_score: float
    stddev: float | None
    source: ConfidenceSource
    reasoning: str
    suggestions: tuple[str, ...]
    criterion_scores: tuple[CriterionScore, ...]


JudgeResult = Judgment | RubricResult
