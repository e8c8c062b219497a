"""Comparing images with reference images in a feature extractor's space."""
