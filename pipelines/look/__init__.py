"""A store in the browser: its runs, live while they go on, and its results with their files. Read-only."""

from pipelines.look.server import listen

__all__ = ["listen"]
