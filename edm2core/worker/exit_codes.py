"""The exit codes of a stage's process."""

DONE = 0  # the result is in the store
FAILED = 1  # an error that no retry cures
BAD_INPUT = 2  # an error that no retry cures, because what the user gave is wrong
TRY_AGAIN = 75  # another process works on the task, or the fault may pass
INTERRUPTED = 143  # start it again: it has saved and stopped, or another process of the same job has ended
DEVICE_FAILED = 144  # start it again elsewhere: its GPU has failed, and may fail every process of this node from now on
