"""Ideas of one's own: an example of each hook. docs/how-to/own-code.md shows them."""
