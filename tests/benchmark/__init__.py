"""Tests of sidejudge_server.benchmark."""
