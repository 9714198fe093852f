"""Figures: sums and durations of all jobs since the start, for /metrics (jobs/api/metrics.py).
Nothing in them names a job, a client or a file.
"""

from bisect import bisect_left
from collections import Counter

from jobs.errors import Reason
from jobs.job import Job

# Upper bounds in seconds: of a launch, which takes milliseconds; of what takes as long as jobs do.
LAUNCH_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Durations:
    """A histogram: how many took up to each bound, and how long all took together."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # each beyond the bound before it
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Figures:
    """What is counted. Costs a few microseconds a job."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()  # that are over, by state and reason
        self.refused: Counter[Reason] = Counter()  # requests
        self.cpu_seconds = 0.0  # of jobs that are over
        self.queued = Durations(BOUNDS)
        self.launch = Durations(LAUNCH_BOUNDS)
        self.run = Durations(BOUNDS)

    def count(self, job: Job) -> None:
        """A job that is over."""
        self.jobs[job.state, job.reason or ""] += 1
        self.cpu_seconds += job.cpu_seconds
        left_line = job.started or job.ended
        if left_line:
            self.queued.add(left_line.monotonic - job.created.monotonic)
        if job.launch_seconds is not None:
            self.launch.add(job.launch_seconds)
        if job.result:
            self.run.add(job.result.usage.wall_usec / 1e6)
