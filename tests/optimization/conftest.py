"""One fork server for all tests here, with the optimizer loaded: each run saves its import."""

from __future__ import annotations

import os

import pytest

from sidejudge_server.optimization.executor import start_fork_server


@pytest.fixture(autouse=True, scope="session")
def _fork_server(tmp_path_factory):
    # What a worker sets for itself before it loads the optimizer.
    os.environ.setdefault("DSPY_CACHEDIR", str(tmp_path_factory.mktemp("dspy")))
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
    start_fork_server(["sidejudge_server.optimization.worker"])
