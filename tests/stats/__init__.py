"""Tests of `sidejudge_server.stats`."""
