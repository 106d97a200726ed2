"""Tests of what watches served judges."""
