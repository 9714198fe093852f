"""Runs a command on a cgroup v2 kernel, as an ordinary process, wherever the tests run.

A machine has either cgroup v1 or v2 and the sandbox must stand on both, so the tests bring the
second kernel along: Debian's user-mode-linux boots in about two seconds, with this machine's files
as its read-only root. It proves that something works, never how fast.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

KERNEL = "linux.uml"
COVERED = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # fresh and empty in the guest
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}
TAIL = 4000  # characters of output that an error shows


# The guest has one CPU, and every system call in it is several switches between processes here:
# on one CPU of ours these cost a quarter of what they cost across two.
ONE_CPU = ("taskset", "--cpu-list", str(max(os.sched_getaffinity(0))))

# Standard input ends when we do, even killed: then nothing of the guest may stay.
GUARD = """
exec 3<&0 </dev/null
(read -r _ <&3; rm -rf "$1" "$2"; kill -KILL 0) >/dev/null 2>&1 &
shift 2
exec 3<&- "$@"
"""


class GuestError(Exception):
    """The guest did not come to the end of its command."""


def installed() -> bool:
    return shutil.which(KERNEL) is not None


def run(
    argv: Sequence[str | Path],
    *,
    memory: str = "768M",
    timeout: float = 120,
    cwd: Path | str = "/",
    environment: Mapping[str, str] | None = None,
    writable: Iterable[Path] = (),
    readable: Iterable[Path] = (),
    cgroup: str = "",
    v1: Sequence[str] = (),
) -> tuple[int, str]:
    """Boot, run `argv` as root, switch off; the exit code and everything that was printed.

    The guest sees the host's files read-only. Directories in `COVERED` start empty: what the
    command needs from there is named in `readable` (`cwd` needs no naming). Directories in
    `writable` are the host's own, to read and write. `cgroup` names a cgroup to start in, made
    with every controller; empty means the root. Controllers in `v1` are mounted as version 1.
    """
    with tempfile.TemporaryDirectory(prefix="uml-") as scratch:
        exchange = Path(scratch)
        token = secrets.token_hex(16)
        init = exchange / "init.sh"
        shutil.copyfile(Path(__file__).with_name("init.sh"), init)
        init.chmod(0o700)
        (exchange / "token").write_text(token + "\n")
        (exchange / "mounts").write_text(_mounts([Path(cwd), *readable], writable))
        (exchange / "command").write_text(_command(argv, cwd, environment or {}, cgroup, v1))
        printed = _boot(exchange, init, memory, timeout, "" if v1 else "cgroup_no_v1=all")
    return _parse(printed, token)


def _mounts(readable: Iterable[Path], writable: Iterable[Path]) -> str:
    covered = [Path(place) for place in COVERED]
    modes = {
        path: "ro"
        for path in map(Path.resolve, readable)
        if any(place in path.parents for place in covered)
    }
    modes.update((path.resolve(), "rw") for path in writable)
    return "".join(f"{mode} {path}\n" for path, mode in sorted(modes.items()))


def _command(
    argv: Sequence[str | Path],
    cwd: Path | str,
    environment: Mapping[str, str],
    cgroup: str,
    v1: Sequence[str],
) -> str:
    lines = [
        f"mkdir -p /run/cgroup/{name} && mount -t cgroup -o {name} cgroup /run/cgroup/{name}"
        for name in v1
    ]
    lines += ["controllers=$(sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers)"]
    parent = "/sys/fs/cgroup"
    for name in filter(None, cgroup.split("/")):
        lines.append(f'echo "$controllers" >{shlex.quote(parent)}/cgroup.subtree_control')
        parent = f"{parent}/{name}"
        lines.append(f"mkdir {shlex.quote(parent)}")
    if cgroup:
        lines.append(f"echo $$ >{shlex.quote(parent)}/cgroup.procs")
    lines.append(f"cd {shlex.quote(str(cwd))} || exit 125")
    variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **environment}.items()]
    lines.append(f"exec {shlex.join(['env', '-i', *variables, *map(str, argv)])}")
    return "\n".join(lines) + "\n"


def _boot(exchange: Path, init: Path, memory: str, timeout: float, option: str) -> str:
    kernel = [
        shutil.which(KERNEL) or KERNEL,
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"),
        *("con=null", "con0=null,fd:1", f"uml_dir={exchange}/", f"mem={memory}"),
        *(option, "lsm=", "loglevel=3"),
    ]
    theirs, ours = os.pipe()
    with (
        _memory_directory(exchange, memory) as directory,
        open(ours, "wb"),
        open(theirs, "rb") as lifeline,
    ):
        guest = subprocess.Popen(
            [*ONE_CPU, "sh", "-c", GUARD, "guard", exchange, directory, *kernel],
            env={"PATH": ENVIRONMENT["PATH"], "HOME": str(exchange), "TMPDIR": directory},
            cwd=exchange,
            stdin=lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            printed, _ = guest.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(guest)
            printed, _ = guest.communicate()
            raise GuestError(
                f"no end after {timeout} s; it printed:\n{_text(printed)[-TAIL:]}"
            ) from None
        finally:
            _kill(guest)
            guest.wait()
    return _text(printed)


def _memory_directory(exchange: Path, memory: str) -> tempfile.TemporaryDirectory[str]:
    """Where the guest's memory is a file: executable, and a container's /dev/shm may be small."""
    wanted = int(memory[:-1]) << {"K": 10, "M": 20, "G": 30}[memory[-1].upper()]
    fast: str | None = None
    try:
        there = os.statvfs("/dev/shm")
        if not there.f_flag & os.ST_NOEXEC and there.f_bavail * there.f_frsize > wanted * 1.2:
            fast = "/dev/shm"
    except OSError:
        pass
    return tempfile.TemporaryDirectory(prefix="uml-", dir=fast or exchange)


def _kill(guest: subprocess.Popen[bytes]) -> None:
    """Every process of the guest is a process here too, in the session that was begun for it."""
    try:
        os.killpg(guest.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _text(printed: bytes | None) -> str:
    return (printed or b"").decode(errors="replace").replace("\r\n", "\n")


def _parse(printed: str, token: str) -> tuple[int, str]:
    _, started, rest = printed.partition(f"{token} start\n")
    output, ended, code = rest.rpartition(f"{token} end ")
    if not started or not ended:
        raise GuestError(f"the guest ended early; it printed:\n{printed[-TAIL:]}")
    return int(code.split()[0]), output
