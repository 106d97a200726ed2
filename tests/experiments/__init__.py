"""Tests of `sidejudge_server.experiments`."""
