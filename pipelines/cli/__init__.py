"""The `edm2` command: a lazily imported file a verb."""

import signal
import sys

# While the command is still importing, a Ctrl-C ends it without a traceback; then main() takes over.
if sys.argv[0] == "-m" or sys.argv[0].endswith("edm2"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
