"""Runs a command on a cgroup v2 kernel, as an ordinary process, wherever the tests run.

A machine has either cgroup v1 or v2 and the sandbox must stand on both, so the tests bring the
second kernel along: Debian's user-mode-linux boots in about two seconds, with this machine's files
as its read-only root. It proves that something works, never how fast.
"""

from __future__ import annotations

import os
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

KERNEL = "linux.uml"
COVERED = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # fresh and empty in the guest
ENVIRONMENT = {
    "HOME": "/tmp",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",  # the root is read-only
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}
TAIL = 4000  # characters of output that an error shows


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
    cpu: int | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> tuple[int, str]:
    """Boot, run `argv` as root, switch off; the exit code and everything that was printed.

    The guest sees the host's files read-only. Directories in `COVERED` start empty: what the
    command needs from there is named in `readable` (`cwd` needs no naming). Directories in
    `writable` are the host's own, to read and write. `cgroup` names a cgroup to start in, made
    with every controller; empty means the root. Controllers in `v1` are mounted as version 1.
    It runs on `cpu`, or on the last one that we may use. `on_line` hears every line as it is
    printed.
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
        option = "" if v1 else "cgroup_no_v1=all"
        hear = _between(token, on_line)
        printed = _boot(exchange, init, memory, timeout, option, cpu, hear)
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


def _boot(
    exchange: Path,
    init: Path,
    memory: str,
    timeout: float,
    option: str,
    cpu: int | None,
    hear: Callable[[str], None],
) -> str:
    # The guest has one CPU, and every system call in it is several switches between processes
    # here: on one CPU of ours these cost a quarter of what they cost across two.
    one_cpu = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)) if cpu is None else cpu)]
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
            [*one_cpu, "sh", "-c", GUARD, "guard", exchange, directory, *kernel],
            env={"PATH": ENVIRONMENT["PATH"], "HOME": str(exchange), "TMPDIR": directory},
            cwd=exchange,
            stdin=lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert guest.stdout
        with guest.stdout as pipe:
            try:
                printed, ended = _listen(pipe.fileno(), timeout, hear)
            finally:
                _kill(guest)
                guest.wait()
    if not ended:
        raise GuestError(f"no end after {timeout} s; it printed:\n{printed[-TAIL:]}")
    return printed


def _listen(pipe: int, timeout: float, hear: Callable[[str], None]) -> tuple[str, bool]:
    """All that comes through `pipe`, and whether its end came in time."""
    deadline = time.monotonic() + timeout
    printed, heard = b"", 0
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(pipe, 65536)
        printed += piece
        whole = printed.rfind(b"\n") + 1 if piece else len(printed)
        for line in _text(printed[heard:whole]).splitlines():
            hear(line)
        heard = whole
        if not piece:
            return _text(printed), True
    return _text(printed), False


def _between(token: str, on_line: Callable[[str], None]) -> Callable[[str], None]:
    """Lets through what the command prints, without what the kernel and init.sh say around it."""
    inside = False

    def hear(line: str) -> None:
        nonlocal inside
        if token in line:
            inside = line.endswith("start")
        elif inside:
            on_line(line)

    return hear


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


def _text(printed: bytes) -> str:
    return printed.decode(errors="replace").replace("\r\n", "\n")


def _parse(printed: str, token: str) -> tuple[int, str]:
    _, started, rest = printed.partition(f"{token} start\n")
    output, ended, code = rest.rpartition(f"{token} end ")
    if not started or not ended:
        raise GuestError(f"the guest ended early; it printed:\n{printed[-TAIL:]}")
    return int(code.split()[0]), output
