"""The words of the sandbox: frozen values that go down (Command, Bundle, Limits) and come
back (Result). Imports nothing of ours.

Named tuples, not dataclasses: the launcher reads these too, and `dataclasses` would add a
tenth to the memory that is copied at every fork.
"""

from collections.abc import Mapping
from typing import NamedTuple

MIB = 1024 * 1024

# Who we are on the machine, beside root: the signer, web, and behind them the jobs, each with one
# of its own. Beyond what systemd, containers and people use.
WEB_UID = 1_899_999_999
SIGNER_UID = WEB_UID - 1
FIRST_UID = WEB_UID + 1
UIDS = 60_000
LAST_UID = FIRST_UID + UIDS - 1

# Every way in which a job can end; `status` is completed only for EXIT with code 0, where the
# public `reason` is null. worker_lost and verification_failed belong to the pool.
EXIT = "exit"
SIGNAL = "signal"
TIMEOUT = "timeout"
MEMORY = "memory"
CPU = "cpu"
CPU_QUOTA = "cpu_quota"
CANCELLED = "cancelled"
SANDBOX_ERROR = "sandbox_error"
REASONS = (EXIT, SIGNAL, TIMEOUT, MEMORY, CPU, CPU_QUOTA, CANCELLED, SANDBOX_ERROR)


class Limits(NamedTuple):
    """How much one sandbox may use. The launcher clamps every field again."""

    memory_bytes: int = 512 * MIB  # the whole process tree and its files (cgroup)
    disk_bytes: int = 100 * MIB  # the workspace tmpfs, inside memory_bytes
    inodes: int = 32768  # files and directories in the workspace
    tasks: int = 32  # processes and threads (cgroup)
    descriptors: int = 256  # RLIMIT_NOFILE
    cpus: float = 1.0  # cores' worth of time (cgroup quota)
    cpu_seconds: float = 0.0  # total CPU time, 0: no limit of its own
    wall_seconds: float = 300.0  # monotonic


class Member(NamedTuple):
    """One regular file of a bundle, as it is unpacked below the work directory."""

    path: str  # relative, '/'-separated, no '.' or '..' components
    size: int  # bytes
    mtime_ns: int  # set on the unpacked file: a differing one means the job changed it
    mode: int  # 0o644 or 0o755
    sha256: str  # hex


class Bundle(NamedTuple):
    """The uploaded files in a memfd: `form` says how its bytes are laid out.

    "loose": the members' bytes one after another, in the order of `members`.
    "archive": a zip, tar or tar.gz as it was uploaded; `members` came from inspect().
    """

    form: str
    fd: int
    members: tuple[Member, ...]


class Inspection(NamedTuple):
    """What is in an archive, found inside a sandbox."""

    members: tuple[Member, ...]
    job_json: bytes | None  # content of a top-level job.json, at most 256 KiB


class Command(NamedTuple):
    """What is executed: `steps` in order (a compiler first, say), the last is the program.

    A step that fails ends the job. argv[0] is looked up in PATH of `env`.
    """

    steps: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]  # exactly this, nothing is inherited


class Usage(NamedTuple):
    """What a sandbox consumed, read from its cgroup; integers only."""

    cpu_usec: int = 0
    memory_peak_bytes: int = 0
    wall_usec: int = 0


class Gauge(NamedTuple):
    """What a sandbox uses while it runs; memory is 0 where no cgroup counts it."""

    cpu_seconds: float = 0.0  # up to now
    memory_bytes: int = 0  # now: processes, files and kernel memory
    memory_peak_bytes: int = 0


class Glance(NamedTuple):
    """Files that a running job seems to have made: told from inside, so advice and no result."""

    files: tuple[tuple[str, int], ...] = ()  # path and size
    more: int = 0  # that were seen beside them


class Verdict(NamedTuple):
    """Why it ended. Decided once, outside, from what the kernel says."""

    reason: str
    exit_code: int | None = None
    signal: int | None = None
    step: int = 0  # index into Command.steps of the step that ended it


class Output(NamedTuple):
    """One file that came out: bytes [offset, offset + size) of Outputs.fd."""

    path: str
    offset: int
    size: int
    sha256: str  # hex
    mode: int


class Outputs(NamedTuple):
    """The files that came out, in one sealed memfd. Whoever holds the Result closes `fd`."""

    fd: int  # -1 when there is no file
    files: tuple[Output, ...] = ()
    truncated: bool = False  # a cap (count, bytes, depth, time) left some out


class Result(NamedTuple):
    """One run, ended."""

    verdict: Verdict
    usage: Usage
    limits_hit: tuple[str, ...]  # of: memory, cpu, timeout, tasks, disk, inodes
    outputs: Outputs
    notes: tuple[str, ...] = ()  # what went wrong after the program, e.g. a failed collection
