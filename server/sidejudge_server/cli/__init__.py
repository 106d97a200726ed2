"""The sidejudge command line; a gRPC client except for serve and models."""
