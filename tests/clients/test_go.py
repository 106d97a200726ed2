"""The Go client: its own tests, run against a sidecar with the stand-in."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sidejudge
from tests.stand_in import running_stand_in
from tests.support.server import server_process
from tests.support.training import teachable_judge

CLIENT = Path(__file__).parents[2] / "clients" / "go"

pytestmark = pytest.mark.skipif(
    shutil.which("go") is None, reason="Go is not installed here"
)


def go(*arguments, timeout_s=600, **environment):
    return subprocess.run(  # noqa: S603 - arguments are ours
        ["go", *arguments],  # noqa: S607 - the one of the machine
        cwd=CLIENT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def fetch_modules():
    """Skip where the client's modules cannot be had: that says nothing of the client."""
    try:
        fetched = go("mod", "download", timeout_s=120)
    except subprocess.TimeoutExpired:
        pytest.skip("fetching its modules takes over two minutes here")
    if fetched.returncode:
        pytest.skip(f"its modules cannot be fetched here: {fetched.stderr[-300:]}")


@pytest.mark.slow
def test_its_own_tests_pass(tmp_path):
    fetch_modules()
    with (
        running_stand_in() as lm,
        server_process(tmp_path, lm_base_url=lm.base_url) as server,
        sidejudge.connect(server.address) as client,
    ):
        judge = teachable_judge(client, "teachable")
        ran = go(
            "test",
            "-count=1",
            "-v",
            "./...",
            SIDEJUDGE_TEST_ADDRESS=server.address,
            SIDEJUDGE_TEST_JUDGE=judge,
        )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert len(re.findall(r"^--- PASS", ran.stdout, re.MULTILINE)) == 10
    assert "--- SKIP" not in ran.stdout


def test_it_is_formatted_and_vetted():
    fetch_modules()
    unformatted = subprocess.run(
        ["gofmt", "-l", "."],  # noqa: S607 - the one of the machine
        cwd=CLIENT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not unformatted
    vetted = go("vet", "./...")
    assert vetted.returncode == 0, vetted.stderr


def test_the_generated_code_is_of_these_protos():
    """A new method or message must be in the Go code too; `make generate-go` writes it."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (CLIENT / "sidejudge" / "v1").glob("*.go")
    )
    for path in (CLIENT.parents[1] / "protos" / "sidejudge" / "v1").glob("*.proto"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^message (\w+)", text, re.MULTILINE):
            assert f"type {name} struct" in code
        for name in re.findall(r"^  rpc (\w+)\(", text, re.MULTILINE):
            assert f") {name}(ctx context.Context" in code
