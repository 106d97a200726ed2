"""Whether an answer may be trusted: calibrated confidence, and selection with a guarantee."""
