"""The README tells the truth about settings, and its links and examples hold together."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidejudge_server import config
from tests.stand_in import running_stand_in
from tests.support.server import running_server, settings_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?:`(?P<variable>\w+)`)? ?\| (?:`(?P<toml>[\w.]+)`)? ?\| (?P<default>.*?) \|",
    re.MULTILINE,
)
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clients/*/README.md")]
)


def _defaults():
    settings = config.load_settings(None, {"HOME": "/home/somebody"})
    for section in ("server", "storage", "task_lm", "optimization", "review"):
        for name in getattr(settings, section).__dataclass_fields__:
            yield f"{section}.{name}", getattr(getattr(settings, section), name)


@pytest.mark.parametrize(("toml", "default"), list(_defaults()))
def test_every_setting_stands_in_the_readme_with_its_default(toml, default):
    """A reader finds each setting with the value that it has when nothing is set."""
    rows = {row["toml"]: row["default"] for row in ROW.finditer(README)}

    if default is None:
        assert "`" not in rows[toml] or "<database>" in rows[toml]
    else:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert rows[toml] == f"`{shown}`"


def test_every_variable_stands_in_the_readme_beside_its_setting():
    """Names in the environment match the settings that they set."""
    rows = {row["variable"]: row["toml"] for row in ROW.finditer(README)}

    for variable, (section, name) in config._VARIABLES.items():
        if not variable.startswith("SIDEJUDGE_PROMPT_LM_"):
            assert rows[variable] == f"{section}.{name}"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Run a sidecar with the stand-in for the examples."""
    directory = tmp_path_factory.mktemp("readme")
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(directory, lm_base_url=stand_in.base_url)
        ) as server,
    ):
        yield server.address


@pytest.mark.slow
def test_python_examples_run_as_printed(address):
    """What a stranger copies from the page works against a running sidecar."""
    blocks = re.findall(r"<!-- run: python -->\n```python\n(.*?)```", README, re.DOTALL)

    assert blocks
    for block in blocks:
        done = subprocess.run(  # noqa: S603 - an example of our own page
            [sys.executable, "-c", block],
            env={**os.environ, "SIDEJUDGE_SERVER": address},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.match(r"VERDICT_(PASS|PARTIAL|FAIL) [01]\.\d+", done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("grpcurl") is None, reason="grpcurl is not installed here"
)
def test_shell_examples_run_as_printed(address):
    """The same for the shell, where grpcurl is installed."""
    blocks = re.findall(
        r"<!-- run: shell-optional grpcurl -->\n```sh\n(.*?)```", README, re.DOTALL
    )

    assert blocks
    for block in blocks:
        done = subprocess.run(  # noqa: S603 - an example of our own page
            ["/bin/sh", "-c", block.replace("127.0.0.1:50510", address)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert '"verdict": "VERDICT_' in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    """A relative link names a file or folder that exists."""
    targets = re.findall(
        r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")
    )
    local = [t for t in targets if "://" not in t and not t.startswith("mailto:")]

    assert [t for t in local if not (page.parent / t).exists()] == []
