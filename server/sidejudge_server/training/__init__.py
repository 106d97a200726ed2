"""Training data: feedback to examples, validation, splits, metrics."""
