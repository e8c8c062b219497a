"""The `edm2` command: a lazily imported file a verb."""
