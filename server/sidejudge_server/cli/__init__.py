"""The `sidejudge` command: serve, judge, correct, optimise, and look at all of it."""

from sidejudge_server.cli.entry import main

__all__ = ["main"]
