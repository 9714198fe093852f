"""Store: the jobs in memory, and when they are forgotten. Whatever is not here never was."""

from collections.abc import Iterable

from jobs.errors import UnknownJob
from jobs.job import Job


class Store:
    """Jobs by id, with the sum of the bytes that they hold."""

    def __init__(self, ttl_seconds: float) -> None:
        self.ttl_seconds = ttl_seconds
        self.held_bytes = 0
        self._jobs: dict[str, Job] = {}
        self._weights: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        self.weigh(job)

    def weigh(self, job: Job) -> None:
        """Count again what `job` holds."""
        weight = job.held_bytes
        self.held_bytes += weight - self._weights.get(job.id, 0)
        self._weights[job.id] = weight

    def find(self, job_id: str) -> Job:
        """The job. Raises UnknownJob, the same for a forgotten one and one that never was."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise UnknownJob from None

    def expires_at(self, job: Job) -> float | None:
        """Wall clock time from which `job` is forgotten; None while it is not over."""
        return job.ended.wall + self.ttl_seconds if job.ended else None

    def sweep(self, monotonic: float) -> None:
        """Forget the jobs that ended `ttl_seconds` ago or earlier."""
        self.forget(
            job
            for job in list(self._jobs.values())
            if job.ended and monotonic - job.ended.monotonic >= self.ttl_seconds
        )

    def forget(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            del self._jobs[job.id]
            self.held_bytes -= self._weights.pop(job.id)
            job.forget()

    def forget_all(self) -> None:
        self.forget(list(self._jobs.values()))
