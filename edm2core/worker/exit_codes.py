"""What a stage's process says by its exit code."""

DONE = 0  # the result is in the store
FAILED = 1  # an error that no retry cures
BAD_INPUT = 2  # the same, and the input is to blame
TRY_AGAIN = 75  # somebody else works on it, or a passing fault
INTERRUPTED = 143  # saved and stopped, or another process of the same job is gone: to be started again
