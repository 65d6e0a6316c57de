"""What protects the people behind the numbers. Pure."""
