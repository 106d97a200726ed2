"""The nouns of judging: kinds, inputs, programs, answers. Pure data, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "ArtifactInput",
    "ConfidenceSource",
    "Criterion",
    "CriterionScore",
    "Demonstration",
    "Influence",
    "JudgeInput",
    "JudgeKind",
    "JudgeProgram",
    "JudgeResult",
    "Judgment",
    "LabelOffsets",
    "LearnedHead",
    "Memory",
    "MemoryExample",
    "Neighbour",
    "Recalled",
    "RubricInput",
    "RubricResult",
    "Samples",
    "ScoreHead",
    "ScoreMap",
    "Verdict",
    "VerdictHead",
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
    SAMPLED = "sampled"
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
class MemoryExample:
    """A corrected example that a version remembers (``verdict`` xor ``score``) and why."""

    example_id: str
    input: JudgeInput
    verdict: Verdict | None = None
    score: float | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What people corrected before, as a version carries it.

    Attributes:
        guidelines: Short sentences, read with the instructions.
        examples: Searched for those that are most similar to an item.
        shown: How many of the most similar go into the prompt; 0 for none.
        embedding_model: What similarity is measured by; "" for the words themselves.
        embeddings: Base64 of one row of signed bytes per example, in their order; "" without
            an embedding model. A row is a vector but for its length, which cosines ignore.
    """

    guidelines: tuple[str, ...] = ()
    examples: tuple[MemoryExample, ...] = ()
    shown: int = 0
    embedding_model: str = ""
    embeddings: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A remembered example and how similar it is to an item, 0..1."""

    example: MemoryExample
    similarity: float


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a memory brings up for one item.

    Attributes:
        neighbours: The most similar examples, the most similar first.
        mean_label: Mean score of all examples that could have come up; None for verdicts.
    """

    neighbours: tuple[Neighbour, ...] = ()
    mean_label: float | None = None


@dataclass(frozen=True, slots=True)
class Influence:
    """What one remembered example had to do with an answer.

    Attributes:
        example_id: The training example.
        verdict: Its label, xor ``score``.
        similarity: To the item, 0..1.
        weight: What it added to the log-odds of the answered verdict against its best rival, in
            nats, or to the score; negative if it spoke against the answer, 0 without a head.
    """

    example_id: str
    verdict: Verdict | None
    score: float | None
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class VerdictHead:
    """A fitted decision over the LM's probabilities and what similar examples were labelled.

    The log-odds of pass against fail are ``pass_bias + lm_weight * (ln P(pass) - ln P(fail))
    + vote_weight * (V(pass) - V(fail))``, where V(label) is the sum of the similarities of
    those of the ``neighbours`` most similar examples that have the label; likewise for partial.
    """

    neighbours: int
    pass_bias: float
    partial_bias: float
    lm_weight: float
    vote_weight: float


@dataclass(frozen=True, slots=True)
class ScoreHead:
    """A fitted score: ``clip(intercept + raw_weight * raw + label_weight * D, 0, 1)``.

    D is the sum of similarity * (label - mean label of all examples) over the ``neighbours``
    most similar examples, divided by 1 + the sum of their similarities.
    """

    neighbours: int
    intercept: float
    raw_weight: float
    label_weight: float


LearnedHead = VerdictHead | ScoreHead


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
        memory: Corrections that it remembers, if any.
        head: Decides instead of ``offsets`` or ``score_map``, if there is one.
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
    memory: Memory | None = None
    head: LearnedHead | None = None


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


@dataclass(frozen=True, slots=True)
class Samples:
    """What several judgments of one item said.

    Attributes:
        values: Scores, or P(pass) and half of P(partial), 0..1, in the order of asking.
        verdicts: Of judges that answer verdicts, else empty.
        flip_rate: Probability that two of them, drawn at random, differ in verdict; None for scores.
    """

    values: tuple[float, ...]
    verdicts: tuple[Verdict, ...]
    flip_rate: float | None

    @property
    def mean(self) -> float:
        """The mean value."""
        return sum(self.values) / len(self.values)

    @property
    def stddev(self) -> float:
        """The standard deviation of the values (n - 1)."""
        mean = self.mean
        squares = sum((value - mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1))


JudgeResult = Judgment | RubricResult
