"""Follows a task's job to its end, as a process that may be killed: `python -m tests.cluster.follow TASK PROFILE RUN FOLDER`."""

import json
import sys
from pathlib import Path
from threading import TIMEOUT_MAX

from components.launcher.profile import Profile
from edm2core.plan.tasks import Task
from tests.cluster.lab import Lab

if __name__ == "__main__":
    task, profile, run, folder = sys.argv[1:]
    Lab(Path(folder), Path(folder)).follow(Task.from_json(json.loads(task)), Profile.loads(profile), run).done(TIMEOUT_MAX)
