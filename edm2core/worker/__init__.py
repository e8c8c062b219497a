"""The process that does a task: its files, its lease, its signals, and how it ends."""
