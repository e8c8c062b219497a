"""The `edm2` command. Each verb has a file, which is imported only when the verb is called."""

import signal
import sys

# While the command is still importing, a Ctrl-C ends it without a traceback; then main() takes over.
if sys.argv[0] == "-m" or sys.argv[0].endswith("edm2"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
