"""The training images' statistics in an extractor's features."""
