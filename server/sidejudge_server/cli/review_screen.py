"""What `sidejudge review` shows of an item, and how it reads an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidejudge.v1 import evaluation_pb2, judge_pb2
from sidejudge.v1 import review_service_pb2 as pb
from sidejudge_server.benchmark.wire import VERDICTS, verdict_word
from sidejudge_server.cli.evaluate import answer_text
from sidejudge_server.cli.names import short
from sidejudge_server.judges.types import Verdict

__all__ = ["Answer", "Key", "Labels", "item_lines", "read_answer", "reason_words"]

SHOWN_CHARS: Final = 3_000
"""Of one text; the rest comes with `m`."""

_REASONS: Final = {
    pb.ReviewItem.REASON_UNCERTAIN: "the judge is not sure of its answer",
    pb.ReviewItem.REASON_DISAGREEMENT: "another version answered otherwise",
    pb.ReviewItem.REASON_RARE_LABEL: "few labels are like its answer",
    pb.ReviewItem.REASON_AUDIT: "audit item, chosen by chance: it counts for monitoring",
    pb.ReviewItem.REASON_CHANCE: "chosen by chance: what the judge is wrongly sure of is found like this",
}
_VERDICT_KEYS: Final = {
    "p": Verdict.PASS,
    "pass": Verdict.PASS,
    "f": Verdict.FAIL,
    "fail": Verdict.FAIL,
    "a": Verdict.PARTIAL,
    "partial": Verdict.PARTIAL,
}


class Key(Enum):
    """What can be done with an item besides labelling it."""

    SKIP = "s"
    UNDO = "u"
    MORE = "m"
    QUIT = "q"


@dataclass(frozen=True, slots=True)
class Answer:
    """A label as it was typed; one of the two is set."""

    verdict: judge_pb2.Verdict.ValueType | None = None
    score: float | None = None

    @property
    def words(self) -> str:
        """It in a word."""
        if self.verdict is not None:
            return verdict_word(self.verdict)
        return f"{self.score:g}"


@dataclass(frozen=True, slots=True)
class Labels:
    """Which labels a judge knows."""

    scores: bool
    binary: bool

    @classmethod
    def of(cls, judge: judge_pb2.Judge) -> Labels:
        """Return those of a judge."""
        custom = judge.custom
        scores = judge.HasField("rubric") or (
            custom.output == judge_pb2.CustomSpec.OUTPUT_SCORE
        )
        return cls(scores, judge.HasField("safety") or custom.binary)

    @property
    def prompt(self) -> str:
        """The keys on one line."""
        if self.scores:
            answers = "score 0 to 1"
        elif self.binary:
            answers = "[p]ass [f]ail"
        else:
            answers = "[p]ass [f]ail p[a]rtial"
        return f"{answers} [=] judge is right [s]kip [u]ndo [m]ore [q]uit > "


def read_answer(
    typed: str, labels: Labels, evaluation: evaluation_pb2.Evaluation
) -> Answer | Key | str:
    """Return what was typed as label or key, or in words what is wrong with it."""
    text = typed.strip().lower()
    if text in {key.value for key in Key}:
        return Key(text)
    if text == "=":
        if labels.scores:
            return Answer(score=evaluation.rubric.score)
        return Answer(verdict=evaluation.judgment.verdict)
    return _score(text) if labels.scores else _verdict(text, labels)


def _score(text: str) -> Answer | str:
    try:
        score = float(text)
    except ValueError:
        return "type a number from 0 to 1, or =, s, u, m or q"
    # NaN is in no range.
    return Answer(score=score) if 0 <= score <= 1 else "a score is from 0 to 1"


def _verdict(text: str, labels: Labels) -> Answer | str:
    verdict = _VERDICT_KEYS.get(text)
    if verdict is None:
        return "type p, f, a, =, s, u, m or q"
    if verdict is Verdict.PARTIAL and labels.binary:
        return "this judge never answers partial"
    return Answer(verdict=VERDICTS[verdict])


def reason_words(reasons: list[pb.ReviewItem.Reason.ValueType]) -> str:
    """Return why an item is in the queue."""
    # A newer server may know reasons that this client does not.
    return "; ".join(
        _REASONS.get(r, "for a reason that is new to this client") for r in reasons
    )


def item_lines(item: pb.ReviewItem, number: int, *, whole: bool) -> Iterator[str]:
    """Yield an item as lines.

    Each line of other people's text begins with a bar, so that it cannot pass for one of ours.

    Args:
        item: What to show.
        number: The how many-th it is.
        whole: Whether to show long texts to their end.
    """
    evaluation = item.evaluation
    yield ""
    yield f"--- item {number}: {short(evaluation.name)}, round {item.round}, drawn with {item.inclusion_probability:.0%}"
    yield f"    {reason_words(list(item.reasons))}"
    for title, text in _texts(evaluation):
        if text:
            yield f"{title}:"
            yield from _quoted(text, whole=whole)
    yield f"judge said: {answer_text(evaluation)}"
    judged = evaluation.rubric if evaluation.HasField("rubric") else evaluation.judgment
    if judged.reasoning:
        yield from _quoted(judged.reasoning, whole=whole)


def _texts(evaluation: evaluation_pb2.Evaluation) -> Iterator[tuple[str, str]]:
    if evaluation.HasField("rubric_input"):
        rubric = evaluation.rubric_input
        yield "task", rubric.task_context
        yield "criteria", "\n".join(f"{c.name}: {c.description}" for c in rubric.criteria)  # fmt: skip
        yield "output", rubric.agent_output
        return
    item = evaluation.artifact_input
    yield "context", item.context
    yield "ground truth", item.ground_truth
    for name in sorted(item.fields):
        yield f"field {name}", item.fields[name]
    yield "artifact", item.artifact


def _quoted(text: str, *, whole: bool) -> Iterator[str]:
    shown = text if whole else text[:SHOWN_CHARS]
    for line in shown.splitlines():
        yield f"  | {line}"
    if len(shown) < len(text):
        yield f"  ({len(text) - len(shown)} characters more: m)"
