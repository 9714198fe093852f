"""Line: the jobs that wait, fair among clients. Whoever sends five hundred jobs does not make the
next client wait for five hundred.

Each job gets a turn: its client's first job the turn that is being served, the second the one
after, and so on. Jobs are served by turn, within a turn as they came; so a position is a place in
one sorted list, and true until somebody who is owed an earlier turn arrives.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from jobs.job import Job

_Key = tuple[int, int]  # turn, number of arrival


class Line:
    """Waiting jobs in the order in which they will be served."""

    def __init__(self) -> None:
        self._keys: list[_Key] = []
        self._jobs: dict[_Key, Job] = {}
        self._key_of: dict[str, _Key] = {}  # by job id
        self._last_turn: dict[str, int] = {}  # by client: of its newest job, served or not
        self._turns: dict[str, list[int]] = {}  # by client: of its jobs in the line, rising
        self._turn = 0  # that is being served
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Job]:
        """The jobs in their order; the line may change meanwhile."""
        return iter([self._jobs[key] for key in self._keys])

    def add(self, job: Job) -> None:
        turn = max(self._last_turn.get(job.client, -1) + 1, self._turn)
        self._last_turn[job.client] = turn
        self._turns.setdefault(job.client, []).append(turn)
        self._arrivals += 1
        key = (turn, self._arrivals)
        insort(self._keys, key)
        self._jobs[key] = job
        self._key_of[job.id] = key

    def first(self) -> Job:
        return self._jobs[self._keys[0]]

    def take_first(self) -> Job:
        """The job whose turn it is, out of the line."""
        turn = self._keys[0][0]
        job = self.first()
        self._remove(job)
        if turn > self._turn:
            self._turn = turn
            # Who was served in an earlier turn is owed this one, like anybody unknown.
            self._last_turn = {c: last for c, last in self._last_turn.items() if last >= turn}
        return job

    def leave(self, job: Job) -> None:
        """Out of the line without having been served: its client is owed that turn."""
        turn = self._remove(job)
        own = self._turns.get(job.client)
        self._last_turn[job.client] = own[-1] if own else turn - 1

    def position(self, job: Job) -> int:
        """1 for the next one to be served; 0 for a job that is not in the line."""
        key = self._key_of.get(job.id)
        return 0 if key is None else bisect_left(self._keys, key) + 1

    def _remove(self, job: Job) -> int:
        """Its turn."""
        key = self._key_of.pop(job.id)
        del self._keys[bisect_left(self._keys, key)], self._jobs[key]
        own = self._turns[job.client]
        own.remove(key[0])
        if not own:
            del self._turns[job.client]
        return key[0]

    def forget_clients(self) -> None:
        """While nobody waits nobody is owed anything, and no client need be known."""
        if not self._keys:
            self._last_turn.clear()
