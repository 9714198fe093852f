"""Store: the jobs in memory, and when they are forgotten. Whatever is not here never was."""

from collections import Counter
from collections.abc import Iterable

from jobs.errors import UnknownJob
from jobs.job import Job
from jobs.keys import Keys


class Store:
    """Jobs by id, with the sums of the bytes that they hold."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self.held_by: Counter[str] = Counter()  # bytes by client
        self.has_forgotten = False  # since somebody last said no
        self.keys = Keys()
        self._jobs: dict[str, Job] = {}
        self._weights: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def watchers(self) -> int:
        """Who follow a job that is not forgotten."""
        return sum(job.bell.listeners for job in self._jobs.values())

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        self.weigh(job)

    def weigh(self, job: Job) -> None:
        """Count again what `job` holds: of a forgotten one, what somebody still reads."""
        weight = job.held_bytes
        more = weight - self._weights.pop(job.id, 0)
        if weight:
            self._weights[job.id] = weight
        self.held_bytes += more
        self.held_by[job.client] += more
        if not self.held_by[job.client]:
            del self.held_by[job.client]

    def find(self, job_id: str) -> Job:
        """The job. Raises UnknownJob, the same for a forgotten one and one that never was."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise UnknownJob from None

    def sweep(self, monotonic: float) -> None:
        """Forget the jobs that ended their `ttl_seconds` ago or earlier."""
        self.forget(
            job
            for job in list(self._jobs.values())
            if job.ended and monotonic - job.ended.monotonic >= job.ttl_seconds
        )

    def forget(self, jobs: Iterable[Job], cut: bool = False) -> None:
        """With `cut` whoever reads on is cut off."""
        for job in jobs:
            self._jobs.pop(job.id, None)  # its client may have left, and taken it along
            self.keys.forget(job)
            job.forget(cut)
            self.weigh(job)
            self.has_forgotten = True

    def forget_all(self) -> None:
        self.forget(list(self._jobs.values()))
