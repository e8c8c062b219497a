"""Linear probes on a snapshot's features, or on raw pixels."""
