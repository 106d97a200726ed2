"""Tests of sidejudge_server.cli."""
