"""What to run (spec), where it runs (local, pytorchjob), and how it is watched."""
