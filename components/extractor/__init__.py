"""The network whose features are compared."""
