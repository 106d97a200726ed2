"""What can be read, one module for each kind of row."""
