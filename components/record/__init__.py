"""What was asked, written into the store before anything runs."""
