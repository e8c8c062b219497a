"""What an experiment comes to before anything runs: tasks, their keys, and what their results record."""
