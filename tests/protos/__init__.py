"""Tests of what is made from the protos."""
