"""Follows a task's job to its end, as a process that may be killed: `python -m tests.cluster.follow TASK PROFILE RUN`."""

import json
import sys
from threading import TIMEOUT_MAX

from components.launcher.cluster import Cluster
from components.launcher.profile import Profile
from edm2core.plan.tasks import Task
from tests.cluster.lab import Follower

if __name__ == "__main__":
    task, profile, run = Task.from_json(json.loads(sys.argv[1])), Profile.loads(sys.argv[2]), sys.argv[3]
    Follower(task, profile, run, Cluster.connect(profile)).done(TIMEOUT_MAX)
