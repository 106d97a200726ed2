"""Tests of sidejudge; the only fake is the language model, at its wire."""
