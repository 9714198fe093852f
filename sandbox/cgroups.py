"""Cgroups: how much a sandbox may use and what it used, on version 2, version 1, or a mixture.

Two sides. The keeper makes one parent a hierarchy (`prepare`) and removes it (`remove`,
`sweep`). The launcher opens the parents (`Parents`) and makes one `Cgroup` a sandbox below them.

Layout, version 2:   <root>/sandrun-<pid>-<start>/service   keeper, launcher, web
                     <root>/sandrun-<pid>-<start>/jobs/<id> one sandbox each
        version 1:   <hierarchy>/sandrun-<pid>-<start>/jobs/<id>, per controller
"""

import contextlib
import errno
import os
import resource
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from sandbox.census import Census
from sandbox.errors import SandboxError
from sandbox.model import Gauge, Limits, Usage

CONTROLLERS = ("memory", "pids", "cpu")
# What an operator may allow to be missing (SANDRUN_ALLOW_MISSING), and so the controllers.
MISSABLE = {"cgroups": CONTROLLERS, **{f"cgroup-{name}": (name,) for name in CONTROLLERS}}
SWAPS = Path("/proc/swaps")
_PREFIX = "sandrun-"
_SHARE = 25  # percent of what others have: who waits for an answer does not wait for all jobs
_PERIOD_USEC = 100_000  # the kernel's default, which version 1 is left with


class Parent(NamedTuple):
    """Where the sandboxes' cgroups of some controllers are made."""

    version: int
    controllers: tuple[str, ...]
    path: str  # of the directory that holds one directory a sandbox


# --- the keeper's side -----------------------------------------------------------------------


def read_missable(text: str) -> set[str]:
    """The controllers that a SANDRUN_ALLOW_MISSING lets be missing. Raises SandboxError."""
    names = {word.strip() for word in text.split(",") if word.strip()}
    if unknown := sorted(names - set(MISSABLE)):
        known = ", ".join(MISSABLE)
        raise SandboxError(
            "settings", 0, f"SANDRUN_ALLOW_MISSING: {unknown[0]!r} is not one of {known}"
        )
    return {controller for name in names for controller in MISSABLE[name]}


def prepare(name: str, may_miss: Collection[str] = ()) -> list[Parent]:
    """Make the parents for `name`, one a hierarchy; every controller must be had somewhere, but
    for those that `may_miss` names.

    Raises SandboxError("cgroup") when a controller is missing: nothing runs without limits.
    """
    v1, v2 = _mounts()
    with ExitStack() as undo:
        undo.callback(_forget, name, v1, v2)
        parents = _make(name, v1, v2, may_miss)
        memory = [parent.version for parent in parents if "memory" in parent.controllers]
        if memory != [2] and swap_is_on():
            # Version 1 limits the jobs' swap but not that of the memfds which web holds.
            raise SandboxError(
                "swap", 0, "turn it off (swapoff -a): nothing of a job may reach a disk"
            )
        undo.pop_all()
    return parents


def _make(
    name: str, v1: dict[str, Path], v2: Path | None, may_miss: Collection[str]
) -> list[Parent]:
    parents: list[Parent] = []
    wanted = list(CONTROLLERS)
    if v2:
        own = _delegated(v2)
        top = (own or v2) / name
        offered = (own or v2).joinpath("cgroup.controllers").read_text().split()
        here = tuple(c for c in wanted if c in offered and c not in v1)
        if here:
            parents.append(_prepare_v2(top, own, here))
            wanted = [c for c in wanted if c not in here]
    if "cpuacct" not in v1:
        v1.pop("cpu", None)  # it would limit what nobody counts
    missing = [controller for controller in wanted if controller not in v1]
    if refused := [controller for controller in missing if controller not in may_miss]:
        raise SandboxError("cgroup", 0, _remedy(refused))
    for controller in wanted:
        if controller not in missing:
            _join_v1(parents, v1, controller, name)
    if any("cpu" in parent.controllers and parent.version == 1 for parent in parents):
        _join_v1(parents, v1, "cpuacct", name)
    return parents


def _remedy(missing: list[str]) -> str:
    """What to do about controllers that are nowhere."""
    everything = missing == list(CONTROLLERS)
    names = "cgroups" if everything else ",".join(f"cgroup-{name}" for name in missing)
    what = "cgroups that can be written to" if everything else f"{' or '.join(missing)} controller"
    how = "mount -t cgroup2 cgroup2 /sys/fs/cgroup" if everything else "a kernel option may hide it"
    return (
        f"this machine offers no {what}, so jobs could not be limited; provide them ({how}), or "
        f"let jobs run with what estimates can do: SANDRUN_ALLOW_MISSING={names}"
    )


def _join_v1(parents: list[Parent], v1: dict[str, Path], controller: str, name: str) -> None:
    path = v1[controller] / name / "jobs"
    for index, parent in enumerate(parents):
        if parent.path == str(path):  # cpu and cpuacct are often one hierarchy
            joined = (*parent.controllers, controller)
            parents[index] = parent._replace(controllers=joined)
            return
    with _step("cgroup"):
        path.mkdir(parents=True)
        if controller == "cpu":
            (path / "cpu.shares").write_text(str(_SHARE * 1024 // 100))
            (path.parent / "cpu.shares").write_text(str(_SHARE * 1024 // 100))
    parents.append(Parent(1, (controller,), str(path)))


def _prepare_v2(top: Path, own: Path | None, controllers: tuple[str, ...]) -> Parent:
    enable = " ".join("+" + controller for controller in controllers)
    with _step("cgroup"):
        (top / "service").mkdir(parents=True)
        (top / "jobs").mkdir()
        # A cgroup with processes of its own cannot pass controllers on, so ours go to a leaf.
        if own is not None:
            for pid in (own / "cgroup.procs").read_text().split():
                (top / "service" / "cgroup.procs").write_text(pid)
        else:
            (top / "service" / "cgroup.procs").write_text(str(os.getpid()))
        for folder in (top.parent, top, top / "jobs"):
            (folder / "cgroup.subtree_control").write_text(enable)
        if "cpu" in controllers:
            (top / "jobs" / "cpu.weight").write_text(str(_SHARE))
        # Nothing of a job may reach a disk: neither its pages nor the memfds that web holds.
        # A kernel that cannot swap has no such file.
        if "memory" in controllers and (swap_is_on() or (top / "memory.swap.max").exists()):
            (top / "memory.swap.max").write_text("0")
    return Parent(2, controllers, str(top / "jobs"))


def swap_is_on() -> bool:
    """Whether the machine has a place to swap to now."""
    return len(SWAPS.read_text().splitlines()) > 1


def _forget(name: str, v1: dict[str, Path], v2: Path | None) -> None:
    """Remove what was made for `name`, wherever that was."""
    for root in {*v1.values(), *([v2, _delegated(v2) or v2] if v2 else [])}:
        with contextlib.suppress(SandboxError):
            _remove_top(root / name)


def _mounts() -> tuple[dict[str, Path], Path | None]:
    """Version 1 hierarchies by controller, and the mount of version 2: those that can be written
    to (in a container they often cannot) and that no other mount covers."""
    v1: dict[str, Path] = {}
    v2 = None
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for line in {line.split(" ", 5)[4]: line for line in lines}.values():  # the last at each place
        left, right = line.split(" - ", 1)
        kind, _, options = right.split(" ", 2)
        _, _, device, _, point, access = left.split(" ")[:6]
        path = Path(point)
        if not kind.startswith("cgroup") or "ro" in access.split(","):
            continue
        if not path.exists() or path.stat().st_dev != os.makedev(*map(int, device.split(":"))):
            continue
        if kind == "cgroup2":
            v2 = path
        elif kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, path)
    return v1, v2


def _delegated(v2: Path) -> Path | None:
    """Our own cgroup, when systemd delegated it to us; None where we make a top-level one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            own = v2 / line[4:]
            for attribute in ("trusted.delegate", "user.delegate"):
                with contextlib.suppress(OSError):
                    if os.getxattr(own, attribute) == b"1":
                        return own
    return None


def name_of_this_process() -> str:
    """A name that no other living process has: pid and start time."""
    return f"{_PREFIX}{os.getpid()}-{_start_time(os.getpid())}"


def sweep() -> set[str]:
    """Remove what keepers that are no longer alive left behind; returns the removed names."""
    v1, v2 = _mounts()
    removed = set()
    roots = set(v1.values()) | ({v2, _delegated(v2) or v2} if v2 else set())
    for root in roots:
        for path in root.glob(_PREFIX + "*-*"):
            pid, start = path.name.removeprefix(_PREFIX).split("-")[:2]
            if not pid.isdigit() or _start_time(int(pid)) == start:
                continue
            _remove_top(path)
            removed.add(path.name)
    return removed


def _start_time(pid: int) -> str:
    """Field 22 of /proc/pid/stat: clock ticks after boot; empty for no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove(parents: list[Parent]) -> None:
    """Undo `prepare`: every sandbox below is killed, and what was made is removed.

    Raises SandboxError when a sandbox's cgroup stays busy.
    """
    for parent in parents:
        _remove_top(Path(parent.path).parent)


def _remove_top(top: Path) -> None:
    _remove_jobs(top / "jobs")
    with contextlib.suppress(OSError):
        # In `service` sit we, and on a delegated scope whoever was there before us: nobody to
        # kill. What cannot be removed for them is empty, and goes with the scope.
        service = top / "service"
        if service.exists():
            (top.parent / "cgroup.procs").write_text(str(os.getpid()))
            service.rmdir()
        top.rmdir()


def _remove_jobs(jobs: Path, seconds: float = 2.0) -> None:
    """Kill what is in the sandboxes' cgroups until they can be removed."""
    deadline = time.monotonic() + seconds
    while jobs.exists():
        for folder, _, _ in os.walk(jobs, topdown=False):
            with contextlib.suppress(OSError):
                for pid in map(int, Path(folder, "cgroup.procs").read_text().split()):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if jobs.exists():
            if time.monotonic() > deadline:
                raise SandboxError("cgroup removal", 0, f"{jobs} is still busy")
            time.sleep(0.005)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SandboxError(name, error.errno or 0, str(error)) from error


# --- the launcher's side ---------------------------------------------------------------------


class Parents:
    """The directories of `prepare`, held open: their paths are out of the launcher's reach."""

    def __init__(self, parents: list[Parent]) -> None:
        flags = os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC
        self._open = [(parent, os.open(parent.path, flags)) for parent in parents]
        had = {controller for parent in parents for controller in parent.controllers}
        self.missing = tuple(name for name in CONTROLLERS if name not in had)

    @property
    def description(self) -> dict[str, str]:
        """Controller to version, for /health: {"memory": "v1", ...}; "none" for a missing one."""
        versions = {
            controller: f"v{parent.version}"
            for parent, _ in self._open
            for controller in parent.controllers
        }
        return {**versions, **dict.fromkeys(self.missing, "none")}

    def create(self, name: str, limits: Limits, uid: int) -> "Cgroup":
        """A cgroup of every hierarchy with `limits`; nothing is left when one of them fails.

        Where memory or CPU time has none, the processes of `uid` are looked at instead.
        """
        made: list[_Folder] = []
        try:
            for parent, fd in self._open:
                os.mkdir(name, dir_fd=fd)
                folder_fd = os.open(name, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
                made.append(_Folder(parent.version, parent.controllers, folder_fd, fd, name))
            cgroup = Cgroup(made)
            cgroup.limit(limits)
            if not {"memory", "cpu"}.isdisjoint(self.missing):
                cgroup.census = Census(uid, limits.memory_bytes)
        except OSError:
            for folder in made:
                os.rmdir(name, dir_fd=folder.parent_fd)
                os.close(folder.fd)
            raise
        return cgroup


class _Folder(NamedTuple):
    version: int
    controllers: tuple[str, ...]
    fd: int
    parent_fd: int
    name: str

    def write(self, file: str, text: str) -> None:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def read(self, file: str) -> str:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.read(fd, 65536).decode()
        finally:
            os.close(fd)

    def open(self, file: str, undo: ExitStack) -> int:
        """A descriptor to read it again and again, closed by `undo`."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        undo.callback(os.close, fd)
        return fd

    def field(self, file: str, key: str) -> int:
        """The number behind `key` in a file of "key number" lines; 0 when it is not there."""
        for line in self.read(file).splitlines():
            name, _, number = line.partition(" ")
            if name == key:
                return int(number)
        return 0


def _limit_v1(memory: _Folder, limit: str) -> None:
    """Memory, and memory with swap, which may never be less: the order depends on the direction."""
    files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    try:
        memory.write(files[0], limit)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        files.reverse()
        memory.write(files[0], limit)
    with contextlib.suppress(FileNotFoundError):  # without swap accounting there is no such file
        memory.write(files[1], limit)


class Cgroup:
    """One sandbox's cgroup in all hierarchies."""

    def __init__(self, folders: list[_Folder]) -> None:
        self._folders = folders
        self._by_controller = {c: folder for folder in folders for c in folder.controllers}
        self._cpu_baseline = 0  # usec
        self.census: Census | None = None  # for want of a controller

    @property
    def into(self) -> int:
        """The descriptor for CLONE_INTO_CGROUP, -1 where there is no version 2."""
        return next((folder.fd for folder in self._folders if folder.version == 2), -1)

    def doors(self) -> list[int]:
        """Descriptors by which a child goes in, where it is not born in (version 1): it writes "0".

        `tasks`, not `cgroup.procs`: a thread that moves itself needs no lock on everybody's forks
        (Linux 5.17), where moving another process waits 5-15 ms for a grace period.
        """
        flags = os.O_WRONLY | os.O_CLOEXEC
        return [os.open("tasks", flags, dir_fd=f.fd) for f in self._folders if f.version == 1]

    def limit(self, limits: Limits) -> None:
        """Write the limits; also at hand-over, to a cgroup in use."""
        quota = max(1000, int(limits.cpus * _PERIOD_USEC))
        memory, pids, cpu = (self._by_controller.get(name) for name in CONTROLLERS)
        if pids:
            pids.write("pids.max", str(limits.tasks + 1))  # one more: pid 1 is ours
        if memory and memory.version == 2:
            memory.write("memory.max", str(limits.memory_bytes))
            memory.write("memory.oom.group", "1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                memory.write("memory.swap.max", "0")
        elif memory:
            _limit_v1(memory, str(limits.memory_bytes))
        if cpu and cpu.version == 2:
            cpu.write("cpu.max", f"{quota} {_PERIOD_USEC}")
        elif cpu:
            cpu.write("cpu.cfs_quota_us", str(quota))
        if self.census:
            self.census.memory_bytes = limits.memory_bytes

    def restart_cpu_clock(self) -> None:
        """Count CPU time from now: a waiting sandbox's own start is not its job's."""
        self._cpu_baseline += self.cpu_usec

    @property
    def cpu_usec(self) -> int:
        """CPU time of everything that ever ran in it, reaped by somebody or not."""
        cpu = self._by_controller.get("cpu")
        if cpu is None:
            return (self.census.cpu_usec if self.census else 0) - self._cpu_baseline
        if cpu.version == 2:
            return cpu.field("cpu.stat", "usage_usec") - self._cpu_baseline
        return (
            int(self._by_controller["cpuacct"].read("cpuacct.usage")) // 1000 - self._cpu_baseline
        )

    def open_gauges(self, undo: ExitStack) -> list[int]:
        """Descriptors for `read_gauges`, for whoever may not open the files themselves: of the CPU
        time, and where a cgroup counts memory, of it and of its peak. `undo` closes them.
        """
        found = []
        cpu, memory = self._by_controller.get("cpu"), self._by_controller.get("memory")
        if cpu is None:
            assert self.census, "without a cgroup there is a census"
            found.append(self.census.open_clock())
            undo.callback(os.close, found[-1])
        elif cpu.version == 1:
            found.append(self._by_controller["cpuacct"].open("cpuacct.usage", undo))
        else:
            found.append(cpu.open("cpu.stat", undo))
        if memory:
            found += [memory.open(name, undo) for name in _MEMORY_GAUGES[memory.version]]
        return found

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed for want of memory."""
        memory = self._by_controller.get("memory")
        if memory is None:
            return 0
        file = "memory.events" if memory.version == 2 else "memory.oom_control"
        return memory.field(file, "oom_kill")

    @property
    def out_of_memory(self) -> bool:
        """Whether more was wanted, or, where nobody could refuse it, used than the limit."""
        if "memory" in self._by_controller:
            return self.oom_kills > 0
        return bool(self.census and self.census.over)

    @property
    def refused_tasks(self) -> int:
        """Forks and threads refused at the limit, where somebody counts them."""
        pids = self._by_controller.get("pids")
        return pids.field("pids.events", "max") if pids else 0

    def _memory_peak_bytes(self, used: resource.struct_rusage) -> int:
        """The most that was charged at once: processes, files and kernel memory."""
        memory = self._by_controller.get("memory")
        if memory is None:
            return self.census.memory_peak_bytes if self.census else 0
        if memory.version == 1:
            return int(memory.read("memory.max_usage_in_bytes"))
        try:
            return int(memory.read("memory.peak"))
        except FileNotFoundError:
            # Before Linux 5.19 nobody remembers. It was at least this; or all, when that was
            # too little.
            if self.oom_kills:
                return int(memory.read("memory.max"))
            return max(int(memory.read("memory.current")), used.ru_maxrss * 1024)

    def usage(self, wall_usec: int, used: resource.struct_rusage) -> Usage:
        """What was used up to the end of pid 1, whose wait told `used`."""
        if self.census:
            self.census.end(used)
        return Usage(self.cpu_usec, self._memory_peak_bytes(used), wall_usec)

    def kill(self) -> None:
        """Kill all at once, where the kernel can (version 2): nobody forks away from it."""
        for folder in self._folders:
            if folder.version == 2:
                with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
                    folder.write("cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove what is empty; False when some of it is still busy: call again."""
        if self.census:
            self.census.close()
        busy = []
        for folder in self._folders:
            try:
                os.rmdir(folder.name, dir_fd=folder.parent_fd)
            except FileNotFoundError:
                pass
            except OSError:
                busy.append(folder)
                continue
            os.close(folder.fd)
        self._folders = busy
        return not busy


_MEMORY_GAUGES = {
    1: ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.current", "memory.peak"),
}


def read_gauges(gauges: Sequence[int]) -> Gauge:
    """What the cgroup of `open_gauges` uses. Raises OSError once it is gone."""
    text, *memory = (os.pread(gauge, 4096, 0).decode() for gauge in gauges)
    if text.startswith("usage_usec "):  # version 2
        return Gauge(int(text.split(None, 2)[1]) / 1e6, *map(int, memory))
    return Gauge(int(text) / 1e9, *map(int, memory))
