"""A trajectory's averages at one epoch."""
