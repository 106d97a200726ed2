"""Fixtures: the stand-in LM and a sidecar that uses it, shared by a module's tests."""

from collections.abc import Iterator

import pytest

from tests.stand_in import StandIn, running_stand_in
from tests.support.server import RunningServer, running_server, settings_for


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    """A language model that answers by rule."""
    with running_stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def server(
    stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A sidecar with a database of its own."""
    settings = settings_for(
        tmp_path_factory.mktemp("server"), lm_base_url=stand_in.base_url
    )
    with running_server(settings) as running:
        yield running
