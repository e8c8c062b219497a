"""An experiment run by one command, here or with jobs on a cluster."""
