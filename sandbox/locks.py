"""Locks of ranges of files (POSIX) are kernel memory that no cgroup is charged for, and no resource
limit counts them: a job could make a million a second. So the launcher keeps an eye on how many
there are, and finds who has them when there are suddenly many.

/proc/locks names the process that holds each. It has none for the locks of open files
(F_OFD_SETLK), which the filter therefore denies; whole files (flock) are one a descriptor.
"""

import os
import time
from collections import Counter
from contextlib import suppress
from typing import Final

MOST: Final = 1000  # of one uid among those that we look at when there are many
_MANY = 20_000  # more than there were: 4 MB of the kernel's memory
_SAMPLE = 256 * 1024  # bytes of /proc/locks: about 4000 locks, the newest first
_SECONDS = 0.1  # between two looks
_BLIND_SECONDS = 1.0  # where the kernel does not tell how many there are; a search may take 10 ms
_COUNTER = "/sys/kernel/slab/file_lock_cache/objects"


class Locks:
    """How many there are in the whole machine, and since when there are too many."""

    def __init__(self) -> None:
        """Before the machine's /sys is out of reach."""
        self._counter = -1
        with suppress(FileNotFoundError):
            self._counter = os.open(_COUNTER, os.O_RDONLY | os.O_CLOEXEC)
        self._usual = self._count()
        self._next = 0.0

    def hoarders(self) -> set[int]:
        """The uids that hold too many. Cheap, unless there are many."""
        now = time.monotonic()
        if now < self._next:
            return set()
        self._next = now + (_SECONDS if self._counter >= 0 else _BLIND_SECONDS)
        if self._counter < 0:
            return _search()
        count = self._count()
        self._usual = min(self._usual, count)
        if count - self._usual < _MANY:
            return set()
        found = _search()
        if not found:
            self._usual = count  # kernels put things of one size together: it was something else
        return found

    def _count(self) -> int:
        """Objects in use of the size of a lock, "301 N0=301"; 0 where nobody tells."""
        return int(os.pread(self._counter, 64, 0).split()[0]) if self._counter >= 0 else 0


def _search() -> set[int]:
    """The uids that have more than MOST in a sample of all locks."""
    text = b""
    fd = os.open("/proc/locks", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(text) < _SAMPLE and (more := os.read(fd, 65536)):
            text += more
    finally:
        os.close(fd)
    # "17: POSIX  ADVISORY  WRITE 4242 00:2f:13 0 0"; before one that waits stands "->"
    pids = Counter(words[4] for line in text.splitlines() if len(words := line.split()) == 8)
    uids: Counter[int] = Counter()
    for pid, count in pids.items():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            uids[_uid(pid)] += count
    return {uid for uid, count in uids.items() if count > MOST}


def _uid(pid: bytes) -> int:
    fd = os.open(b"/proc/%s/status" % pid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(status.partition(b"\nUid:\t")[2].split()[0])
