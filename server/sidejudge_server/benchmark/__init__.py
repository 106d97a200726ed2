"""Judges measured on labelled files: accuracy with intervals, cost, report."""
