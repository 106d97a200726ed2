"""Sums up the training set of a judge and says whether an optimization may start.

A problem stands in the way, a warning limits what a result will mean; each says what to do, with
numbers. The rules are about what a split of 30 / 30 / 40 leaves on each side: 20 examples are
8 test pairs, on which only a flawless winner is beyond chance; 50 are 20.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidejudge_server.judges.types import Verdict
from sidejudge_server.stats.spending import use_number
from sidejudge_server.training.held_out import EarlierUses, gate_bar
from sidejudge_server.training.labels import FIFTHS, label_key, labels_differ
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.splits import Split
from sidejudge_storage.records import ExampleRecord, GateUseRecord

__all__ = [
    "MIN_DISAGREEMENTS",
    "MIN_PER_CLASS",
    "Readiness",
    "TrainingSet",
    "TrainingSetSummary",
]

MIN_PER_CLASS = 3
MIN_DISAGREEMENTS = 5
MIN_GROUPS = 10
MIN_SPREAD = 0.2
"""Standard deviation of scores below which they hardly tell good from bad."""


class Readiness(StrEnum):
    """Whether an optimization may start; names of `TrainingSet.Readiness`."""

    NOT_READY = "not_ready"
    MARGINAL = "marginal"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a judge has to learn from; counts are of examples that count.

    Attributes:
        judge_id: The judge.
        example_count: All.
        train_count: On the train side.
        validation_count: On the validation side.
        test_count: On the test side.
        group_count: Distinct groups.
        label_counts: By verdict or fifth of the score range.
        synthetic_count: Synthetic ones, which count nowhere else but in the digest.
        disagreement_count: Whose label differs from what the judge had answered.
        judged_count: Of which it is known what the judge had answered.
        rejections: Rejected examples by reason.
        readiness: Not ready with problems, else marginal with warnings, else ready.
        problems: What stands in the way, each with what to do.
        warnings: What limits the result, each with what to do.
        digest: SHA-256, hexadecimal, of inputs, labels, rationales and sides; equal for equal
            data whatever the ids and the order.
    """

    judge_id: str
    example_count: int
    train_count: int
    validation_count: int
    test_count: int
    group_count: int
    label_counts: Mapping[str, int]
    disagreement_count: int
    judged_count: int
    rejections: Mapping[str, int]
    readiness: Readiness
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    digest: str
    synthetic_count: int = 0


class TrainingSetSummary:
    """Takes accepted examples one by one and sums them up; keeps no inputs."""

    def __init__(
        self,
        judge_id: str,
        *,
        scores: bool,
        min_examples: int,
        recommended_examples: int,
    ) -> None:
        """Start empty.

        Args:
            judge_id: The judge.
            scores: True if it answers a score.
            min_examples: Fewer are a problem.
            recommended_examples: Fewer are worth a warning.
        """
        self._judge_id = judge_id
        self._scores = scores
        self._min = min_examples
        self._recommended = recommended_examples
        self._splits: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._split_labels: Counter[tuple[str, str]] = Counter()
        self._groups: set[str] = set()
        self._hashes: list[bytes] = []
        self._held_out: set[str] = set()
        self._synthetic = 0
        self._judged = 0
        self._disagreements = 0
        self._sum = 0.0
        self._squares = 0.0

    def add(self, example: ExampleRecord) -> None:
        """Count an accepted example.

        Raises:
            ValueError: It was rejected or has no usable label.
        """
        if example.rejection is not None or example.split is None:
            raise ValueError(f"{example.example_id} does not count")
        label = label_key(example.verdict, example.score)
        self._hashes.append(_digest_of(example))
        if example.origin == SYNTHETIC:
            self._synthetic += 1
            return
        self._splits[example.split] += 1
        self._labels[label] += 1
        self._split_labels[example.split, label] += 1
        self._groups.add(example.group_key)
        if example.split == Split.TEST:
            self._held_out.add(example.content_digest)
        if example.judged_verdict is not None or example.judged_score is not None:
            self._judged += 1
            self._disagreements += labels_differ(
                (example.verdict, example.score),
                (example.judged_verdict, example.judged_score),
            )
        score = example.score or 0.0
        self._sum += score
        self._squares += score * score

    def finish(
        self, rejections: Mapping[str, int], *, uses: Sequence[GateUseRecord] = ()
    ) -> TrainingSet:
        """Return the training set.

        Args:
            rejections: How many examples were rejected, by reason.
            uses: Of the judge's held-out examples by earlier runs, oldest first.
        """
        problems = self._problems()
        warnings = (*self._warnings(), *self._wear(uses))
        return TrainingSet(
            judge_id=self._judge_id,
            example_count=self._count,
            train_count=self._splits[Split.TRAIN],
            validation_count=self._splits[Split.VALIDATION],
            test_count=self._splits[Split.TEST],
            group_count=len(self._groups),
            label_counts=dict(self._labels),
            disagreement_count=self._disagreements,
            judged_count=self._judged,
            rejections=dict(rejections),
            readiness=(
                Readiness.NOT_READY
                if problems
                else Readiness.MARGINAL
                if warnings
                else Readiness.READY
            ),
            problems=problems,
            warnings=warnings,
            digest=hashlib.sha256(b"".join(sorted(self._hashes))).hexdigest(),
            synthetic_count=self._synthetic,
        )

    @property
    def _count(self) -> int:
        return self._splits.total()

    def _problems(self) -> tuple[str, ...]:
        found = []
        if self._count < self._min:
            found.append(
                f"{self._count} examples count, an optimization needs {self._min}: "
                f"record feedback on {self._min - self._count} more evaluations or "
                "import labelled examples"
            )
        found += [
            f"no example is on the {split.value} side: bring examples of more groups, "
            f"there are {len(self._groups)}"
            for split in Split
            if not self._splits[split]
        ]
        found += self._spread_problems() if self._scores else self._class_problems()
        unknown = self._count - self._judged
        if self._disagreements + unknown < MIN_DISAGREEMENTS:
            found.append(self._disagreement_text())
        return tuple(found)

    def _class_problems(self) -> list[str]:
        found = []
        for name, labels in (
            ("pass or partial", (Verdict.PASS, Verdict.PARTIAL)),
            ("fail", (Verdict.FAIL,)),
        ):
            have = sum(self._labels[label] for label in labels)
            if have < MIN_PER_CLASS:
                found.append(
                    f"{have} examples are labelled {name}, at least {MIN_PER_CLASS} are "
                    f"needed: label {MIN_PER_CLASS - have} more"
                )
                continue
            found += [
                f"no example labelled {name} is on the {split.value} side: bring some "
                "from more groups"
                for split in (Split.VALIDATION, Split.TEST)
                if not any(self._split_labels[split.value, label] for label in labels)
            ]
        return found

    def _spread_problems(self) -> list[str]:
        occupied = [fifth for fifth in FIFTHS if self._labels[fifth]]
        if len(occupied) > 1:
            return []
        where = f" ({occupied[0]})" if occupied else ""
        text = (
            f"all scores are within one fifth of the range{where}: bring examples of "
            "better and of worse outputs"
        )
        return [text]

    def _warnings(self) -> tuple[str, ...]:
        found = []
        if self._min <= self._count < self._recommended:
            found.append(
                f"{self._count} examples count, {self._splits[Split.TEST]} of them for the "
                "gate: only a large improvement can be shown; "
                f"{self._recommended - self._count} more are recommended"
            )
        if self._count >= self._min and len(self._groups) < MIN_GROUPS:
            found.append(
                f"the examples come from {len(self._groups)} groups: results may not "
                f"carry over to others; bring examples of {MIN_GROUPS} groups or more"
            )
        if self._scores and self._count and self._spread() < MIN_SPREAD:
            found.append(
                f"scores have a standard deviation of {self._spread():.2f}: bring clearly "
                f"better and clearly worse outputs, {MIN_SPREAD} or more tells them apart"
            )
        unknown = self._count - self._judged
        if self._disagreements < MIN_DISAGREEMENTS <= self._disagreements + unknown:
            found.append(self._disagreement_text())
        return tuple(found)

    def _wear(self, uses: Sequence[GateUseRecord]) -> list[str]:
        """Warn when earlier runs have used the held-out examples up."""
        earlier = EarlierUses.of(uses, self._held_out)
        pairs = self._splits[Split.TEST]
        labels = earlier.fresh_labels_needed(pairs, scores=self._scores)
        if not labels:
            return []
        use = use_number(pairs, earlier.shared)
        text = (
            f"earlier runs were decided on these {pairs} held-out examples, so the next, use "
            f"{use}, must reach p < {gate_bar(pairs, use):.2g}, which even the best result to "
            f"be expected would not: label {labels} more first"
        )
        return [text]

    def _disagreement_text(self) -> str:
        unknown = self._count - self._judged
        text = (
            f"the judge was wrong on {self._disagreements} of the {self._judged} examples "
            f"that it had judged, {MIN_DISAGREEMENTS} are needed to learn from: correct more "
            "of its wrong answers, or leave it as it is if there are none"
        )
        if unknown:
            text += (
                f"; of {unknown} imported examples it is not known what the judge says"
            )
        return text

    def _spread(self) -> float:
        mean = self._sum / self._count
        return math.sqrt(max(0.0, self._squares / self._count - mean * mean))


def _digest_of(example: ExampleRecord) -> bytes:
    content = json.dumps(
        [
            example.content_digest,
            example.verdict,
            example.score,
            example.rationale,
            example.split,
        ]
    )
    return hashlib.sha256(content.encode()).digest()
