"""Bodies and answers of both wires, where a server cannot easily show them."""

import json

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.lm.providers import Wire, resolve
from sidejudge_server.lm.types import ChatRequest, Message
from sidejudge_server.lm.wires import (
    Dialect,
    MalformedAnswerError,
    initial_dialect,
    parse_answer,
    request_body,
)
from tests.lm.calls import chat

OPENAI = resolve(LMSettings("openai/gpt-4o", api_key="k"), {})
ANTHROPIC = resolve(LMSettings("anthropic/claude-haiku-4-5", api_key="k"), {})


def _openai_answer(**choice):
    fields = {"message": {"content": "yes"}, "finish_reason": "stop"} | choice
    return json.dumps({"choices": [fields]}).encode()


def test_anthropic_caches_up_to_the_last_turn_before_the_input():
    """Instructions and worked examples are marked, the input is not."""
    turns = [("system", "s"), ("user", "a"), ("assistant", "yes"), ("user", "b")]
    request = ChatRequest(tuple(Message(r, c) for r, c in turns), max_tokens=5)

    body = json.loads(request_body(ANTHROPIC, request, Dialect(0), {}))

    marked = ["cache_control" in m["content"][0] for m in body["messages"]]
    assert marked == [False, True, False]
    assert "cache_control" in body["system"][0]


def test_text_that_is_not_unicode_can_be_sent():
    """Half a surrogate pair in judged text is replaced, not a crash."""
    body = request_body(OPENAI, chat("half \ud83d"), Dialect(), {})

    assert "half ?" in body.decode()


def test_chosen_token_is_always_among_the_alternatives():
    """Some servers leave it out of the most likely ones."""
    top = [{"token": "no", "logprob": -0.5}]
    entry = {"token": "yes", "logprob": -1.0, "top_logprobs": top}

    answer = parse_answer(
        Wire.OPENAI, _openai_answer(logprobs={"content": [entry]}), chat()
    )

    assert answer.logprobs[0].alternatives == (("no", -0.5), ("yes", -1.0))


def test_answer_is_cut_at_stop_strings_by_the_client():
    """Servers that ignore stop strings do not change the answer."""
    data = _openai_answer(message={"content": "yes\nand more"}, finish_reason="length")

    answer = parse_answer(Wire.OPENAI, data, chat(stop=("\n",)))

    assert (answer.text, answer.finish_reason) == ("yes", "stop")


def test_withheld_answer_is_empty_with_its_reason():
    """A content filter gives no text, and says so."""
    data = _openai_answer(message={"content": None}, finish_reason="content_filter")

    answer = parse_answer(Wire.OPENAI, data, chat())

    assert (answer.text, answer.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"error": {"message": "secret answer"}}',
        b'{"choices": [{"message": {}, "logprobs": {"content": [{"token": 1}]}}]}',
    ],
)
@pytest.mark.parametrize("wire", list(Wire))
def test_anything_else_is_malformed(wire, data):
    """No shape of nonsense passes for an answer or leaks into the error."""
    with pytest.raises(MalformedAnswerError) as raised:
        parse_answer(wire, data, chat())

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        ("top_logprobs must be at most 5", Dialect(5)),
        ("logprobs are not supported", Dialect(0)),
        (
            "max_tokens is not supported, use max_completion_tokens",
            Dialect(max_tokens_name="max_completion_tokens"),
        ),
        ("`temperature` is deprecated for this model", Dialect(temperature=False)),
        ("stop is not supported with this model", Dialect(stop=False)),
        ("the prompt is too long; reduce max_tokens", None),
    ],
)
def test_complaint_narrows_the_dialect(complaint, expected):
    """What a refusal names is not sent again; what it does not name stays."""
    assert Dialect().without(complaint) == expected


def test_narrowing_ends():
    """A server that always complains of everything is not asked for ever."""
    complaint = "top_logprobs logprobs max_completion_tokens temperature stop"
    dialect, steps = Dialect(), 0
    while (narrower := dialect.without(complaint)) is not None:
        dialect, steps = narrower, steps + 1

    assert steps == 5


@pytest.mark.parametrize(("logprobs", "top"), [(None, 20), (True, 20), (False, 0)])
def test_settings_overrule_what_is_known_of_logprobs(logprobs, top):
    """None takes what is known of the provider."""
    assert initial_dialect(OPENAI, logprobs=logprobs).max_top_logprobs == top


def test_anthropic_has_no_logprobs_whatever_the_settings_say():
    """That wire has no field for them."""
    assert initial_dialect(ANTHROPIC, logprobs=True).max_top_logprobs == 0
