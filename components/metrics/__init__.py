"""Samples compared with reference statistics."""
