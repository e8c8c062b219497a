"""What users bring: named by content, checked, and uploaded where tasks run elsewhere."""
