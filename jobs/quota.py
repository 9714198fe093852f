"""Quota: how much one client may have. Concurrent jobs, jobs an hour, and CPU time from a bucket
that fills slowly while running jobs draw from it.

A client is an address and nothing else; what is known about one is forgotten as soon as it does
not matter any more, an hour after its last job at the latest.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from jobs.conf import Config
from jobs.errors import Full, OverQuota

HOUR = 3600.0
SWEEP_SECONDS = 30.0  # between two looks for clients to forget: a look at 100,000 takes 0.1 s
MINUTE = 60.0
CLIENTS = 100_000  # remembered at once; each costs some hundred bytes
FREE_INSPECTION_SECONDS = 0.5  # of an archive that becomes a job; an honest one takes far less
ENOUGH_CPU_SECONDS = 1.0  # in the bucket, or a job would be killed as it starts
_ROUNDING = 1e-6  # seconds: whoever comes when told is not told to wait once more
SLOT_RETRY_SECONDS = 5  # nobody knows when a job ends


class Standing(NamedTuple):
    """Where one client stands: what it may have, and what is left of it."""

    cpu_limit: float  # seconds
    cpu_left: float  # seconds, 0 when it owes some
    cpu_full_in: float  # seconds until all of it is there again
    concurrent_limit: int
    active: int  # jobs that wait or run
    hourly_limit: int
    hourly_left: int
    hourly_next_in: float  # seconds until one more is allowed
    refusal: OverQuota | None  # what a submission would hear now


class Account:
    """One client."""

    def __init__(self, cpu_left: float, now: float) -> None:
        self.cpu_left = cpu_left  # below 0: more was used than there was
        self.filled = now  # when cpu_left was true
        self.active = 0
        self.starts: deque[float] = deque()  # within the last hour

    def rest(self) -> bool:
        """Nothing is known here that a new account would not say."""
        return not self.active and not self.starts


class Reservation:
    """One job's place in its client's quota. As a context it is given back, unless somebody has
    taken it over with `keep` by then.
    """

    def __init__(self, quota: "Quota", client: str, account: Account, start: float) -> None:
        self.client = client
        self._quota = quota
        self._account = account
        self._start = start
        self._drawn = 0.0
        self._inspected: float | None = None  # CPU seconds
        self._open = True
        self._kept = False

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *error: object) -> None:
        if not self._kept:
            self.give_back()

    def keep(self) -> None:
        """A job has it now, and ends it. A part of the inspection is free for one that runs."""
        self._kept = True
        self._quota.draw(self._account, -min(self._inspected or 0.0, FREE_INSPECTION_SECONDS))

    def draw(self, cpu_seconds: float) -> bool:
        """The job has used `cpu_seconds` since its start; whether the client has any left. Once it
        is settled nothing is taken any more.
        """
        if not self._open:
            return True
        left = self._quota.draw(self._account, max(0.0, cpu_seconds - self._drawn))
        self._drawn = max(self._drawn, cpu_seconds)
        return left > 0

    def draw_inspection(self, cpu_seconds: float) -> None:
        """The archive took so long to read; the first word counts. This is not given back: what is
        refused costs no job, but nobody keeps the machine busy with archives that are.
        """
        if self._inspected is None:
            self._inspected = cpu_seconds
            self._quota.draw(self._account, cpu_seconds)

    def end(self, cpu_seconds: float) -> None:
        """The job is over and has used `cpu_seconds` in all."""
        if self._open:
            self.draw(cpu_seconds)
            self._close()

    def give_back(self) -> None:
        """As if nothing had been asked: the job was refused, or failed by our fault."""
        if self._open:
            self._quota.draw(self._account, -self._drawn)
            if self._start in self._account.starts:
                self._account.starts.remove(self._start)
            self._close()

    def _close(self) -> None:
        self._open = False
        self._account.active -= 1


class Quota:
    """All clients. Check and reserve is one step: nothing here waits."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._config = config
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._accounts)

    def reserve(self, client: str) -> Reservation:
        """Count one more job of `client`. Raises OverQuota; Full for one client too many."""
        now = self._clock()
        account = self._accounts.get(client)
        if account is None:
            if len(self._accounts) >= CLIENTS:
                raise Full("Too many clients at once", retry_after=60)
            account = Account(self._config.cpu_seconds_per_minute, now)
        if refusal := self._refusal(account, now):
            raise refusal
        self._accounts[client] = account
        account.active += 1
        if self._config.quotas:
            account.starts.append(now)
        return Reservation(self, client, account, now)

    def draw(self, account: Account, cpu_seconds: float) -> float:
        """Take from the bucket; the seconds that are left, less than 0 when it owes some."""
        most = self._config.cpu_seconds_per_minute
        now = self._clock()
        account.cpu_left = min(most, account.cpu_left + (now - account.filled) * most / MINUTE)
        account.filled = now
        if self._config.quotas:
            account.cpu_left = min(most, account.cpu_left - cpu_seconds)
        return account.cpu_left

    def standing(self, client: str) -> Standing:
        """What `client` may have now."""
        config, now = self._config, self._clock()
        account = self._accounts.get(client) or Account(config.cpu_seconds_per_minute, now)
        refusal = self._refusal(account, now)
        most, left = config.cpu_seconds_per_minute, account.cpu_left
        starts = len(account.starts)
        return Standing(
            cpu_limit=most,
            cpu_left=max(0.0, left),
            cpu_full_in=(most - left) * MINUTE / most,
            concurrent_limit=config.concurrent_jobs,
            active=account.active,
            hourly_limit=config.jobs_per_hour,
            hourly_left=max(0, config.jobs_per_hour - starts),
            hourly_next_in=account.starts[0] + HOUR - now if starts else 0.0,
            refusal=refusal,
        )

    def sweep(self) -> None:
        """Forget the clients about whom nothing is left to know, if it is time to look."""
        now = self._clock()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for client, account in list(self._accounts.items()):
            self._age(account, now)
            if account.rest() and account.cpu_left >= self._config.cpu_seconds_per_minute:
                del self._accounts[client]

    def _age(self, account: Account, now: float) -> None:
        while account.starts and account.starts[0] <= now - HOUR:
            account.starts.popleft()
        self.draw(account, 0.0)

    def _refusal(self, account: Account, now: float) -> OverQuota | None:
        """The first limit that one more job would break, in the order in which they are told."""
        config = self._config
        self._age(account, now)
        if not config.quotas:
            return None
        if account.active >= config.concurrent_jobs:
            return OverQuota(
                f"Max concurrent jobs reached ({config.concurrent_jobs})",
                "concurrent_jobs",
                SLOT_RETRY_SECONDS,
                "Wait for one of your jobs to end, or cancel it.",
            )
        if len(account.starts) >= config.jobs_per_hour:
            seconds = math.ceil(account.starts[0] + HOUR - now)
            return OverQuota(
                f"Max jobs per hour reached ({config.jobs_per_hour})", "hourly_jobs", seconds
            )
        enough = min(ENOUGH_CPU_SECONDS, config.cpu_seconds_per_minute)
        if account.cpu_left < enough - _ROUNDING:
            lacking = enough - account.cpu_left
            seconds = math.ceil(lacking * MINUTE / config.cpu_seconds_per_minute)
            return OverQuota(
                f"CPU quota exhausted, wait {seconds} seconds",
                "cpu_quota",
                seconds,
                f"{config.cpu_seconds_per_minute:g} CPU-seconds a minute are for everybody.",
            )
        return None
