"""What was recorded, in figures."""
