"""Tests of `sidejudge_server.trust`."""
