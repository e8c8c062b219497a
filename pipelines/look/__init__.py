"""A store in the browser: its runs, live while they go on, and its results with their files. Nothing can be changed there."""

from pipelines.look.server import listen

__all__ = ["listen"]
