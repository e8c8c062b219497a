"""What to run (spec), where it runs (local processes, or jobs of a cluster of some kind), and how it is watched."""
