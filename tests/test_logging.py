"""What the log holds and what it never holds."""

import json
import subprocess
import sys

from sidejudge_server.logging import drop_secrets

PROGRAM = """
import logging, structlog
from sidejudge_server.logging import configure_logging
configure_logging("info")
structlog.contextvars.bind_contextvars(request_id="r-1")
log = structlog.get_logger("sidejudge_server.x")
log.debug("hidden")
log.info("shown", api_key="sk-1", input_tokens=3, nested={"Authorization": "Bearer x"})
logging.getLogger("aiohttp").info("hidden too")
logging.getLogger("sidejudge_server.y").info("standard")
try:
    raise KeyError("k")
except KeyError:
    log.exception("broken")
"""


def test_secrets_are_dropped_and_counts_are_not():
    """Names tell secrets; a number is a count."""
    event = {
        "event": "x",
        "api_key": "sk-1",
        "resume_token": "t",
        "client_secret": "s",
        "Authorization": "Bearer x",
        "input_tokens": 12,
        "settings": {"password": "p", "model": "m"},
    }
    assert drop_secrets(None, "", event) == {
        "event": "x",
        "input_tokens": 12,
        "settings": {"model": "m"},
    }


def test_log_is_one_json_object_a_line_on_standard_error():
    """Both logging libraries end up in one form, with the call id, at the level asked for."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert [line["event"] for line in lines] == ["shown", "standard", "broken"]
    assert {line["request_id"] for line in lines} == {"r-1"}
    assert lines[0]["input_tokens"] == 3
    assert "sk-1" not in done.stderr
    assert "Bearer" not in done.stderr
    assert "KeyError" in lines[2]["exception"]
