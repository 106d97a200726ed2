"""Tests of juries."""
