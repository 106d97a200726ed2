"""Tests of the gRPC face, over real gRPC."""
