"""Tests of the storage package, on real DuckDB files."""
