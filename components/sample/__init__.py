"""Images drawn from a snapshot."""
