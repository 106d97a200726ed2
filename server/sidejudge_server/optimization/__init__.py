"""Optimization runs: queue, worker processes, search, refit, gate."""
