"""One file for each stage: the glue between a workspace folder and the science."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m edm2core.stages.…` is loading this: a signal may come while it imports torch
    from edm2core.worker import signals

    signals.install()

    from edm2core.provenance.origin import remember_code

    remember_code()  # the source that is imported next may be changed while it works
