"""What people should label next, who has it, and what their labels say."""
