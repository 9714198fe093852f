"""Census: what the processes of one uid use, where the machine has no cgroup to count it.

Only looked at where an operator has allowed that by name. It is an estimate: what lives and dies
between two looks is not seen, nor is a memfd that nobody maps. A cgroup is exact; this is what is
left without one, and `walls.missing` says so.
"""

import os
import resource
from collections.abc import Iterable
from typing import NamedTuple

_TICK_USEC = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """One process at one look."""

    start: bytes  # ticks after boot: with the pid, it is this one and no later one
    cpu_usec: int
    anonymous: int  # bytes of its own memory
    shared: int  # bytes of memory files that it maps


class Census:
    """The processes of one outside uid, which no other running sandbox has."""

    def __init__(self, uid: int, memory_bytes: int) -> None:
        self.uid = uid
        self.memory_bytes = memory_bytes  # the limit
        self.memory_peak_bytes = 0
        self.over = False  # more than the limit was seen
        self._running: dict[tuple[int, bytes], int] = {}  # usec by pid and start time
        self._gone_usec = 0
        self._waited_usec = 0
        self._clock = os.memfd_create("clock", os.MFD_CLOEXEC)
        os.write(self._clock, b"0")

    @property
    def cpu_usec(self) -> int:
        """CPU time of all that was seen, or that was waited for: whichever is more."""
        return max(self._gone_usec + sum(self._running.values()), self._waited_usec)

    def open_clock(self) -> int:
        """A descriptor for `cgroups.read_gauges`, to read only."""
        return os.open(f"/proc/self/fd/{self._clock}", os.O_RDONLY | os.O_CLOEXEC)

    def take(self, running: dict[int, Seen], files: int) -> None:
        """What one look found, by pid; and the bytes of the files that the sandbox holds."""
        now = {(pid, seen.start): seen.cpu_usec for pid, seen in running.items()}
        self._gone_usec += sum(u for key, u in self._running.items() if key not in now)
        self._running = now
        parts = [(seen.anonymous, seen.shared) for seen in running.values()]
        if _sum(parts, files) > self.memory_bytes:
            # Pages that processes share were counted once for each; ask again, which takes longer.
            parts = [_proportional(pid, seen) for pid, seen in running.items()]
        memory = _sum(parts, files)
        self.memory_peak_bytes = max(self.memory_peak_bytes, memory)
        self.over = self.over or memory > self.memory_bytes
        os.pwrite(self._clock, str(self.cpu_usec * 1000).encode(), 0)

    def end(self, used: resource.struct_rusage) -> None:
        """What the kernel says at the end of pid 1, about it and all that was waited for."""
        self._waited_usec = int((used.ru_utime + used.ru_stime) * 1_000_000)
        self.memory_peak_bytes = max(self.memory_peak_bytes, used.ru_maxrss * 1024)

    def close(self) -> None:
        if self._clock >= 0:
            os.close(self._clock)
            self._clock = -1


def look(censuses: Iterable[tuple[Census, int]]) -> None:
    """Look once at every process of the machine, for all of them: (census, bytes of its files)."""
    by_uid = {census.uid: (census, files) for census, files in censuses}
    if not by_uid:
        return
    found: dict[int, dict[int, Seen]] = {uid: {} for uid in by_uid}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                uid, anonymous, shared = _status(name)
                if uid in found:
                    found[uid][int(name)] = Seen(*_times(name), anonymous, shared)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    for uid, (census, files) in by_uid.items():
        census.take(found[uid], files)


def _sum(parts: list[tuple[int, int]], files: int) -> int:
    """A file that is mapped is also a file: the greater of both counts."""
    return sum(own for own, _ in parts) + max(files, sum(shared for _, shared in parts))


def _status(pid: str) -> tuple[int, int, int]:
    """Real uid, and the bytes of its own and of shared memory, without pages of files."""
    uid, anonymous, shared = -1, 0, 0
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            uid = int(line.split()[1])
        elif line.startswith(b"RssAnon:"):
            anonymous = int(line.split()[1]) * 1024
        elif line.startswith(b"RssShmem:"):
            shared = int(line.split()[1]) * 1024
    return uid, anonymous, shared


def _times(pid: str) -> tuple[bytes, int]:
    """When it started, in ticks, and the CPU time that it has used, in microseconds."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[19], (int(fields[11]) + int(fields[12])) * _TICK_USEC


def _proportional(pid: int, seen: Seen) -> tuple[int, int]:
    """Its own and shared memory, each page divided by how many processes map it. Some kernels tell
    that only with CAP_SYS_PTRACE, which we need not have: then it is what was seen."""
    anonymous = shared = 0
    try:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss_Anon:"):
                anonymous = int(line.split()[1]) * 1024
            elif line.startswith(b"Pss_Shmem:"):
                shared = int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    except PermissionError:
        return seen.anonymous, seen.shared
    return anonymous, shared


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536)
    finally:
        os.close(fd)
