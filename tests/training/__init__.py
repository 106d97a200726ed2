"""Tests of `sidejudge_server.training`."""
