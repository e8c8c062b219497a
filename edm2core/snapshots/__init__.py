"""What a training leaves: snapshots, averages in three bytes, and checkpoints of other programs."""
