"""Keys: what clients have sent with an Idempotency-Key. Whoever got no answer may send the same
again, and gets the job that the first time made. A key is its client's own, and is forgotten with
the job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jobs.errors import InFlight, KeyReused
from jobs.job import Job


class _Sent(NamedTuple):
    digest: bytes
    job: Job


class Keys:
    """By client and key: the job, and a digest of what was sent."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], _Sent] = {}
        self._by_job: dict[str, tuple[str, str]] = {}
        self._in_flight: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._sent)

    def knows(self, client: str, key: str) -> bool:
        """Whether a job came of it that is not forgotten."""
        return (client, key) in self._sent

    @contextmanager
    def claimed(self, client: str, key: str) -> Iterator[None]:
        """While a request with `key` is looked at, there is no other. Raises InFlight."""
        if (client, key) in self._in_flight:
            raise InFlight
        self._in_flight.add((client, key))
        try:
            yield
        finally:
            self._in_flight.remove((client, key))

    def find(self, client: str, key: str, digest: bytes) -> Job | None:
        """The job that was made of it. Raises KeyReused when something else was sent with it."""
        sent = self._sent.get((client, key))
        if sent and sent.digest != digest:
            raise KeyReused
        return sent.job if sent else None

    def keep(self, key: str, digest: bytes, job: Job) -> None:
        self._sent[job.client, key] = _Sent(digest, job)
        self._by_job[job.id] = (job.client, key)

    def has(self, job: Job) -> bool:
        """Whether its client can come back with a key, without the job's id."""
        return job.id in self._by_job

    def forget(self, job: Job) -> None:
        if place := self._by_job.pop(job.id, None):
            del self._sent[place]
