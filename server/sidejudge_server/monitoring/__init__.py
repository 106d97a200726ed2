"""Watching whether deployed judges stay as good as they were."""
