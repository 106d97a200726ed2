"""Canonical JSON is one text per value, and is read strictly."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.judges.codec import (
    CodecError,
    canonical_json,
    content_digest,
    input_from_json,
    input_to_json,
    program_digest,
    program_from_json,
    program_to_json,
    spec_from_json,
    spec_to_json,
)
from sidejudge_server.judges.fields import input_from_fields, input_to_fields
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, JudgeSpec, initial_program
from sidejudge_server.judges.prompt import render_messages
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    Demonstration,
    JudgeKind,
    JudgeProgram,
    LabelOffsets,
    Memory,
    MemoryExample,
    RubricInput,
    ScoreHead,
    ScoreMap,
    Verdict,
    VerdictHead,
)

short = st.text(max_size=12)
criteria = st.lists(st.builds(Criterion, short, short), max_size=3).map(tuple)
rubric_inputs = st.builds(RubricInput, short, short, criteria)
artifact_inputs = st.builds(
    ArtifactInput,
    short,
    st.none() | short,
    short,
    st.dictionaries(st.sampled_from(["policy", "plan"]), short),
)
finite = st.floats(-50, 50)
demonstrations = st.builds(
    Demonstration, artifact_inputs, verdict=st.sampled_from(Verdict), reasoning=short
) | st.builds(Demonstration, rubric_inputs, score=st.floats(0, 1), reasoning=short)
remembered = st.builds(
    MemoryExample,
    short,
    artifact_inputs,
    verdict=st.sampled_from(Verdict),
    reasoning=short,
) | st.builds(MemoryExample, short, rubric_inputs, score=st.floats(0, 1))
memories = st.builds(
    Memory,
    guidelines=st.lists(short, max_size=2).map(tuple),
    examples=st.lists(remembered, max_size=3).map(tuple),
    shown=st.integers(0, 9),
    embedding_model=short,
    embeddings=short,
)
heads = st.builds(
    VerdictHead, st.integers(0, 9), finite, finite, finite, finite
) | st.builds(ScoreHead, st.integers(0, 9), finite, finite, finite)
programs = st.builds(
    JudgeProgram,
    kind=st.sampled_from(JudgeKind),
    scores=st.booleans(),
    binary=st.booleans(),
    instructions=short,
    question=short,
    demonstrations=st.lists(demonstrations, max_size=3).map(tuple),
    offsets=st.builds(LabelOffsets, finite, finite),
    score_map=st.builds(ScoreMap, finite, finite),
    input_fields=st.lists(short, max_size=2).map(tuple),
    memory=st.none() | memories,
    head=st.none() | heads,
)


@pytest.mark.slow
@given(rubric_inputs | artifact_inputs)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_inputs_survive_storage(item):
    """What was judged can be read back exactly."""
    text = input_to_json(item)

    assert input_from_json(text) == item
    assert text == input_to_json(input_from_json(text))


@pytest.mark.slow
@given(programs)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_programs_survive_storage(program):
    """A judge version read back is the version that was stored."""
    text = program_to_json(program)

    assert program_from_json(text) == program
    assert program_digest(program) == program_digest(program_from_json(text))


@pytest.mark.slow
@given(rubric_inputs | artifact_inputs)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_inputs_as_fields_render_the_same_prompt(item):
    """An item that travelled as text by field name is asked about in the same bytes."""
    scores = isinstance(item, RubricInput)
    program = JudgeProgram(
        JudgeKind.CUSTOM, scores, False, "i", "q?", input_fields=("policy", "plan")
    )

    back = input_from_fields(program, input_to_fields(item))

    assert render_messages(program, back, stated_confidence=False) == render_messages(
        program, item, stated_confidence=False
    )


def test_specs_survive_storage():
    """The fixed part of a judge can be read back exactly."""
    custom = JudgeSpec(
        JudgeKind.CUSTOM,
        default_criteria=(Criterion("a", "b"),),
        instructions="i",
        question="q",
        scores=True,
        input_fields=("f",),
        binary=True,
    )

    for spec in (custom, *(judge.spec for judge in BUILT_IN_JUDGES)):
        assert spec_from_json(spec_to_json(spec)) == spec


def test_key_order_does_not_matter():
    """Equal values have equal text."""
    keys = [f"k{n}" for n in (3, 1, 10, 2, 0)]

    assert canonical_json(dict.fromkeys(keys, 1)) == canonical_json(
        dict.fromkeys(sorted(keys), 1)
    )
    assert canonical_json({"b": "\u00e9", "a": [1]}) == '{"a":[1],"b":"\u00e9"}'


def test_not_a_number_is_not_json():
    """NaN would be read back by nobody else."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_digest_ignores_white_space_but_not_case():
    """Copies that differ in layout are one item; other words are another."""
    digest = content_digest(ArtifactInput("Hello  big\nworld ", "truth"))

    assert digest == content_digest(ArtifactInput("Hello big world", " truth"))
    assert digest != content_digest(ArtifactInput("hello big world", "truth"))
    assert digest != content_digest(ArtifactInput("Hello big world"))


def test_digest_takes_broken_unicode():
    """Imported JSON may hold half a surrogate pair."""
    assert len(content_digest(ArtifactInput("\ud800"))) == 64


PROGRAM = json.loads(program_to_json(initial_program(BUILT_IN_JUDGES[0].spec)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "unknown keys: extra"),
        ({"instructions": 5}, "instructions: expected text"),
        ({"binary": "no"}, "binary: expected true or false"),
        ({"kind": "magic"}, "kind: 'magic' is not a valid JudgeKind"),
        ({"format": 2}, "format: 2 is not known"),
        ({"offsets": {"passed": 1}}, "offsets.partial: missing"),
        ({"offsets": []}, "offsets.: expected an object"),
        ({"score_map": {"slope": True, "intercept": 0}}, "slope: expected a number"),
        ({"demonstrations": [{}]}, r"demonstrations\[0\].input: missing"),
    ],
)
def test_malformed_program_is_refused_with_its_place(change, message):
    """The error says where, so that a hand-edited export can be mended."""
    with pytest.raises(CodecError, match=message):
        program_from_json(json.dumps(PROGRAM | change))


def test_demonstration_needs_exactly_one_answer():
    """A demonstration without a label, or with two, teaches nothing."""
    demonstration = {
        "input": json.loads(input_to_json(ArtifactInput("x"))),
        "verdict": None,
        "score": None,
        "reasoning": "",
    }

    with pytest.raises(CodecError, match="either a verdict or a score"):
        program_from_json(json.dumps(PROGRAM | {"demonstrations": [demonstration]}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type":"other"}', "{"])
def test_text_that_is_no_input_is_refused(text):
    """Only the two shapes of inputs are read."""
    with pytest.raises(CodecError):
        input_from_json(text)


def test_program_without_memory_is_written_as_before():
    """Digests of versions that were made before memories existed stay what they were."""
    program = initial_program(BUILT_IN_JUDGES[0].spec)

    assert set(json.loads(program_to_json(program))) == {
        "format", "kind", "scores", "binary", "instructions", "question",
        "demonstrations", "offsets", "score_map", "input_fields",
    }  # fmt: skip


MEMORY = {
    "guidelines": ["Be strict."],
    "examples": [],
    "shown": 2,
    "embedding_model": "",
    "embeddings": "",
}
REMEMBERED = {
    "example_id": "e",
    "input": json.loads(input_to_json(ArtifactInput("x"))),
    "verdict": "pass",
    "score": None,
    "reasoning": "",
}
HEAD = {
    "type": "verdict",
    "neighbours": 3,
    "pass_bias": 0.0,
    "partial_bias": 0.0,
    "lm_weight": 1.0,
    "vote_weight": 1.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": MEMORY | {"extra": 1}}, "memory.unknown keys: extra"),
        ({"memory": MEMORY | {"shown": "2"}}, "memory.shown: expected a whole number"),
        ({"memory": MEMORY | {"examples": [{}]}}, r"examples\[0\].example_id: missing"),
        (
            {"memory": MEMORY | {"examples": [REMEMBERED | {"score": 0.5}]}},
            "either a verdict or a score",
        ),
        (
            {"memory": MEMORY | {"examples": [REMEMBERED] * 1001}},
            "memory.examples: more than the 1000",
        ),
        (
            {"memory": MEMORY | {"embeddings": "A" * (2 * 1024 * 1024)}},
            "memory: longer than 2097152 bytes",
        ),
        ({"memory": None}, "memory.: expected an object"),
        ({"head": HEAD | {"type": "deep"}}, "head.type: expected verdict or score"),
        ({"head": HEAD | {"lm_weight": None}}, "head.lm_weight: expected a number"),
        ({"head": HEAD | {"intercept": 1.0}}, "unknown keys: intercept"),
    ],
)
def test_malformed_memory_is_refused_with_its_place(change, message):
    """What is too large or not understood must not reach a prompt."""
    with pytest.raises(CodecError, match=message):
        program_from_json(json.dumps(PROGRAM | change))


def test_memory_and_head_are_read_back():
    """One document holds all of a version."""
    program = program_from_json(
        json.dumps(
            PROGRAM | {"memory": MEMORY | {"examples": [REMEMBERED]}} | {"head": HEAD}
        )
    )

    assert program.memory == Memory(
        ("Be strict.",),
        (MemoryExample("e", ArtifactInput("x"), Verdict.PASS),),
        shown=2,
    )
    assert program.head == VerdictHead(3, 0.0, 0.0, 1.0, 1.0)
