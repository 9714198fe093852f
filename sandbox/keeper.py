"""Keeper: execs first, as root, and only waits. Starts the launcher and one unprivileged command
(web), joined by a socket pair that has no path; when either ends, kills what is left and removes
what only root can remove.

    python -I -m sandbox.keeper -- COMMAND...

The command finds its end of the pair in SANDRUN_LAUNCHER_FD. Its exit code is the keeper's, but
for 1 when the launcher went first.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from sandbox import cgroups, channel, linux, privileges
from sandbox.errors import SandboxError
from sandbox.model import MIB, WEB_UID

ALLOW_MISSING = "SANDRUN_ALLOW_MISSING"  # what an operator lets be missing: cgroups.MISSABLE
_TMP_BYTES = 64 * MIB  # nothing of ours uses it: uploads go straight into memfds
_GRACE_SECONDS = 3.0
_TELL_SECONDS = 30.0  # for web to say why the launcher could not start
_LAST_SECONDS = 1.0  # for web to end by itself, when the launcher ends in any other way
_REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run until the command, the launcher or a signal ends it."""
    if sys.argv[1:2] != ["--"] or not sys.argv[2:]:
        sys.exit("usage: python -I -m sandbox.keeper -- COMMAND...")
    if os.geteuid() != 0:
        sys.exit("Sandrun makes its sandboxes as root; start it with sudo.")
    if not all(_can_become_web(kind) for kind in ("uid", "gid")):
        sys.exit(
            "Sandrun makes its sandboxes as root of the machine; the user namespace that it is in "
            "lacks the uids of web and the jobs. Start it outside, with sudo."
        )
    os.umask(0o022)
    # Launcher and web hold several descriptors a sandbox; what a job may have is its own limit.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        sys.exit(keep(sys.argv[2:]))
    except SandboxError as error:
        sys.exit(f"Sandrun cannot start: {error}.")


def _can_become_web(kind: str) -> bool:
    """Whether our user namespace has web's id, which lies beside those of the jobs."""
    ranges = [map(int, row.split()) for row in Path(f"/proc/self/{kind}_map").open()]
    return any(first <= WEB_UID < first + count for first, _, count in ranges)


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
        ours, theirs = channel.pair()
        launcher = _start_launcher(theirs.fileno(), parents)
        stack.callback(_stop_launcher, launcher)
        web = _start_web(command, ours.fileno())
        stack.callback(_stop_web, web)
        ours.close()
        theirs.close()
        return _wait(launcher, web, wake)


def _signals(stack: ExitStack) -> int:
    """A descriptor that becomes readable when we are asked to stop."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stack.callback(os.close, read)
    stack.callback(os.close, write)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return read


def _wait(launcher: "subprocess.Popen[bytes]", web: int, wake: int) -> int:
    """Until one of them ends or we are asked to stop; the exit code."""
    ends = {os.pidfd_open(launcher.pid): "launcher", os.pidfd_open(web): "web", wake: "signal"}
    poll = select.poll()
    for fd in ends:
        poll.register(fd, select.POLLIN)
    names = {ends[fd] for fd, _ in poll.poll()}
    if names == {"launcher"}:
        # Web may have let go of the launcher just before its own end. Or the launcher told it why
        # it could not start, and web tells people; on a busy machine it has to be loaded first.
        tells = launcher.wait() == channel.NOT_STARTED
        poll.unregister(next(fd for fd in ends if ends[fd] == "launcher"))
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
    if "launcher" in names:
        print("sandrun: the launcher ended; stopping", file=sys.stderr)
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


# --- the launcher ----------------------------------------------------------------------------


def _start_launcher(fd: int, parents: list[cgroups.Parent]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "sandbox.launcher", str(fd), json.dumps(parents)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(fd,),
        start_new_session=True,  # Ctrl-C is the keeper's to pass on
    )


def _stop_launcher(launcher: "subprocess.Popen[bytes]") -> None:
    """It ends by itself when web is gone; its sandboxes die with it in any case."""
    try:
        launcher.wait(0.5)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()


# --- web -------------------------------------------------------------------------------------


def _start_web(command: list[str], fd: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _become_web(command, fd)
    except BaseException as error:  # the edge of a child: its parent reads the exit code
        print(f"sandrun: web cannot start: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _become_web(command: list[str], fd: int) -> NoReturn:
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
    os.set_inheritable(fd, True)
    passed = {name: value for name, value in os.environ.items() if name.startswith("SANDRUN_")}
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
        channel.LAUNCHER_FD: str(fd),
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
