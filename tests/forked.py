"""In a fork: `python -m tests.forked FOLDER -m MODULE ARGUMENT…` is that module's program, in that folder."""

import os
import runpy
import sys

if __name__ == "__main__":
    _, folder, _, module, *arguments = sys.argv
    os.chdir(folder)
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # it runs as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)
