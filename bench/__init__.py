"""Benchmarks: figures with the bare operations beside them, measured in one run."""
