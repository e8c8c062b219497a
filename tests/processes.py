"""Where tests start processes that use torch."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def processes() -> ForkServerContext:
    """Each is forked from a process that has only imported torch: neither CUDA nor autograd's threads survive a fork."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["edm2core.diffusion.trainer", "torch._dynamo"])  # which DistributedDataParallel imports when it is made
    return context
