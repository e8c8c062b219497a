"""A data set in its prepared form."""
