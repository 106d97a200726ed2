"""A real sidecar with the stand-in behind it, and a way to run commands against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sidejudge_server.cli import main
from sidejudge_server.cli.demo.sidecar import DemoSidecar
from tests.cli.commands import Command, Outcome
from tests.stand_in import StandIn, running_stand_in


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    with running_stand_in() as running:
        yield running


@pytest.fixture(scope="session")
def sidecar(
    stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DemoSidecar]:
    directory = tmp_path_factory.mktemp("sidecar")
    with ExitStack() as stack:
        # The variables are for the child alone: other tests must not see them.
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SIDEJUDGE_LM_BASE_URL", stand_in.base_url)
            environment.setenv("SIDEJUDGE_LM_API_KEY", "made-up")
            started = stack.enter_context(DemoSidecar(directory, lm="openai/stand-in"))
        yield started


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""

    def command(*argv: str) -> Outcome:
        capsys.readouterr()
        code = main(list(argv))
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return command


@pytest.fixture
def call(run: Command, sidecar: DemoSidecar) -> Command:
    """Run a command against the sidecar."""

    def command(*argv: str) -> Outcome:
        return run(*argv, "--server", sidecar.address)

    return command
