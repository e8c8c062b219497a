"""The user's own code as settings: where it lies, its content, and the settings that its signature names. Nothing here imports it."""
