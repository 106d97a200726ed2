"""`python -m sidejudge_server` and the `sidejudge` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code."""
    from sidejudge_server.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
