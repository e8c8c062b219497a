"""A store in the browser: its runs, live while they go on, and its results with their files. Nothing can be changed there."""
