"""Runs INSIDE: the child of the launcher's clone3, pid 1 of its sandbox.

It gives up everything itself, step by step, and only then hears what to do: read an archive,
run a program, or collect outputs. A step that fails is named on the control socket, and the
child ends: nothing of the job has run. It decides nothing; which walls stand is no question.

Theory of operation: see README.md. This file and what it imports (unpack, collect, glance,
linux, privileges, channel) is all of our code that runs near the untrusted program.
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sandbox import channel, collect, glance, linux, privileges, unpack
from sandbox.errors import BundleRefused
from sandbox.model import Limits
from sandbox.template import WORK

UID: Final = 1000  # inside; outside a uid that no other running job has
HOST_NAME: Final = "sandrun"

# Kernel objects that a user namespace still charges to the machine: few, or none at all. Without
# a user namespace of its own, and so without capabilities, a job can make no other namespace.
_SYSCTLS = {
    "max_user_namespaces": "0",
    "max_inotify_instances": "8",
    "max_inotify_watches": "512",
    "max_fanotify_groups": "0",
    "max_fanotify_marks": "0",
}

# What the program's signals do when it starts: what they do by default, but for files at their
# limit, which are an error to the program and not its death.
_DEFAULT_SIGNALS = sorted(
    int(number)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGXFSZ}
)


class Start(NamedTuple):
    """What the launcher hands to a new child. The descriptors keep their numbers, all above 2."""

    kind: str  # "inspect", "run", "collect"
    limits: Limits
    filter: bytes
    control: int  # our end of the socket to web
    stdout: int
    stderr: int
    sync: int  # one byte from the launcher when the uid map is written
    sysctl: int  # /proc/sys/user of a full /proc
    workspace: int  # run: the detached tmpfs; else -1
    folder: int  # collect: the dead job's work directory; else -1
    doors: tuple[int, ...]  # into the cgroups of version 1
    missing: tuple[str, ...]  # controllers that the machine lacks, as its operator allowed


def main(start: Start) -> None:
    """Take every step, then the task. Never returns."""
    gc.disable()  # a collection would touch, and so copy, most of what we share with the launcher
    step = "start"
    # With family and kind told, or Python would ask the kernel for them.
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, start.control)
    try:
        for name, do in STEPS:
            step = name
            do(start)
        step = start.kind
        TASKS[start.kind](control, start)
        os._exit(0)
    except BundleRefused as refused:
        _say(control, {"refused": str(refused)})
    except OSError as error:
        _say(control, {"failed": step, "errno": error.errno or 0, "detail": str(error)[:500]})
    except BaseException as error:  # the edge of the process: whatever it is, web hears the step
        where = traceback.extract_tb(sys.exc_info()[2])[-1]
        detail = f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"
        _say(control, {"failed": step, "errno": 0, "detail": detail[:500]})
    os._exit(1)


def _say(control: socket.socket, message: channel.Message) -> None:
    try:
        channel.send(control, message)
    except channel.ProtocolError:
        pass  # web is gone, and so are we


# --- the steps, in their order ---------------------------------------------------------------


def _descriptors(start: Start) -> None:
    """Only what we need stays open; the rest of what the launcher holds goes first of all."""
    null = os.open("/dev/null", os.O_RDONLY)
    for place, fd in enumerate((null, start.stdout, start.stderr)):
        os.dup2(fd, place)  # these three are the program's; the others close when it is executed
    kept = {start.control, start.sync, start.sysctl, start.workspace, start.folder, *start.doors}
    low = 3
    for fd in sorted(kept - {-1}):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 2**31 - 1)


def _identity(start: Start) -> None:
    """Become the job's user, as soon as the launcher has written the map; keep capabilities."""
    if os.read(start.sync, 1) != b"m":
        raise OSError(0, "the launcher gave up")
    os.close(start.sync)
    privileges.keep_capabilities_over_uid_change()
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    privileges.die_with_parent()
    privileges.name_process("sandrun-inside")
    if os.getgroups():
        raise OSError(0, "groups are left")


def _workspace(start: Start) -> None:
    """One tmpfs, one size limit: /tmp and /dev/shm are its folders, and /job covers its root."""
    if start.workspace < 0:
        return
    linux.attach(start.workspace, WORK)
    os.close(start.workspace)
    for folder, target in (("tmp", "/tmp"), ("shm", "/dev/shm"), ("job", WORK)):
        linux.mount(f"{WORK}/{folder}", target, "", linux.MS_BIND)


def _proc(start: Start) -> None:
    """Our own processes and nothing of the machine, over the launcher's full /proc."""
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=2")


def _hostname(start: Start) -> None:
    socket.sethostname(HOST_NAME)
    linux.setdomainname("(none)")


def _enter_cgroup(start: Start) -> None:
    """Where we were not born in it. Late: what was set up until now is not charged to the job."""
    for fd in start.doors:
        os.write(fd, b"0")
        os.close(fd)


def _cgroup(start: Start) -> None:
    """Once we are in our cgroup, make it the root that we see: the host's path is in no file."""
    linux.unshare(linux.CLONE_NEWCGROUP)


def _sysctls(start: Start) -> None:
    """Limits of our own user namespace; the same write from the launcher would be the host's."""
    for name, value in _SYSCTLS.items():
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=start.sysctl)
        except FileNotFoundError:
            if name == "max_user_namespaces":
                raise
            continue  # an older kernel has no such object
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    os.close(start.sysctl)


def _rlimits(start: Start) -> None:
    limits = start.limits
    # The cgroup's limit comes first, and is counted; this one is per uid, which is ours alone.
    tasks = limits.tasks + (1 if "pids" in start.missing else 16)
    if "memory" in start.missing:
        # Each process by itself. Twice: the stacks of threads count, and are hardly ever used.
        resource.setrlimit(resource.RLIMIT_DATA, (2 * limits.memory_bytes,) * 2)
    for name, number in {
        resource.RLIMIT_CORE: 1,  # not 0: 1 also keeps a core from being piped to the host's helper
        resource.RLIMIT_FSIZE: limits.disk_bytes,
        resource.RLIMIT_NOFILE: limits.descriptors,
        resource.RLIMIT_NPROC: tasks,
        resource.RLIMIT_SIGPENDING: 256,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }.items():
        resource.setrlimit(name, (number, number))
    hard = min(64 * 1024 * 1024, limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_STACK, (8 * 1024 * 1024, max(hard, 8 * 1024 * 1024)))
    os.umask(0o022)
    os.chdir(WORK)


def _capabilities(start: Start) -> None:
    privileges.drop_capabilities()


def _no_new_privileges(start: Start) -> None:
    privileges.no_new_privileges()


def _seccomp(start: Start) -> None:
    linux.load_filter(start.filter)


Step = tuple[str, Callable[[Start], None]]

STEPS: list[Step] = [
    ("descriptors", _descriptors),
    ("identity", _identity),
    ("workspace", _workspace),
    ("proc", _proc),
    ("hostname", _hostname),
    ("cgroup attach", _enter_cgroup),
    ("cgroup namespace", _cgroup),
    ("sysctls", _sysctls),
    ("rlimits", _rlimits),
    ("capabilities", _capabilities),
    ("no new privileges", _no_new_privileges),
    ("seccomp", _seccomp),
]


class _Look:
    """Web's one question to a running job: which files are there? SIGIO comes with it, so that
    nothing is done for a job that nobody watches. The job may send it too, to no effect.

    The launcher sets the handler, once: in each child it would cost a tenth of a millisecond.
    """

    def __init__(self) -> None:
        self._control: socket.socket | None = None  # before the program begins, nobody asks
        self._patterns: Sequence[str] = ()
        self._began_ns = 0

    def begin(self, control: socket.socket, patterns: Sequence[str]) -> None:
        """From here on whatever web says is this question."""
        self._control, self._patterns, self._began_ns = control, patterns, time.time_ns()
        fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(control, fcntl.F_SETFL, os.O_ASYNC)

    def __call__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # a look that fails is no fault of the job's
            if self._control and self._control.recv(1, socket.MSG_DONTWAIT):
                seen = glance.glance(self._patterns, self._began_ns)
                flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                self._control.send(json.dumps(seen).encode(), flags)


LOOK = _Look()


# --- the tasks, behind all walls -------------------------------------------------------------


def _orders(control: socket.socket, descriptors: int) -> tuple[dict[str, Any], list[int]]:
    """What to do: a sealed memfd with JSON, then the descriptors that belong to it."""
    _say(control, {"ready": True})
    try:
        _, fds = channel.receive(control, descriptors + 1)
    except channel.ProtocolError:
        os._exit(0)  # web needs us no more
    orders = json.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
    os.close(fds[0])
    return orders, fds[1:]


def _inspect(control: socket.socket, start: Start) -> None:
    """Say what is in the archive: JSON on stdout. Nothing is written anywhere."""
    orders, (archive,) = _orders(control, 1)
    _say(control, {"started": True})
    listing = unpack.inspect(archive, orders["disk_bytes"])
    _print(listing)


def _run(control: socket.socket, start: Start) -> None:
    """Unpack, then the steps of the command; the exit status goes out as the kernel gave it."""
    orders, (bundle, stdin) = _orders(control, 2)
    os.dup2(stdin, 0, inheritable=True)
    os.close(stdin)
    unpack.unpack(orders["form"], bundle, orders["members"])
    os.close(bundle)
    signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN
    )  # a full file is an error to the program, no death
    LOOK.begin(control, orders["patterns"])
    _say(control, {"started": True})
    last = len(orders["steps"]) - 1
    for step, argv in enumerate(orders["steps"]):
        status = _execute(argv, orders["env"], is_last=step == last)
        if status or step == last:
            _say(control, {"exit": status, "step": step})
            return


def _execute(argv: list[str], env: dict[str, str], is_last: bool) -> int:
    """Start the program as pid 2 and reap until it ends; the wait status.

    127 and 126 for what cannot be found or executed, as shells have it; the sentence goes to
    the program's own stderr, where its user looks.
    """
    words = [os.fsencode(word) for word in argv]
    path = _find(words[0], env.get("PATH", ""))
    if path is None:
        return _cannot(argv[0], "not found", 127)
    try:
        program = os.posix_spawn(
            path, words, {os.fsencode(k): os.fsencode(v) for k, v in env.items()},
            setsid=True, setsigmask=(), setsigdef=_DEFAULT_SIGNALS,
        )  # fmt: skip
    except OSError as error:
        return _cannot(argv[0], os.strerror(error.errno or 0), 126)
    if is_last:
        os.close(0)  # or web would not see that the program has closed its stdin
    while True:
        pid, status = os.wait()  # orphans of the job are reaped here too
        if pid == program:
            return status


def _find(name: bytes, path: str) -> bytes | None:
    if b"/" in name:
        return name if os.path.exists(name) else None
    for folder in os.fsencode(path).split(b":"):
        candidate = folder + b"/" + name
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _cannot(program: str, why: str, code: int) -> int:
    with contextlib.suppress(
        BlockingIOError
    ):  # an earlier step may have left the pipe so, and full
        os.write(2, f"{program}: {why}\n".encode(errors="replace"))
    return code << 8


def _collect(control: socket.socket, start: Start) -> None:
    """Copy the outputs of a dead job into the store and say what they are: JSON on stdout."""
    orders, (store,) = _orders(control, 1)
    _say(control, {"started": True})
    _print(collect.collect(start.folder, store, orders))


def _print(value: object) -> None:
    data = memoryview(json.dumps(value).encode())
    while data:
        data = data[os.write(1, data) :]


TASKS: dict[str, Callable[[socket.socket, Start], None]] = {
    "inspect": _inspect,
    "run": _run,
    "collect": _collect,
}
