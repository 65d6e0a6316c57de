"""What carries a workflow out. Knows no statistics."""
