"""The data formats that are read, one file each; a new one is a file here and a line in the registry."""
