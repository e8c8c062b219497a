"""The networks whose features metrics compare, one file each; a new one is a file here and a line in the registry."""
