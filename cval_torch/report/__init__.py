"""What was chosen, to look at."""
