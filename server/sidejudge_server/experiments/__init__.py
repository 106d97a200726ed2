"""Experiments: assignment of subjects to arms."""
