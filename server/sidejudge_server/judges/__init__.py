"""Judging: kinds, prompts, decoding, versions, and the evaluation service."""
