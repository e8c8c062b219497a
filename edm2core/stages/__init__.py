"""A file a stage: the little glue between a workspace folder and the science."""
