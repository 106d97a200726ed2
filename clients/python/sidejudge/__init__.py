"""Python client of sidejudge and its generated gRPC code (`sidejudge.v1`)."""
