"""Statistics as pure functions; numpy and scipy only."""
