"""Runs OUTSIDE, privileged, with one thread: makes sandboxes for web, watches and ends them.

It is the only thing that forks. It parses nothing but one JSON object a packet, clamps what it
is asked for, and answers every fault with the name of the step that failed. Anything unexpected
on the socket ends the connection and all sandboxes with it: web is not trusted.

Messages from web                              answers
  {"op": "launch", "id", "kind", "limits"}     {"op": "launched", "id"} + control, stdout, stderr
     "of": id of the run, for "collect"          or {"op": "failed", "id", "step", "errno", ...}
  {"op": "limits", "id", "limits"}             {"op": "limited", "id"}: hand-over, clocks restart
  {"op": "kill", "id", "cause"}                (the end tells)
  {"op": "release", "id"}                      a run's uid and folder are let go
Unasked: {"op": "hello", "walls"} at the start, {"op": "ended", "id", facts...} for every sandbox.
"""

import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from sandbox import census, cgroups, channel, inside, linux, locks, privileges, template
from sandbox.errors import SandboxError
from sandbox.model import FIRST_UID, MIB, UIDS, Limits

MAX_SANDBOXES: Final = 512
PIPE_BYTES: Final = 1 << 20  # of stdout and stderr each
TICK: Final = 0.1  # seconds between looks at CPU time and memory events

_REFUSALS = (errno.ENOSPC, errno.EPERM, errno.EUSERS, errno.EINVAL)
_NO_NAMESPACES = (
    "; the kernel must grant user namespaces: sysctl user.max_user_namespaces=65536, and a "
    "container around us must not forbid them"
)

# The most that web may ask for, whatever the settings say; the machine's own size comes first.
_MOST = Limits(
    memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    disk_bytes=4096 * MIB,
    inodes=1_000_000,
    tasks=4096,
    descriptors=4096,
    cpus=float(os.cpu_count() or 1),
    cpu_seconds=86_400.0,
    wall_seconds=86_400.0,
)
_LEAST = Limits(4 * MIB, 4096, 8, 1, 16, 0.01, 0.0, 0.05)
# Inspect and collect: our own code over hostile bytes. Collect copies into a store that is
# charged to whoever touches it first, so it may hold the outputs beside its own 64 MB.
# Seconds of CPU, so that a busy machine is not the archive's fault; of the clock, in case it hangs.
_INSPECT = Limits(64 * MIB, 4096, 8, 4, 64, 1.0, 2.0, 10.0)
_COLLECT = Limits(64 * MIB, 4096, 8, 4, 128, 1.0, 0.0, 15.0)

_SO_SNDBUFFORCE = 32

_NAMESPACES = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
)  # the network namespace is a slot, and the cgroup namespace comes once the child is in its cgroup


def clamp(asked: object) -> Limits:
    """Limits from a message: known fields, numbers, within what a launcher ever grants.

    Raises ProtocolError for anything else.
    """
    if not isinstance(asked, dict) or not set(asked) <= set(Limits._fields):
        raise channel.ProtocolError("limits with unknown fields")
    values = {}
    for name, default in Limits()._asdict().items():
        value = asked.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise channel.ProtocolError(f"{name} is no number")
        bounded = min(max(value, getattr(_LEAST, name)), getattr(_MOST, name))
        values[name] = type(default)(bounded)
    return Limits(**values)


class Workspace:
    """A run's detached tmpfs: freed with its last descriptor, even after kill -9."""

    def __init__(self, uid: int, limits: Limits) -> None:
        options = {
            "size": str(limits.disk_bytes),
            "nr_inodes": str(limits.inodes),
            "mode": "0755",
        }
        self.mount = linux.memory_tmpfs(options)
        flags = os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC
        for name, mode in (("job", 0o755), ("tmp", 0o1777), ("shm", 0o1777)):
            os.mkdir(name, dir_fd=self.mount)
            os.chown(name, uid, uid, dir_fd=self.mount)
            fd = os.open(name, flags, dir_fd=self.mount)
            os.fchmod(fd, mode)  # whatever the umask says
            if name == "job":
                self.folder = fd  # opened before the kill: afterwards nothing can be
            else:
                os.close(fd)

    def attached(self) -> None:
        """The child has the mount now; what stays is the folder."""
        os.close(self.mount)
        self.mount = -1

    def close(self) -> None:
        """Let go; the kernel frees what nobody holds."""
        if self.mount >= 0:
            os.close(self.mount)
        os.close(self.folder)

    def full(self) -> list[str]:
        """Which of its limits it stands at now: "disk", "inodes"."""
        status = os.fstatvfs(self.folder)
        names = ["disk"] if status.f_bfree == 0 else []
        return [*names, "inodes"] if status.f_ffree == 0 else names

    def used(self) -> int:
        """Bytes of its files."""
        status = os.fstatvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


class Networks:
    """Network namespaces with nothing in them but a loopback that is down, used again and again.

    Making one costs half a millisecond and the kernel seconds to take it down. They belong to the
    machine's user namespace, so no job has a right over the one that it sits in: nothing can be
    brought up or left behind, and its sockets die with it. Never two sandboxes in one.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self._home = self._make()  # where the launcher is: nowhere

    def enter(self) -> int:
        """Put ourselves, and so the next child, into a free one; the slot, to be given back."""
        if not self._free:
            self._free.append(self._make())
        linux.setns(self._free[-1], linux.CLONE_NEWNET)
        return self._free.pop()

    def leave(self) -> None:
        """Back to where no job is."""
        linux.setns(self._home, linux.CLONE_NEWNET)

    def give_back(self, slot: int) -> None:
        """The sandbox in it is dead."""
        self._free.append(slot)

    def _make(self) -> int:
        linux.unshare(linux.CLONE_NEWNET)
        names = {name for _, name in socket.if_nameindex()}
        if not names <= {"lo", *_IDLE_TUNNELS}:
            raise OSError(0, f"a new network namespace has interfaces: {sorted(names)}")
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


# Old tunnel drivers put one idle device each into every new namespace. Nobody can bring it up.
_IDLE_TUNNELS = ("tunl0 sit0 ip6tnl0 gre0 gretap0 erspan0 ip_vti0 ip6_vti0 ip6gre0 teql0").split()


class Child:
    """One sandbox that runs: what the launcher must remember to end it."""

    def __init__(self, id: int, kind: str, uid: int, limits: Limits) -> None:
        self.id = id
        self.kind = kind
        self.uid = uid
        self.limits = limits
        self.pidfd = -1
        self.pid = 0
        self.network = -1
        self.cgroup: cgroups.Cgroup
        self.workspace: Workspace | None = None
        self.cause: str | None = None  # why we killed it
        self.released = False  # nobody waits for its end
        self.restart_clock()

    def restart_clock(self) -> None:
        """The wall clock of the limits starts now."""
        self.started = time.monotonic()
        self.deadline = self.started + self.limits.wall_seconds

    def kill(self, cause: str) -> None:
        """SIGKILL to pid 1 takes its whole pid namespace along; the first cause stands."""
        if self.cause is None:
            self.cause = cause
        self.cgroup.kill()
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Launcher:
    """The loop: messages from web, ends of children, clocks."""

    def __init__(
        self,
        web: socket.socket,
        parents: cgroups.Parents,
        program: bytes,
        file_locks: locks.Locks,
    ) -> None:
        web.setblocking(False)
        web.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * MIB)
        self._web = web
        self._parents = parents
        self._filter = program
        self._locks = file_locks
        self._networks = Networks()
        self._sysctl = os.open("/proc/sys/user", os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._children: dict[int, Child] = {}  # by id
        self._by_pidfd: dict[int, Child] = {}
        self._kept: dict[int, tuple[int, Workspace]] = {}  # ended runs: id -> uid, workspace
        self._leaving: list[cgroups.Cgroup] = []  # not yet removable
        self._uids: set[int] = set()
        self._next_uid = 0
        self._next_census = 0.0

    def serve(self) -> None:
        """Until web is gone; then nothing is left running."""
        self._poll.register(self._web, select.POLLIN)
        try:
            while True:
                for fd, _ in self._poll.poll(self._timeout()):
                    if fd == self._web.fileno():
                        self._hear()
                    else:
                        self._end(self._by_pidfd[fd])
                self._look()
        except channel.ProtocolError:
            pass
        finally:
            for child in self._children.values():
                child.kill("shutdown")
            for child in self._children.values():
                os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)

    def _timeout(self) -> float:
        if not self._children and not self._leaving:
            return -1
        now = time.monotonic()
        waiting = (c.deadline for c in self._children.values() if c.cause is None)
        next_deadline = min(waiting, default=now + TICK)
        return max(0.0, min(next_deadline - now, TICK)) * 1000 + 1

    def _hear(self) -> None:
        message, _ = channel.receive(self._web)
        op, id = message.get("op"), message.get("id")
        if not isinstance(id, int) or not 0 < id < 1 << 53:
            raise channel.ProtocolError("a message without an id")
        if op == "launch":
            self._launch(id, message)
        elif op == "limits":
            self._hand_over(id, clamp(message.get("limits")))
        elif op == "kill":
            if id in self._children:
                self._children[id].kill(str(message.get("cause"))[:32])
        elif op == "release":
            self._release(id)
        else:
            raise channel.ProtocolError("an unknown message")

    # --- launch ------------------------------------------------------------------------------

    def _launch(self, id: int, message: channel.Message) -> None:
        kind = message.get("kind")
        known = isinstance(kind, str) and kind in inside.TASKS
        if not known or id in self._children or id in self._kept:
            raise channel.ProtocolError("an impossible launch")
        limits = clamp(message.get("limits", {}))
        if kind == "inspect":
            limits = _INSPECT
        if kind == "collect":
            limits = _COLLECT._replace(
                memory_bytes=_COLLECT.memory_bytes + limits.disk_bytes,
                disk_bytes=limits.disk_bytes,  # as RLIMIT_FSIZE of the store
            )
        try:
            ends = self._start(id, str(kind), limits, message.get("of"))
        except SandboxError as error:
            self._say(op="failed", id=id, step=error.step, errno=error.errno, detail=error.detail)
            return
        try:
            channel.send(self._web, {"op": "launched", "id": id}, tuple(ends))
        finally:
            for fd in ends:
                os.close(fd)

    def _start(self, id: int, kind: str, limits: Limits, of: object) -> list[int]:
        """Make one sandbox; web's ends of its control socket, stdout and stderr, and for a run
        the gauges of what it uses.

        Raises SandboxError with the step; everything made up to then is undone.
        """
        step = "admission"
        with ExitStack() as always, ExitStack() as undo:
            try:
                if len(self._children) + len(self._kept) >= MAX_SANDBOXES:
                    raise OSError(0, f"{MAX_SANDBOXES} sandboxes are running")
                folder = -1
                if kind == "collect":
                    if not isinstance(of, int) or of not in self._kept:
                        raise channel.ProtocolError("collect of an unknown run")
                    uid, kept = self._kept[of]
                    folder = kept.folder
                else:
                    uid = self._take_uid()
                    undo.callback(self._uids.discard, uid)
                child = Child(id, kind, uid, limits)
                step = "cgroup"
                child.cgroup = self._parents.create(f"{id}", limits, uid)
                undo.callback(self._remove, child.cgroup)
                step = "tmpfs"
                if kind == "run":
                    child.workspace = Workspace(uid, limits)
                    undo.callback(child.workspace.close)
                step = "pipes"
                ours, (control, stdout, stderr) = _ends(uid, undo, always)
                if kind == "run":
                    ours += child.cgroup.open_gauges(undo)
                go_read, go = os.pipe2(os.O_CLOEXEC)
                always.callback(os.close, go_read)
                always.callback(os.close, go)
                doors = child.cgroup.doors()
                for fd in doors:
                    always.callback(os.close, fd)
                step = "network namespace"
                always.callback(self._networks.leave)
                child.network = self._networks.enter()
                undo.callback(self._networks.give_back, child.network)
                step = "clone"
                start = inside.Start(
                    kind, limits, self._filter, control, stdout, stderr, go_read,
                    self._sysctl, child.workspace.mount if child.workspace else -1, folder,
                    tuple(doors), self._parents.missing,
                )  # fmt: skip
                # What a user namespace still charges to whoever made it (inotify, pending signals,
                # locked memory) is charged to the job's own uid outside, not to root.
                with _acting_as(uid):
                    child.pid, child.pidfd = linux.clone3(_NAMESPACES, child.cgroup.into)
                    if child.pid == 0:
                        inside.main(start)
                undo.callback(os.close, child.pidfd)
                undo.callback(_abandon, child)
                step = "priority"
                _give_way(child.pid, uid, self._parents.missing)
                step = "uid map"
                _write_map(child.pid, uid)
                os.write(go, b"m")
                if child.workspace:
                    child.workspace.attached()
            except OSError as error:
                remedy = _NO_NAMESPACES if step == "clone" and error.errno in _REFUSALS else ""
                raise SandboxError(step, error.errno or 0, f"{error}{remedy}") from error
            undo.pop_all()
        self._children[id] = child
        self._by_pidfd[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)
        return ours

    def _take_uid(self) -> int:
        """An outside uid that no running job has; the one given back last is used last."""
        for _ in range(UIDS):
            uid = FIRST_UID + self._next_uid
            self._next_uid = (self._next_uid + 1) % UIDS
            if uid not in self._uids:
                self._uids.add(uid)
                return uid
        raise OSError(0, "every uid is in use")

    # --- while it runs -----------------------------------------------------------------------

    def _hand_over(self, id: int, limits: Limits) -> None:
        child = self._children.get(id)
        if child is None:
            return  # it has ended; web hears so
        child.limits = limits
        child.restart_clock()
        child.cgroup.restart_cpu_clock()
        try:
            child.cgroup.limit(limits)
        except OSError as error:
            child.kill("abandoned")
            self._say(op="failed", id=id, step="limits", errno=error.errno or 0, detail=str(error))
            return
        self._say(op="limited", id=id)

    def _look(self) -> None:
        """The clocks and counters that nobody wakes us for."""
        now = time.monotonic()
        if now >= self._next_census:  # it takes long: not whenever web has a word
            self._next_census = now + TICK
            census.look(
                (child.cgroup.census, child.workspace.used() if child.workspace else 0)
                for child in self._children.values()
                if child.cgroup.census
            )
        hoarders = self._locks.hoarders({child.uid for child in self._children.values()})
        for child in self._children.values():
            if child.cause is not None:
                continue
            if now >= child.deadline:
                child.kill("timeout")
            elif child.cgroup.out_of_memory or child.uid in hoarders:
                child.kill("memory")  # version 1 kills one process only; the job is one thing
            elif child.limits.cpu_seconds and (
                child.cgroup.cpu_usec >= child.limits.cpu_seconds * 1_000_000
            ):
                child.kill("cpu")
        self._leaving = [cgroup for cgroup in self._leaving if not cgroup.remove()]

    # --- the end -----------------------------------------------------------------------------

    def _end(self, child: Child) -> None:
        """Pid 1 is dead, and the kernel ended its namespace before it let us know."""
        wall_usec = int((time.monotonic() - child.started) * 1_000_000)
        self._poll.unregister(child.pidfd)
        _, _, used = os.wait4(child.pid, 0)
        os.close(child.pidfd)
        del self._children[child.id], self._by_pidfd[child.pidfd]
        usage = child.cgroup.usage(wall_usec, used)
        facts: dict[str, Any] = {
            "cause": child.cause,
            "oom_kills": child.cgroup.oom_kills,
            "refused_tasks": child.cgroup.refused_tasks,
            "full": child.workspace.full() if child.workspace else [],
            "usage": list(usage),
        }
        self._networks.give_back(child.network)
        if child.workspace and not child.released:
            self._kept[child.id] = (child.uid, child.workspace)
        elif child.kind != "collect":  # whose uid is its run's
            self._uids.discard(child.uid)
            if child.workspace:
                child.workspace.close()
        self._say(op="ended", id=child.id, **facts)
        self._remove(child.cgroup)

    def _remove(self, cgroup: cgroups.Cgroup) -> None:
        if not cgroup.remove():
            self._leaving.append(cgroup)

    def _release(self, id: int) -> None:
        if id in self._children:
            self._children[id].released = True
            self._children[id].kill("cancelled")
        elif id in self._kept:
            uid, workspace = self._kept.pop(id)
            workspace.close()
            self._uids.discard(uid)

    def _say(self, **message: Any) -> None:
        channel.send(self._web, message)  # a web that does not read is as good as gone


def _ends(uid: int, undo: ExitStack, always: ExitStack) -> tuple[list[int], list[int]]:
    """Control socket, stdout, stderr: web's ends (closed by `undo`), the child's (by `always`)."""
    control, inner = channel.pair()
    ours, theirs = [control.detach()], [inner.detach()]
    for _ in range(2):
        read, write = os.pipe2(os.O_CLOEXEC)
        ours.append(read)
        theirs.append(write)
        os.fchown(write, uid, uid)  # so that the job may open /dev/stdout
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    for stack, fds in ((undo, ours), (always, theirs)):
        for fd in fds:
            stack.callback(os.close, fd)
    return ours, theirs


def _abandon(child: Child) -> None:
    child.kill("abandoned")
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)


@contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        privileges.die_with_parent()  # which the change of uid had taken back


def _give_way(pid: int, uid: int, missing: tuple[str, ...]) -> None:
    """Where no cgroup holds a job back, the machine's own processes come first: the kernel takes
    memory from the job, and time for the others. With CAP_SYS_RESOURCE, which root has unless
    somebody took it, what we write is also the least that the job can write."""
    if "memory" in missing:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)
    if "cpu" in missing:
        with _acting_as(uid):  # root may only with CAP_SYS_NICE, which it need not have
            os.setpriority(os.PRIO_PROCESS, pid, 10)


def _write_map(pid: int, uid: int) -> None:
    """One id inside, one outside, and no way to more groups."""
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside.UID} {uid} 1"),
        ("gid_map", f"{inside.UID} {uid} 1"),
    ):
        fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def build_filter() -> bytes:
    """The filter, built by a child: pyseccomp imports half of the standard library, with hooks
    that run in every fork; in the launcher it would cost every sandbox half a millisecond.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            from sandbox import seccomp

            os.write(write, seccomp.build())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as pipe:
        program = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status != 0 or not program:
        raise OSError(0, "the filter could not be built")
    return program


def _tell(web: socket.socket, message: channel.Message) -> bool:
    """Whether web is still there to hear how the start went."""
    try:
        channel.send(web, message)
    except channel.ProtocolError:
        return False
    return True


def main() -> None:
    """`python -I -m sandbox.launcher FD PARENTS`: the socket to web and the keeper's cgroups."""
    web = socket.socket(fileno=int(sys.argv[1]))
    web.set_inheritable(False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the keeper decides; its death is ours
    signal.signal(signal.SIGIO, inside.LOOK)  # for every child; nobody sends us one
    step = "privileges"
    try:
        privileges.check()
        privileges.keep_capabilities_over_uid_change()
        privileges.die_with_parent()
        os.setgroups([])
        step = "cgroup"
        parents = cgroups.Parents([cgroups.Parent(*row) for row in json.loads(sys.argv[2])])
        step = "seccomp build"
        program = build_filter()
        step = "file locks"
        file_locks = locks.Locks()
        step = "template"
        template.build()
        step = "network namespace"
        launcher = Launcher(web, parents, program, file_locks)
    except OSError as error:
        failure = {"op": "failed", "id": 0, "step": step, "errno": error.errno or 0}
        _tell(web, {**failure, "detail": str(error)})
        sys.exit(channel.NOT_STARTED)
    walls: dict[str, Any] = {
        "cgroup": parents.description,
        "kernel": os.uname().release,
        "noswap": linux.noswap_is_known(),
        "steps": [name for name, _ in inside.STEPS],
    }
    if parents.missing:
        walls["missing"] = [f"cgroup-{name}" for name in parents.missing]
    if not _tell(web, {"op": "hello", "id": 0, "walls": walls}):
        return
    gc.collect()
    gc.freeze()  # what is here stays: no child has to look at it, and so copy it
    launcher.serve()


if __name__ == "__main__":
    main()
