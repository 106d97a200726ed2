"""Entry point: parse, load the module of the command, run it, turn failures into exit codes.

Only the module of the command that was asked for is imported, so that `sidejudge --help` answers at
once and `sidejudge serve` decides itself what is loaded before gRPC.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from sidejudge_server.cli.failures import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    CommandError,
)
from sidejudge_server.cli.parser import build_parser
from sidejudge_server.config import ConfigError

__all__ = ["main"]

# Top-level packages that only the extras bring.
_EXTRA_PACKAGES = {
    "google",
    "grpc_health",
    "grpc_status",
    "rich",
    "duckdb",
    "aiohttp",
    "dspy",
    "structlog",
    "numpy",
    "scipy",
    "nanoarrow",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None takes the process's.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return _handler(args.handler)(args)
    except CommandError as error:
        print(f"sidejudge: {error}", file=sys.stderr)
        return error.exit_code
    except ConfigError as error:
        print(f"sidejudge: wrong settings:\n{error}", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        print(
            f"sidejudge: this command needs {error.name}, which comes with the server"
            ' extra: pip install "sidejudge[server,local]"',
            file=sys.stderr,
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("sidejudge: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Point stdout elsewhere so that
        # the interpreter's own flush at exit does not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _handler(reference: str) -> Callable[[object], int]:
    module, _, function = reference.partition(":")
    handler: Callable[[object], int] = getattr(
        importlib.import_module(f"sidejudge_server.cli.{module}"), function
    )
    return handler
