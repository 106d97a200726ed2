"""The stand-in keeps the promises that other tests rely on."""

import asyncio
import json
import math
import subprocess
import sys
import urllib.error
import urllib.request

import aiohttp
import pytest

from tests.stand_in import running_stand_in
from tests.stand_in.answers import Answer

SYSTEM = "You judge. Answer with one word first: yes, partly or no."
GRADER = "You grade from 1 to 5. Answer with the digit first."


def _post(url, model, text, *, system=SYSTEM, path="/chat/completions", **options):
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "max_tokens": 60, **options}
    if path == "/messages":
        body |= {"system": system, "messages": messages}
    else:
        body["messages"] = [{"role": "system", "content": system}, *messages]
    request = urllib.request.Request(  # noqa: S310 - loopback
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def _distribution(answer):
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {t["token"]: math.exp(t["logprob"]) for t in top}


@pytest.fixture(scope="module")
def stand_in():
    with running_stand_in() as running:
        yield running


def test_stated_probabilities_come_back_as_logprobs(stand_in):
    """What the last user message sets is the distribution of the first token."""
    answer = _post(
        stand_in.base_url,
        "stand-in",
        "p(yes)=0.2 p(partly)=0.7",
        logprobs=True,
        top_logprobs=20,
    )

    assert answer["choices"][0]["message"]["content"].split("\n")[0] == "partly"
    assert _distribution(answer) == pytest.approx(
        {"yes": 0.2, "partly": 0.7, "no": 0.1}
    )


def test_word_in_the_system_message_changes_the_answer(stand_in):
    """A better prompt can be told from a worse one."""
    text = "p(yes)=0.1 p(yes|carefully)=0.9"

    plain = _post(stand_in.base_url, "stand-in", text)
    better = _post(
        stand_in.base_url, "stand-in", text, system=SYSTEM + " Read carefully."
    )

    assert plain["choices"][0]["message"]["content"].startswith("no")
    assert better["choices"][0]["message"]["content"].startswith("yes")


def test_grade_sets_the_mean_of_the_digits(stand_in):
    """The expected digit is the grade asked for."""
    answer = _post(
        stand_in.base_url,
        "stand-in",
        "grade=4.2",
        system=GRADER,
        logprobs=True,
        top_logprobs=5,
    )

    mean = sum(int(token) * p for token, p in _distribution(answer).items())
    assert mean == pytest.approx(4.2)


def test_grades_come_with_suggestions_and_criteria_if_asked(stand_in):
    """A rubric's answer has all its parts."""
    system = GRADER + " List suggestions. End with one line for each criterion."
    text = "<criteria>\n- clarity: It is clear.\n- tone\n</criteria> grade=2"

    content = _post(stand_in.base_url, "stand-in", text, system=system)
    lines = content["choices"][0]["message"]["content"].split("\n")

    assert lines[0] == "2"
    assert lines[2:] == ["- Say what is missing.", "clarity: 2", "tone: 2"]


def test_unsteered_answers_repeat(stand_in):
    """The same question always gets the same answer."""
    first, second = (
        _post(stand_in.base_url, "stand-in", "Anything", logprobs=True, top_logprobs=3)
        for _ in range(2)
    )

    assert first["choices"] == second["choices"]


def test_max_tokens_and_stop_cut_the_answer(stand_in):
    """One token is the label alone; a stop string does not appear."""
    one = _post(stand_in.base_url, "stand-in", "p(yes)=1", max_tokens=1)
    stopped = _post(stand_in.base_url, "stand-in", "p(yes)=1", stop=["\n"])

    assert one["choices"][0]["message"]["content"] == "yes"
    assert one["choices"][0]["finish_reason"] == "length"
    assert stopped["choices"][0]["message"]["content"] == "yes"
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_repeated_system_message_counts_as_cached(stand_in):
    """Usage reports the cached prefix from the second call on."""
    system = SYSTEM + " Seen twice."
    first, second = (
        _post(stand_in.base_url, "stand-in", "p(yes)=1", system=system)["usage"]
        for _ in range(2)
    )

    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] == len(system) // 4


def test_dspy_prompt_gets_its_fields(stand_in):
    """A prompt in DSPy's format is answered in DSPy's format."""
    text = (
        "Respond with the corresponding output fields, starting with the field "
        "`[[ ## proposed_instruction ## ]]`, and then ending with the marker for "
        "`[[ ## completed ## ]]`."
    )

    content = _post(stand_in.base_url, "stand-in", text)["choices"][0]["message"][
        "content"
    ]

    assert content.startswith("[[ ## proposed_instruction ## ]]\n")
    assert content.endswith("[[ ## completed ## ]]")


def test_prompt_without_labels_gets_a_sentence(stand_in):
    """Where no label is asked for, none is given."""
    answer = _post(stand_in.base_url, "stand-in", "Describe the data.", system="Hello.")

    assert len(answer["choices"][0]["message"]["content"]) > 20


def test_anthropic_wire_states_its_confidence(stand_in):
    """The wire without logprobs answers label, confidence and reason on lines."""
    answer = _post(
        stand_in.base_url,
        "stand-in",
        "p(yes)=0.83",
        system=SYSTEM + " Then a line Confidence: NN%.",
        path="/messages",
    )

    lines = answer["content"][0]["text"].split("\n")
    assert lines[:2] == ["yes", "Confidence: 83%"]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("model", "status"),
    [("down", 500), ("rate-limited", 429), ("bad-key", 401), ("unknown-model", 404)],
)
def test_failing_models_fail_with_their_status(stand_in, model, status):
    """The model name chooses the failure."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        _post(stand_in.base_url, model, "p(yes)=1")

    assert raised.value.code == status
    raised.value.close()


def test_other_answers_and_the_count_reach_other_processes():
    """Somebody else's function decides by messages and model; the count is on the wire."""
    with running_stand_in(
        answerer=lambda messages, model: Answer(f"{model}: {messages[-1]['content']}")
    ) as stand_in:
        said = _post(stand_in.base_url, "parrot", "hello")["choices"][0]["message"]
        with urllib.request.urlopen(f"{stand_in.base_url}/calls") as counted:  # noqa: S310 - loopback
            assert json.load(counted) == {"calls": 1}

    assert said["content"] == "parrot: hello"


def test_flaky_model_recovers(stand_in):
    """After N failures a body is answered."""
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as raised:
            _post(stand_in.base_url, "flaky-2", "p(yes)=1")
        raised.value.close()

    assert _post(stand_in.base_url, "flaky-2", "p(yes)=1")["choices"]


def test_outage_begins_after_the_announced_number_of_calls():
    """`fail_after` counts from now; None ends the outage."""
    with running_stand_in() as stand_in:
        stand_in.fail_after(1)
        _post(stand_in.base_url, "stand-in", "p(yes)=1")
        with pytest.raises(urllib.error.HTTPError) as raised:
            _post(stand_in.base_url, "stand-in", "p(yes)=1")
        raised.value.close()
        stand_in.fail_after(None)

        assert _post(stand_in.base_url, "stand-in", "p(yes)=1")["choices"]
        assert len(stand_in.requests) == 3


def test_slow_model_answers_when_released():
    """A request waits until the test lets it go."""

    async def ask(stand_in):
        body = {"model": "slow", "messages": [{"role": "user", "content": "p(yes)=1"}]}
        url = stand_in.base_url + "/chat/completions"
        async with aiohttp.ClientSession() as session:
            waiting = asyncio.ensure_future(session.post(url, json=body))
            await asyncio.to_thread(stand_in.wait_for_calls, 1)
            assert not waiting.done()
            stand_in.release()
            async with await waiting as response:
                return response.status

    with running_stand_in() as stand_in:
        assert asyncio.run(ask(stand_in)) == 200


@pytest.mark.slow
def test_process_ends_when_its_input_ends():
    """The process prints its address and dies with its parent."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stand_in"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        assert _post(url, "stand-in", "p(yes)=1")["choices"]
        process.stdin.close()

        assert process.wait(10) == 0
