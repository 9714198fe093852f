"""Locks of ranges of files (POSIX) are kernel memory that no cgroup is charged for, and no resource
limit counts them: a job could make a million a second. So the launcher keeps an eye on how many
there are, and finds who has them when there are suddenly many.

/proc/locks names the process that took each. It has none for the locks of open files
(F_OFD_SETLK), and a dead one for those of a process that shared its descriptors and was no thread;
the filter therefore denies both. Whole files (flock) are one a descriptor.
"""

import os
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple

MOST: Final = 1000  # of one job, when there are many
_MANY = 20_000  # more than there were: 4 MB of the kernel's memory
# The kernel walks from the first lock to where it stopped, for every page that is read of them:
# 16,000 take 40 ms, of a thread that has other things to do; four times as many a second.
_LINES = 16_000
_SECONDS = 0.1  # between two looks
_BLIND_SECONDS = 1.0  # where the kernel does not tell how many there are
_REST = 9  # times as long as a search took, nobody searches
_COUNTER = "/sys/kernel/slab/file_lock_cache/objects"
_NOBODY = -1  # in place of the uid of a process that is dead while its locks are not


class Found(NamedTuple):
    """What a search came to."""

    hoarders: set[int]
    is_all: bool  # every lock was seen, and nobody has too many: no job and no dead process


class Locks:
    """How many there are in the whole machine, and since when there are too many."""

    def __init__(self) -> None:
        """Before the machine's /sys is out of reach."""
        self._counter = -1
        with suppress(FileNotFoundError):
            self._counter = os.open(_COUNTER, os.O_RDONLY | os.O_CLOEXEC)
        self._usual = self._count()
        self._next = 0.0

    def hoarders(self, jobs: Collection[int]) -> set[int]:
        """Those of the jobs' uids that hold too many. Cheap, unless there are many."""
        now = time.monotonic()
        if now < self._next or not jobs:
            return set()
        self._next = now + (_SECONDS if self._counter >= 0 else _BLIND_SECONDS)
        count = self._count()
        self._usual = min(self._usual, count)
        if self._counter >= 0 and count - self._usual < _MANY:
            return set()
        found = _search(jobs)
        if found.is_all:
            self._usual = count  # kernels put things of one size together: it was something else
        took = time.monotonic() - now
        self._next = max(self._next, now + took + _REST * took)
        return found.hoarders

    def _count(self) -> int:
        """Objects in use of the size of a lock, "301 N0=301"; 0 where nobody tells."""
        return int(os.pread(self._counter, 64, 0).split()[0]) if self._counter >= 0 else 0


def _search(jobs: Collection[int]) -> Found:
    """Read on until a job has more than MOST, or all was read. The locks stand in the order of the
    processor that they were taken on, which a job chooses: some, read first, say nothing about the
    rest. Where so many jobs have so many that it would take too long, those with more than an
    equal share of what was read are it; one has."""
    counts: Counter[int] = Counter()
    uids: dict[bytes, int] = {}  # by pid
    lines, rest = 0, b""
    fd = os.open("/proc/locks", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while lines < _LINES and (more := os.read(fd, 65536)):
            *whole, rest = (rest + more).split(b"\n")
            lines += len(whole)
            for words in map(bytes.split, whole):
                # "17: POSIX  ADVISORY  WRITE 4242 00:2f:13 0 0"; before one that waits stands "->"
                if len(words) == 8 and words[4].isdigit():
                    pid = words[4]
                    if pid not in uids:
                        uids[pid] = _uid(pid)
                    counts[uids[pid]] += 1
            hoarders = {uid for uid in jobs if counts[uid] > MOST}
            if hoarders:
                return Found(hoarders, False)
    finally:
        os.close(fd)
    if lines >= _LINES:
        return Found({uid for uid in jobs if counts[uid] > _LINES // len(jobs)}, False)
    return Found(set(), counts[_NOBODY] <= MOST)


def _uid(pid: bytes) -> int:
    """Whose it is; nobody's when it has ended."""
    try:
        fd = os.open(b"/proc/%s/status" % pid, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return _NOBODY
    return int(status.partition(b"\nUid:\t")[2].split()[0])
