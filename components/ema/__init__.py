"""An average of another width, mixed from stored ones."""
