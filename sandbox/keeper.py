"""Keeper: execs first, as root, and only waits. Starts the launcher and one unprivileged command
(web), joined by a socket pair that has no path; when either ends, kills what is left and removes
what only root can remove. With a worker key (SANDRUN_WORKER_KEY) it starts the signer before them,
in the same way, and never opens the key itself.

    python -I -m sandbox.keeper -- COMMAND...

The command finds its ends of the pairs in SANDRUN_LAUNCHER_FD and SANDRUN_SIGNER_FD. Its exit code
is the keeper's, but for 1 when the launcher or the signer went first.
"""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from sandbox import cgroups, channel, linux, privileges
from sandbox.errors import SandboxError
from sandbox.model import MIB, SIGNER_UID, WEB_UID

ALLOW_MISSING = "SANDRUN_ALLOW_MISSING"  # what an operator lets be missing: cgroups.MISSABLE
WORKER_KEY = "SANDRUN_WORKER_KEY"  # path of the key with which receipts are signed; or none
_TMP_BYTES = 64 * MIB  # nothing of ours uses it: uploads go straight into memfds
_GRACE_SECONDS = 3.0
_TELL_SECONDS = 30.0  # for web to say why the launcher could not start
_LAST_SECONDS = 1.0  # for web to end by itself, when the launcher or the signer ends otherwise
_HELLO_SECONDS = 60.0  # for the signer to be ready
_REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run until the command, the launcher or a signal ends it."""
    if sys.argv[1:2] != ["--"] or not sys.argv[2:]:
        sys.exit("usage: python -I -m sandbox.keeper -- COMMAND...")
    if os.geteuid() != 0:
        sys.exit("Sandrun makes its sandboxes as root; start it with sudo.")
    if not all(_has(id, kind) for id in (SIGNER_UID, WEB_UID) for kind in ("uid", "gid")):
        sys.exit(
            "Sandrun makes its sandboxes as root of the machine; the user namespace that it is in "
            "lacks the uids of web, signer and jobs. Start it outside, with sudo."
        )
    os.umask(0o022)
    # Launcher and web hold several descriptors a sandbox; what a job may have is its own limit.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        sys.exit(keep(sys.argv[2:]))
    except SandboxError as error:
        sys.exit(f"Sandrun cannot start: {error}.")


def _has(id: int, kind: str) -> bool:
    """Whether our user namespace has this uid or gid; web's lies beside those of the jobs."""
    ranges = [map(int, row.split()) for row in Path(f"/proc/self/{kind}_map").open()]
    return any(first <= id < first + count for first, _, count in ranges)


def keep(command: list[str]) -> int:
    """Start launcher and `command`, wait, and clean up; the exit code. Raises SandboxError."""
    may_miss = cgroups.read_missable(os.environ.get(ALLOW_MISSING, ""))
    for name in cgroups.sweep():
        print(f"sandrun: removed what {name} had left", file=sys.stderr)
    with ExitStack() as stack:
        wake = _signals(stack)
        privileges.adopt_orphans()
        stack.callback(_wait_for_orphans)
        parents = cgroups.prepare(cgroups.name_of_this_process(), may_miss)
        stack.callback(cgroups.remove, parents)
        below: dict[str, subprocess.Popen[bytes]] = {}
        ends: dict[str, socket.socket] = {}  # web's, by the variable that tells it
        if path := os.environ.get(WORKER_KEY):
            ends[channel.SIGNER_FD], theirs = channel.pair()
            below["signer"] = _start_signer(theirs.fileno(), path)
            stack.callback(_stop, below["signer"])
            theirs.close()
            if not _said_hello(ends[channel.SIGNER_FD], below["signer"], wake):
                return 1
        ends[channel.LAUNCHER_FD], theirs = channel.pair()
        below["launcher"] = _start_launcher(theirs.fileno(), parents)
        stack.callback(_stop, below["launcher"])
        theirs.close()
        web = _start_web(command, {name: end.fileno() for name, end in ends.items()})
        stack.callback(_stop_web, web)
        for end in ends.values():
            end.close()
        return _wait(below, web, wake)


def _signals(stack: ExitStack) -> int:
    """A descriptor that becomes readable when we are asked to stop."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stack.callback(os.close, read)
    stack.callback(os.close, write)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return read


def _wait(below: "dict[str, subprocess.Popen[bytes]]", web: int, wake: int) -> int:
    """Until one of them ends or we are asked to stop; the exit code."""
    ends = {os.pidfd_open(started.pid): name for name, started in below.items()}
    ends |= {os.pidfd_open(web): "web", wake: "signal"}
    poll = select.poll()
    for fd in ends:
        poll.register(fd, select.POLLIN)
    names = {ends[fd] for fd, _ in poll.poll()}
    if names <= set(below):
        # Web may have let go of them just before its own end. Or the launcher told it why it
        # could not start, and web tells people; on a busy machine it has to be loaded first.
        tells = "launcher" in names and below["launcher"].wait() == channel.NOT_STARTED
        for fd, name in ends.items():
            if name in below:
                poll.unregister(fd)
        names |= {
            ends[fd] for fd, _ in poll.poll((_TELL_SECONDS if tells else _LAST_SECONDS) * 1000)
        }
    for fd in ends:
        if fd != wake:
            os.close(fd)
    if "web" in names:
        status = os.waitid(os.P_PID, web, os.WEXITED | os.WNOWAIT)
        assert status is not None
        if status.si_code == os.CLD_EXITED:
            return status.si_status
        print(f"sandrun: web was killed by signal {status.si_status}", file=sys.stderr)
        return 1
    for name in below:
        if name in names:
            print(f"sandrun: the {name} ended; stopping", file=sys.stderr)
            return 1
    return 0


def _reap(pid: int, seconds: float) -> bool:
    """Wait for the end of `pid`, but leave it to be collected; whether it came."""
    fd = os.pidfd_open(pid)
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def _wait_for_orphans() -> None:
    """Sandboxes whose launcher was killed are dying or dead; see them gone, for a while."""
    deadline = time.monotonic() + _GRACE_SECONDS
    try:
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
    except ChildProcessError:
        pass


# --- signer and launcher ---------------------------------------------------------------------


def _start_signer(fd: int, path: str) -> "subprocess.Popen[bytes]":
    return _start("sandbox.signer", fd, path)


def _said_hello(end: socket.socket, signer: "subprocess.Popen[bytes]", wake: int) -> bool:
    """Whether the signer is ready. Its hello stays in the socket, for web to hear; when it ended
    instead, it has said why."""
    if not select.select([end.fileno(), wake], [], [], _HELLO_SECONDS)[0]:
        print(f"sandrun: the signer was not ready in {_HELLO_SECONDS:g} s", file=sys.stderr)
        return False
    try:
        if end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            return True
    except BlockingIOError:  # we are asked to stop
        return False
    if (code := signer.wait()) < 0:
        print(f"sandrun: the signer was killed by signal {-code}", file=sys.stderr)
    return False


def _start_launcher(fd: int, parents: list[cgroups.Parent]) -> "subprocess.Popen[bytes]":
    return _start("sandbox.launcher", fd, json.dumps(parents))


def _start(module: str, fd: int, argument: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", "-m", module, str(fd), argument],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "MALLOC_MMAP_THRESHOLD_": "262144",  # as web's
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(fd,),
        start_new_session=True,  # Ctrl-C is the keeper's to pass on
    )


def _stop(started: "subprocess.Popen[bytes]") -> None:
    """It ends by itself when web is gone; sandboxes die with their launcher in any case."""
    try:
        started.wait(0.5)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


# --- web -------------------------------------------------------------------------------------


def _start_web(command: list[str], ends: dict[str, int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _become_web(command, ends)
    except BaseException as error:  # the edge of a child: its parent reads the exit code
        print(f"sandrun: web cannot start: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _become_web(command: list[str], ends: dict[str, int]) -> NoReturn:
    """Give up root, with a /tmp of our own and a way to the program's files; then exec."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    cover([_REPOSITORY, *map(Path, {sys.prefix, sys.base_prefix, sys.base_exec_prefix})])
    os.chdir("/")
    os.setgroups([])
    privileges.keep_capabilities_over_uid_change()
    os.setresgid(WEB_UID, WEB_UID, WEB_UID)
    os.setresuid(WEB_UID, WEB_UID, WEB_UID)
    privileges.drop_capabilities()
    privileges.no_new_privileges()
    privileges.die_with_parent()
    for fd in ends.values():
        os.set_inheritable(fd, True)
    passed = {name: value for name, value in os.environ.items() if name.startswith("SANDRUN_")}
    for ours in (WORKER_KEY, channel.SIGNER_FD):
        passed.pop(ours, None)
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        # What clients sent goes when it is free: glibc would learn to hold on to large pieces.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": "262144",
        **passed,
        **{name: str(fd) for name, fd in ends.items()},
    }
    os.execve(command[0], command, env)


def cover(needed: Iterable[Path]) -> None:
    """A bounded tmpfs over /tmp, and over every folder that web may not enter on the way to a
    needed one; the needed ones are bound, read-only, at their old paths."""
    paths = {path.resolve() for path in needed} | {Path(path) for path in needed}
    covers = {Path("/tmp")} | {closed for path in paths for closed in _closed_parents(path)[:1]}
    for cover in sorted(covers):
        below = sorted(path for path in paths if cover in path.parents)
        held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in below]
        is_tmp = cover == Path("/tmp")
        options = {"size": str(_TMP_BYTES if is_tmp else MIB), "mode": "1777" if is_tmp else "0755"}
        mount = linux.memory_tmpfs(options)
        linux.attach(mount, str(cover))
        os.close(mount)
        for path, fd in held:
            path.mkdir(parents=True, exist_ok=True)
            linux.mount(f"/proc/self/fd/{fd}", str(path), "", linux.MS_BIND | linux.MS_REC)
            linux.read_only(str(path))
            os.close(fd)


def _closed_parents(path: Path) -> list[Path]:
    """Parents of `path`, from the root on, that others may not enter."""
    parents = list(reversed(path.parents))
    return [parent for parent in parents if not parent.stat().st_mode & 0o001]


def _stop_web(pid: int) -> None:
    """A chance to end well, then the end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            os.kill(pid, number)
            _reap(pid, _GRACE_SECONDS)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
