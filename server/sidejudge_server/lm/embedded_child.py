"""The process that runs an embedded model: llama.cpp's server on loopback, until its parent ends.

``python -m sidejudge_server.lm.embedded_child MODEL_PATH --context N --threads N``. The first line of
standard input is the key that requests must bring, so that no other user of the machine can use
the model. One line of JSON on standard output says ``{"address": ...}`` or ``{"error": ...}``. The
process ends when standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

__all__ = ["main"]

LOOPBACK = "127.0.0.1"


def main() -> None:
    """Serve a model until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m sidejudge_server.lm.embedded_child"
    )
    parser.add_argument("model_path", type=Path)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    api_key = sys.stdin.readline().strip()
    answer = _claim_output()
    try:
        server = _serve(arguments, api_key)
    except Exception as error:  # noqa: BLE001 - whatever the library raises, the parent is told
        _say(answer, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    _say(answer, {"address": server.listening_address})
    while sys.stdin.read(65536):
        pass
    # The library's threads may be in the middle of a token and need not be waited for.
    os._exit(0)


def _claim_output() -> TextIO:
    """Keep standard output for the one line; llama.cpp's own output goes nowhere."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
    return answer


def _say(answer: TextIO, message: dict[str, str]) -> None:
    print(json.dumps(message), file=answer, flush=True)


def _serve(arguments: argparse.Namespace, api_key: str) -> Any:  # noqa: ANN401 - untyped library
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(arguments.model_path)
    parameters.hostnames = [LOOPBACK]
    parameters.port = 0
    parameters.api_keys = [api_key]
    parameters.n_parallel = (
        1  # more slots are not faster, and each has a prefix cache of its own
    )
    parameters.n_ctx = arguments.context
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.cache_prompt = True
    parameters.use_jinja = True
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    main()
