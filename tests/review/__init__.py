"""Tests of what people are asked to label."""
