"""Several judges that answer together: juries that vote or average, and cascades that escalate."""
