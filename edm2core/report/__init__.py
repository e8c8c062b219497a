"""What an experiment found, as rows of numbers and as one page to read."""

from edm2core.report.collect import Outcome, Report, RunInfo, collect
from edm2core.report.write import write

__all__ = ["Outcome", "Report", "RunInfo", "collect", "write"]
