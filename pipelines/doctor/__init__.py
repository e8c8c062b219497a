"""What a cluster lacks for running experiments."""
