"""The README tells the truth about settings, and its links and examples hold together."""

import ast
import re
from pathlib import Path

import pytest

from sidejudge_server import config

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
    for section in ("server", "storage", "task_lm", "optimization"):
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


def test_python_examples_are_valid_python():
    """What is marked to be run can at least be compiled."""
    blocks = re.findall(r"<!-- run: python -->\n```python\n(.*?)```", README, re.DOTALL)

    assert blocks
    for block in blocks:
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    """A relative link names a file or folder that exists."""
    targets = re.findall(
        r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")
    )
    local = [t for t in targets if "://" not in t and not t.startswith("mailto:")]

    assert [t for t in local if not (page.parent / t).exists()] == []
