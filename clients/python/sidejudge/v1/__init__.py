"""Generated from protos/sidejudge/v1; do not edit, run `make generate`."""
