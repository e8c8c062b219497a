"""Provenance: by which code and on which machine a result was made."""
