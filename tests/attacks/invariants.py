"""What must be as it was after every attack, whatever it was: the catalogue's seven invariants.

HI1 /health below a second all the while     HI2 no process and no cgroup is left
HI3 the machine is unchanged                 HI4 the server is as small as before
HI5 no trace of the canary                   HI6 an honest neighbour's jobs are right
HI7 one end for every job, and its slot and quota are given back
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sandbox.keeper import WEB_UID
from sandbox.launcher import FIRST_UID, UIDS
from tests.journeys.server import (
    REPOSITORY,
    Server,
    cgroups_of,
    eventually,
    memory_of,
    processes_below,
)
from tests.sandbox.box import job_processes

HEALTH_SECONDS = 1.0
GONE_SECONDS = 2.0  # after the verdict
GROWTH = 1.05
_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp", "/run")
# What changes by itself, from one moment to the next.
_RESTLESS = (
    "kernel/random/", "kernel/ns_last_pid", "fs/dentry-state", "fs/inode-nr", "fs/inode-state",
    "fs/file-nr", "kernel/pty/nr", "fs/epoll", "vm/stat_refresh", "kernel/usermodehelper",
    "kernel/sched_domain", "fs/quota/",
)  # fmt: skip


class Machine(NamedTuple):
    """What no job may change (HI3)."""

    mounts: str
    files: tuple[str, ...]
    interfaces: tuple[str, ...]
    ipc: tuple[str, ...]
    sysctls: dict[str, str]


def machine(server: Server) -> Machine:
    mounts = Path("/proc/self/mountinfo").read_text()
    return Machine(
        mounts + Path(f"/proc/{server.process.pid}/mountinfo").read_text(),
        tuple(sorted(_files(server))),
        tuple(sorted(os.listdir("/sys/class/net"))),
        tuple(_ipc(kind) for kind in ("msg", "sem", "shm")),
        dict(_sysctls()),
    )


def _files(server: Server) -> Iterator[str]:
    """In the folders where programs leave things: all that lies there where only the server sees
    it (`ALONE`), else what belongs to a job or to web."""
    for folder in _FOLDERS:
        seen = f"/proc/{server.process.pid}/root{folder}"
        is_alone = os.stat(seen).st_dev != os.stat(folder).st_dev
        for entry in os.scandir(seen):
            with suppress(FileNotFoundError):
                owner = entry.stat(follow_symlinks=False).st_uid
                if is_alone or owner == WEB_UID or FIRST_UID <= owner < FIRST_UID + UIDS:
                    yield f"{folder}/{entry.name}"


def _ipc(kind: str) -> str:
    with suppress(FileNotFoundError):
        return Path("/proc/sysvipc", kind).read_text()
    return ""


def _sysctls() -> Iterator[tuple[str, str]]:
    for path in _readable_sysctls():
        with suppress(OSError):
            yield path, Path(path).read_text(errors="replace")


_PATHS: list[str] = []


def _readable_sysctls() -> list[str]:
    if not _PATHS:
        for top in ("kernel", "fs", "user", "vm"):
            for folder, _, names in os.walk(f"/proc/sys/{top}"):
                for path in (f"{folder}/{name}" for name in names):
                    short = path.removeprefix("/proc/sys/")
                    if not short.startswith(_RESTLESS) and os.stat(path).st_mode & 0o400:
                        _PATHS.append(path)
    return _PATHS


# Before script/server: folders of its own, empty, where everybody else leaves things too. Not that
# which the repository lies in.
ALONE = [
    "unshare", "--mount", "--propagation", "private", "sh", "-c",
    'for folder in /tmp /var/tmp /dev/shm; do case "$0/" in "$folder"/*) ;; '
    '*) mount -t tmpfs -o mode=1777 alone "$folder" || exit 1;; esac; done; exec "$@"',
    str(REPOSITORY),
]  # fmt: skip


class Size(NamedTuple):
    """How much there is of a server (HI4), in bytes and numbers, over keeper, launcher and web."""

    rss: int
    memfds: int
    descriptors: int
    threads: int
    processes: int
    zombies: int

    def is_within(self, before: "Size") -> bool:
        """No more than there was, but for the allocator's and the thread pool's habits."""
        return (
            self.rss <= before.rss * GROWTH
            and self.memfds <= before.memfds
            and self.descriptors <= before.descriptors
            and self.threads <= max(before.threads, POOL)
            and self.processes <= before.processes
            and self.zombies == 0
        )


POOL = 3 + min(32, (os.cpu_count() or 1) + 4) + 4  # three mains, and the executors of web at most


def size(pids: dict[str, int]) -> Size:
    held = [memory_of(pid) for pid in pids.values()]
    status = [_status(pid) for pid in pids.values()]
    below = list(processes_below(pids["keeper"]))
    return Size(
        sum(memory.rss for memory in held),
        sum(memory.memfds for memory in held),
        sum(memory.descriptors for memory in held),
        sum(int(lines["Threads"]) for lines in status),
        len(below),
        sum(_status(pid).get("State", "").startswith("Z") for pid in below),
    )


def _status(pid: int) -> dict[str, str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}
    return {}


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def read(self) -> list[str]:
        """Its lines since the last look."""
        lines = []
        while True:
            try:
                lines.append(os.read(self._fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                continue  # overwritten before it was read

    def close(self) -> None:
        os.close(self._fd)


class Neighbour:
    """Our end of the bystander (HI1, HI6)."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.bystander", str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip

    def begin(self) -> None:
        self._tell("begin")

    def end(self) -> dict[str, Any]:
        return self._tell("end")

    def _tell(self, word: str) -> dict[str, Any]:
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(word.encode() + b"\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 90)[0], "the neighbour waits for ever"
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Invariants:
    """The state before an attack, and whether it is back."""

    def __init__(self, server: Server, log: KernelLog) -> None:
        self._server = server
        self._log = log
        self._pids = server.pids()
        log.read()
        self.machine = machine(server)
        self.size = size(self._pids)

    def faults(self, canary: str, neighbour: dict[str, Any]) -> Iterator[str]:
        """Sentences about everything that is not as it was. All jobs are deleted by now."""
        if neighbour["worst_health"] >= HEALTH_SECONDS:
            yield f"HI1: /health took {neighbour['worst_health']:.2f} s"
        if not eventually(lambda: not job_processes(), GONE_SECONDS):
            yield f"HI2: processes are left: {job_processes()}"
        if not eventually(lambda: not cgroups_of(self._pids["keeper"]), GONE_SECONDS):
            yield f"HI2: cgroups are left: {cgroups_of(self._pids['keeper'])}"
        if not eventually(lambda: machine(self._server) == self.machine, 1):
            yield from self._changed(machine(self._server))
        if self._server.process.poll() is not None or self._server.pids() != self._pids:
            yield "HI4: the server is gone, or other processes are in its place"
            return
        if not eventually(lambda: size(self._pids).is_within(self.size), 5):
            yield f"HI4: the server has grown: {size(self._pids)} from {self.size}"
        for line in self._log.read():
            if canary in line:
                yield f"HI5: the kernel logged {line!r}"
        for fault in neighbour["faults"]:
            yield f"HI6: the neighbour's job {fault}"
        system = self._server.get("/stats")["system"]
        if (system["queue_length"], system["active_jobs"]) != (0, 0):
            yield f"HI7: slots are not given back: {system}"

    def _changed(self, now: Machine) -> Iterator[str]:
        for name, then, today in zip(now._fields, self.machine, now, strict=True):
            if isinstance(then, dict) and isinstance(today, dict):
                changed = sorted(dict(then.items() ^ today.items()))
                if changed:
                    yield f"HI3: {changed[:10]} changed"
            elif then != today:
                yield f"HI3: {name} changed: {_difference(str(then), str(today))}"


def _difference(then: str, today: str) -> str:
    return str(sorted(set(today.split("\n")) ^ set(then.split("\n"))))[:500]
