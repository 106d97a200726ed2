"""Unusable answers are asked for again, missing reasons once more, and all of it is counted."""

import asyncio
from dataclasses import replace

import pytest

from sidejudge_server.errors import (
    DeadlineError,
    FailedPreconditionError,
    JudgeOutputError,
    LMUnavailableError,
)
from sidejudge_server.judges.evaluator import evaluate
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.retrieval import pack_embeddings
from sidejudge_server.judges.types import (
    ArtifactInput,
    ConfidenceSource,
    JudgeKind,
    LabelOffsets,
    Memory,
    MemoryExample,
    RubricInput,
    Verdict,
    VerdictHead,
)
from sidejudge_server.lm.types import Embeddings, LMUsage
from tests.judges.scripted import ScriptedClient, says

RELEVANCE = initial_program(JudgeSpec(JudgeKind.RELEVANCE))
RUBRIC = initial_program(JudgeSpec(JudgeKind.RUBRIC))
ITEM = ArtifactInput("x", context="y")


def run(program, item, client, **options):
    return asyncio.run(evaluate(program, item, client, **options))


def test_good_answer_needs_one_call():
    """Verdict, probabilities and reasons come out of one completion."""
    client = ScriptedClient(says("yes\nIt fits.", yes=0.9, no=0.1))

    answer = run(RELEVANCE, ITEM, client)

    assert answer.result.verdict is Verdict.PASS
    assert answer.result.reasoning == "It fits."
    assert answer.usage == LMUsage(10, 4, 2, 1, 0.5, 0.25)


def test_unusable_answer_is_asked_for_again_with_sampling():
    """The second attempt samples, still with logprobs, and both are paid for."""
    client = ScriptedClient(says("Hmm."), says("no\nOff topic.", no=0.8, yes=0.2))

    answer = run(RELEVANCE, ITEM, client)

    assert answer.result.verdict is Verdict.FAIL
    assert [r.temperature for r in client.requests] == [0.0, 0.5]
    assert [r.top_logprobs for r in client.requests] == [20, 20]
    assert answer.usage == LMUsage(20, 8, 4, 2, 1.0, 0.5)


@pytest.mark.parametrize("explain", [True, False])
def test_nonsense_to_the_end_is_an_error(explain):
    """After three attempts there is no verdict, and no default one either."""
    client = ScriptedClient(says("Hmm."), repeat=True)

    with pytest.raises(JudgeOutputError) as caught:
        run(RELEVANCE, ITEM, client, explain=explain)

    assert caught.value.reason == "JUDGE_OUTPUT_UNPARSABLE"
    assert caught.value.metadata == {"model": "scripted", "attempts": "3"}
    assert len(client.requests) == 3


def test_missing_reason_is_asked_for_once():
    """The follow-up shows the LM its verdict and asks why."""
    client = ScriptedClient(says("no", no=0.9, yes=0.1), says("It is about cats."))

    answer = run(RELEVANCE, ITEM, client)

    assert answer.result.reasoning == "It is about cats."
    first, second = client.requests
    assert second.messages[:-2] == first.messages
    assert [m.content for m in second.messages[-2:]] == [
        "no",
        "Explain why in one or two sentences.",
    ]
    assert answer.usage.calls == 2


def test_reasons_of_an_overruled_word_are_replaced():
    """Where the decision rule overrules the LM's word, the reason argues for the verdict given."""
    program = replace(RELEVANCE, offsets=LabelOffsets(passed=3.0))
    client = ScriptedClient(
        says("no\nToo short.", no=0.6, yes=0.4), says("Short but right.")
    )

    answer = run(program, ITEM, client)

    assert answer.result.verdict is Verdict.PASS
    assert answer.result.reasoning == "Short but right."
    assert client.requests[1].messages[-2].content == "yes"


def test_rubric_follow_up_asks_for_suggestions_too():
    """A bare grade is followed by its reasons and suggestions."""
    client = ScriptedClient(says("3", _3=1.0), says("Too long.\n- Cut the intro."))

    answer = run(RUBRIC, RubricInput("t", "o"), client)

    assert answer.result.raw_score == 0.5
    assert answer.result.suggestions == ("Cut the intro.",)
    assert client.requests[1].messages[-2].content == "3"


def test_no_reasons_no_follow_up():
    """A caller who wants no reasons pays for one token."""
    client = ScriptedClient(says("no", no=0.9, yes=0.1))

    answer = run(RELEVANCE, ITEM, client, explain=False)

    assert answer.result.reasoning == ""
    assert [r.max_tokens for r in client.requests] == [1]


def test_promised_probabilities_that_do_not_come_are_replaced_by_stated_ones():
    """An endpoint that drops logprobs silently is asked to state its confidence."""
    client = ScriptedClient(says("yes\nFine."), says("yes\nConfidence: 80%\nFine."))

    answer = run(RELEVANCE, ITEM, client)

    assert answer.result.confidence_source is ConfidenceSource.STATED
    assert answer.result.confidence == pytest.approx(0.8)
    assert "Confidence" in client.requests[1].messages[-1].content
    assert client.requests[1].top_logprobs == 0


def test_no_confidence_at_all_is_said_to_be_none():
    """A verdict without any number is a verdict without confidence, not a certain one."""
    client = ScriptedClient(says("yes\nFine."), supports_logprobs=False)

    answer = run(RELEVANCE, ITEM, client)

    assert answer.result.confidence is None
    assert answer.result.confidence_source is ConfidenceSource.NONE
    assert len(client.requests) == 1


def test_errors_of_the_model_pass_through():
    """A failing LM is not a bad judge: no second attempt hides it."""
    error = LMUnavailableError("down", reason="LM_UNAVAILABLE")
    client = ScriptedClient(error, repeat=True)

    with pytest.raises(LMUnavailableError):
        run(RELEVANCE, ITEM, client)

    assert len(client.requests) == 1


def test_deadline_covers_all_attempts():
    """When the caller's time is up, the call in progress is given up."""

    async def judge():
        client = ScriptedClient(says("yes"))
        client.gate = asyncio.Event()
        with pytest.raises(DeadlineError):
            await evaluate(RELEVANCE, ITEM, client, timeout_s=0.01)
        return len(client.answers)

    assert asyncio.run(judge()) == 1


def remembering(**changes):
    """Remember two corrections; the second is near the vector (0, 1)."""
    examples = (
        MemoryExample("far", ArtifactInput("one"), Verdict.PASS),
        MemoryExample("near", ArtifactInput("two"), Verdict.FAIL),
    )
    memory = Memory(
        examples=examples,
        shown=1,
        embedding_model="embedder",
        embeddings=pack_embeddings([[1.0, 0.0], [0.0, 1.0]]),
    )
    return replace(RELEVANCE, memory=memory, **changes)


class EmbeddingScript(ScriptedClient):
    """Gives every text the vector (0, 1)."""

    embedding_model = "embedder"

    async def embed(self, texts, *, timeout_s=None):
        """Note the texts."""
        del timeout_s
        self.texts = texts
        return Embeddings(((0.0, 1.0),) * len(texts), LMUsage(calls=1, input_tokens=7))


def test_similar_corrections_are_found_by_vectors():
    """The item's vector costs one call more, which is counted."""
    client = EmbeddingScript(says("yes\nIt fits.", yes=0.9, no=0.1))

    answer = run(remembering(), ITEM, client)

    assert client.texts == ("y\nx",)
    assert "<artifact>\ntwo\n" in client.requests[0].messages[1].content
    assert [i.example_id for i in answer.influences] == ["near"]
    assert (answer.usage.calls, answer.usage.input_tokens) == (2, 17)


@pytest.mark.parametrize("client", [ScriptedClient, EmbeddingScript])
def test_version_of_another_embedding_model_is_refused(client):
    """What was gated was measured by those vectors, not by others or by words."""
    asked = client(says("yes"))
    asked.embedding_model = "other" if client is EmbeddingScript else ""

    with pytest.raises(FailedPreconditionError, match="embedder") as raised:
        run(remembering(), ITEM, asked)

    assert raised.value.reason == "EMBEDDING_MODEL_MISMATCH"
    assert raised.value.metadata["expected"] == "embedder"
    assert not asked.requests


def test_memory_that_nobody_looks_at_needs_no_vector():
    """Guidelines alone serve with any model."""
    program = remembering()
    program = replace(program, memory=replace(program.memory, shown=0))

    answer = run(program, ITEM, ScriptedClient(says("yes\nIt fits.", yes=0.9)))

    assert answer.influences == ()


def test_reasons_are_asked_for_again_when_the_head_overrules_the_word():
    """They must argue for the verdict that stands."""
    head = VerdictHead(1, 0.0, 0.0, 1.0, 9.0)
    client = EmbeddingScript(
        says("yes\nIt fits.", yes=0.9, no=0.1), says("Somebody corrected this before.")
    )

    answer = run(remembering(head=head), ITEM, client)

    assert answer.result.verdict is Verdict.FAIL
    assert answer.result.reasoning == "Somebody corrected this before."
    assert client.requests[1].messages[-2].content == "no"
    assert answer.influences[0].weight == pytest.approx(9.0)


def test_hidden_examples_do_not_reach_the_prompt():
    """A run leaves out what would give the answer away."""
    client = EmbeddingScript(says("yes\nIt fits.", yes=0.9, no=0.1))

    run(remembering(), ITEM, client, hidden={"near"})

    assert [m.role for m in client.requests[0].messages] == ["system", "user"]
