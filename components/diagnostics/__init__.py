"""What happens inside a snapshot's network."""
