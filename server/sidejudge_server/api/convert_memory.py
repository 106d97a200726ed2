"""Worked examples, memories, learned heads and influences between protobuf and domain."""

from __future__ import annotations

import json

from sidejudge.v1 import evaluation_pb2, judge_pb2
from sidejudge_server.api.convert_common import VERDICTS, verdict_value
from sidejudge_server.api.names import example_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.fields import (
    field_names,
    input_from_fields,
    input_to_fields,
)
from sidejudge_server.judges.limits import MAX_REASONING_CHARS
from sidejudge_server.judges.memory import (
    MAX_GUIDELINE_CHARS,
    MAX_MEMORY_EXAMPLES,
    MAX_NEIGHBOURS,
    MAX_SHOWN,
)
from sidejudge_server.judges.types import (
    Demonstration,
    JudgeProgram,
    LearnedHead,
    Memory,
    MemoryExample,
    ScoreHead,
    VerdictHead,
)

__all__ = [
    "demonstration_from",
    "demonstration_message",
    "head_from",
    "head_message",
    "influence_messages",
    "memory_from",
    "memory_message",
]


def demonstration_from(
    at: Checker,
    message: judge_pb2.Demonstration | judge_pb2.MemoryExample,
    base: JudgeProgram,
) -> Demonstration:
    """Read a worked example of a version of ``base``'s kind."""
    known = field_names(scores=base.scores, input_fields=base.input_fields)
    for name in sorted(set(message.inputs).difference(known)):
        at.add(f"inputs[{name}]", f"is not an input; known: {', '.join(known)}")
    for name in known:
        at.text(f"inputs[{name}]", message.inputs.get(name, ""))
    at.text("reasoning", message.reasoning, limit=MAX_REASONING_CHARS)
    verdict = score = None
    answer = message.WhichOneof("answer")
    if answer == "score":
        score = at.unit_interval("score", message.score)
    elif answer == "verdict":
        at.enum("verdict", message.verdict, judge_pb2.Verdict.DESCRIPTOR, required=True)
        verdict = VERDICTS.get(message.verdict)
    else:
        at.add("answer", "is required; a verdict or a score")
    return Demonstration(
        input=input_from_fields(base, message.inputs),
        verdict=verdict,
        score=score,
        reasoning=message.reasoning,
    )


def demonstration_message(demonstration: Demonstration) -> judge_pb2.Demonstration:
    """Return a worked example as message."""
    fields = input_to_fields(demonstration.input)
    message = judge_pb2.Demonstration(
        inputs={name: text for name, text in fields.items() if text},
        reasoning=demonstration.reasoning,
    )
    if demonstration.score is not None:
        message.score = demonstration.score
    else:
        message.verdict = verdict_value(demonstration.verdict)
    return message


def memory_from(
    at: Checker, message: judge_pb2.JudgeVersion, base: JudgeProgram
) -> Memory | None:
    """Read the memory of a version written by hand; None if it has none."""
    if not message.HasField("memory"):
        return None
    memory = message.memory
    for index, guideline in enumerate(memory.guidelines):
        at.text(
            f"memory.guidelines[{index}]",
            guideline,
            limit=MAX_GUIDELINE_CHARS,
            required=True,
        )
    if memory.embedding_model:
        at.add("memory.embedding_model", "is set by optimizations only")
    at.count("memory.examples", len(memory.examples), low=0, high=MAX_MEMORY_EXAMPLES)
    return Memory(
        guidelines=tuple(memory.guidelines),
        examples=tuple(
            _memory_example(at.within(f"memory.examples[{index}]."), example, base)
            for index, example in enumerate(memory.examples[:MAX_MEMORY_EXAMPLES])
        ),
        shown=at.whole("memory.shown", memory.shown, low=0, high=MAX_SHOWN),
    )


def _memory_example(
    at: Checker, message: judge_pb2.MemoryExample, base: JudgeProgram
) -> MemoryExample:
    example_id = at.resource(
        "training_example", message.training_example, "trainingExamples"
    )
    read = demonstration_from(at, message, base)
    return MemoryExample(
        example_id or "", read.input, read.verdict, read.score, read.reasoning
    )


def memory_message(memory: Memory | None, *, examples: bool) -> judge_pb2.Memory | None:
    """Return a memory as message, None for none.

    Args:
        memory: Of a version.
        examples: False to leave the examples out and give their number only.
    """
    if memory is None:
        return None
    return judge_pb2.Memory(
        guidelines=memory.guidelines,
        examples=[_memory_example_message(e) for e in memory.examples]
        if examples
        else [],
        shown=memory.shown,
        embedding_model=memory.embedding_model,
        example_count=len(memory.examples),
    )


def _memory_example_message(example: MemoryExample) -> judge_pb2.MemoryExample:
    shown = demonstration_message(
        Demonstration(example.input, example.verdict, example.score, example.reasoning)
    )
    message = judge_pb2.MemoryExample(
        training_example=example_name(example.example_id),
        inputs=shown.inputs,
        reasoning=shown.reasoning,
    )
    if example.score is not None:
        message.score = example.score
    else:
        message.verdict = shown.verdict
    return message


def head_from(at: Checker, message: judge_pb2.JudgeVersion) -> LearnedHead | None:
    """Read the learned head of a version; None if it has none."""
    if not message.HasField("head"):
        return None
    head = message.head
    neighbours = at.whole(
        "head.neighbours", head.neighbours, low=0, high=MAX_NEIGHBOURS
    )
    model = head.WhichOneof("model")
    if model is None:
        at.add("head.model", "is required; verdict or score")
    if model == "verdict":
        within, weights = at.within("head.verdict."), head.verdict
        return VerdictHead(
            neighbours,
            pass_bias=within.finite("pass_bias", weights.pass_bias),
            partial_bias=within.finite("partial_bias", weights.partial_bias),
            lm_weight=within.finite("lm_weight", weights.lm_weight),
            vote_weight=within.finite("vote_weight", weights.vote_weight),
        )
    within, scores = at.within("head.score."), head.score
    return ScoreHead(
        neighbours,
        intercept=within.finite("intercept", scores.intercept),
        raw_weight=within.finite("raw_weight", scores.raw_weight),
        label_weight=within.finite("label_weight", scores.label_weight),
    )


def head_message(head: LearnedHead | None) -> judge_pb2.LearnedHead | None:
    """Return a learned head as message, None for none."""
    if head is None:
        return None
    if isinstance(head, VerdictHead):
        return judge_pb2.LearnedHead(
            neighbours=head.neighbours,
            verdict=judge_pb2.VerdictHead(
                pass_bias=head.pass_bias,
                partial_bias=head.partial_bias,
                lm_weight=head.lm_weight,
                vote_weight=head.vote_weight,
            ),
        )
    return judge_pb2.LearnedHead(
        neighbours=head.neighbours,
        score=judge_pb2.ScoreHead(
            intercept=head.intercept,
            raw_weight=head.raw_weight,
            label_weight=head.label_weight,
        ),
    )


def influence_messages(influences_json: str | None) -> list[evaluation_pb2.Influence]:
    """Return stored influences as messages, none for None."""
    if influences_json is None:
        return []
    return [_influence(**entry) for entry in json.loads(influences_json)]


def _influence(
    *,
    example_id: str,
    verdict: str | None,
    score: float | None,
    similarity: float,
    weight: float,
) -> evaluation_pb2.Influence:
    message = evaluation_pb2.Influence(
        training_example=example_name(example_id),
        similarity=similarity,
        weight=weight,
    )
    if score is not None:
        message.score = score
    else:
        message.verdict = verdict_value(verdict)
    return message
