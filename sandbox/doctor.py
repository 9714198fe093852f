"""Doctor: what this machine means for jobs and for the promises made about them, before anybody
runs one: a verdict a check, what it means, and the exact remedy.

    sudo .venv/bin/sandrun doctor [--json] [--strict]

`good`, `warning` (works; something outside of Sandrun weakens or records it) or `bad` (jobs would
not run, or a promise would be broken). Exit code 1 when something is bad; with --strict also when
there is a warning. A check that could not look is a warning: what nobody saw is not good.

CHECKS only read files, below a root that tests replace; Django shows them too (apps.py). TRIALS do
the real thing. No check stops the server: the launcher itself refuses what it must.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sandbox.cgroups import MISSABLE
from sandbox.model import Command, Limits
from sandbox.runtimes import load

GOOD, WARNING, BAD = "good", "warning", "bad"
ROOT = Path("/")
FIRST_UID, LAST_UID = 1_899_999_999, 1_900_059_999  # web's and the jobs' (keeper.py, launcher.py)


class Finding(NamedTuple):
    """What one check saw. `meaning` and `remedy` are empty when it is good."""

    name: str
    verdict: str
    found: str
    meaning: str = ""
    remedy: str = ""


class Seen(NamedTuple):
    """A Finding whose check has yet to put its name to it."""

    verdict: str
    found: str
    meaning: str = ""
    remedy: str = ""


class Check(NamedTuple):
    """`number` makes the id of Django's check: sandrun.W101, sandrun.E101."""

    number: int
    name: str
    look: Callable[[Path], Seen]


def examine(checks: Sequence[Check], root: Path = ROOT) -> list[Finding]:
    """Every check's finding, in order. None of them can end the others."""
    return [Finding(check.name, *_look(check, root)) for check in checks]


def _look(check: Check, root: Path) -> Seen:
    try:
        return check.look(root)
    except PermissionError as error:
        return _needs_root(str(error.filename or ""))
    except (OSError, ValueError, IndexError) as error:
        return Seen(
            WARNING, f"could not look: {error}", "Nobody knows.", "Report this as a fault of ours."
        )


# --- words for what is seen --------------------------------------------------------------------


def _good(found: str) -> Seen:
    return Seen(GOOD, found)


def _needs_root(what: str) -> Seen:
    found = f"needs root to read {what}" if what else "needs root"
    return Seen(WARNING, found, "Not looked at.", "sudo .venv/bin/sandrun doctor")


def _sysctl(name: str, value: object) -> str:
    """The command that sets it now and after every boot."""
    file = "/etc/sysctl.d/90-sandrun.conf"
    return f"echo '{name} = {value}' | sudo tee -a {file} && sudo sysctl -p {file}"


def _text(root: Path, path: str) -> str | None:
    """The file's text; None when this machine has no such file."""
    try:
        return (root / path).read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _number(root: Path, path: str) -> int | None:
    text = _text(root, path)
    return None if text is None else int(text)


def _children(root: Path, path: str) -> list[Path]:
    try:
        return sorted((root / path).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


Version = tuple[int, ...]


def _version(text: str) -> Version:
    """The numbers that a version begins with: "6.1.0-37-amd64" is (6, 1, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    if not found:
        raise ValueError(f"{text!r} is no version")
    return tuple(map(int, found[0].split(".")))


# --- the kernel --------------------------------------------------------------------------------

_LEAST_KERNEL = (5, 12)  # mount_setattr; clone3, fsopen and proc's subset=pid are older
_TRIED_KERNEL = (6, 1)


def _kernel_version(root: Path) -> Version:
    """The upstream version. Debian's and Ubuntu's release names hide it: 6.1.0-37 is 6.1.140."""
    release = _version(_text(root, "proc/sys/kernel/osrelease") or "")
    debian = re.findall(r"Debian (\d[\d.]*)", _text(root, "proc/sys/kernel/version") or "")
    ubuntu = (_text(root, "proc/version_signature") or "").split()[2:3]
    told = [_version(word) for word in (*debian, *ubuntu)]
    return max((version for version in told if version[:2] == release[:2]), default=release)


def _kernel(root: Path) -> Seen:
    version = _kernel_version(root)
    found = f"Linux {_text(root, 'proc/sys/kernel/osrelease')}"
    if version < _LEAST_KERNEL:
        return Seen(
            BAD, found, "No sandbox can be made: mount_setattr came with Linux 5.12.",
            "Boot Linux 6.1 or newer.",
        )  # fmt: skip
    if version < _TRIED_KERNEL:
        return Seen(
            WARNING, found, "Sandrun was never tried with a kernel older than 6.1.",
            "Boot Linux 6.1 or newer.",
        )  # fmt: skip
    return _good(found)


class Bug(NamedTuple):
    """A hole by which a program can become root, or corrupt the kernel. `ranges`: first-mended, the
    mended version not included."""

    name: str
    ranges: str
    what: str
    wall: str = ""  # what of ours stands between a job and it; nothing: allowed calls suffice


# Upstream versions, from the kernel's own CVE records where those exist (2024 on). Branches that
# were never mended count up to the next one that was; those too old for Sandrun are not told apart.
BUGS = (
    Bug("CVE-2022-0185", "5.1-5.15.16 5.16-5.16.2", "fsconfig overflows the heap",
        "fsconfig is denied"),
    Bug("CVE-2022-0492", "2.6.24-5.15.20 5.16-5.16.6", "release_agent of a cgroup runs as root",
        "mount is denied"),
    Bug("CVE-2022-0847", "5.8-5.10.102 5.11-5.15.25 5.16-5.16.11",
        "Dirty Pipe writes to files that may only be read", "splice is denied"),
    Bug("CVE-2023-3269", "6.1-6.1.37 6.2-6.3.11 6.4-6.4.1",
        "StackRot: a growing stack uses memory that was freed"),
    Bug("CVE-2023-4622", "4.2-5.10.192 5.11-5.15.128 5.16-6.1.47 6.2-6.4.12",
        "sendfile into a Unix socket uses memory that was freed"),
    Bug("CVE-2024-1086", "3.15-5.15.149 5.16-6.1.76 6.2-6.6.15 6.7-6.7.3",
        "nf_tables frees a packet twice", "netlink sockets are denied"),
    Bug("CVE-2024-26923", "2.6.23-5.10.216 5.11-5.15.156 5.16-6.1.87 6.2-6.6.28 6.7-6.8.7",
        "a Unix socket that is connected while sockets are collected is freed too early"),
    Bug("CVE-2025-38236", "5.15-5.15.194 5.16-6.1.143 6.2-6.6.96 6.7-6.12.36 6.13-6.15.5",
        "MSG_OOB on a Unix socket uses memory that was freed"),
    Bug("CVE-2025-40214", "6.1.141-6.1.159 6.6.93-6.6.117 6.10-6.12.59 6.13-6.17.9",
        "Unix sockets in flight are collected while they live"),
    Bug("CVE-2026-23394", "6.1.141-6.1.183 6.6.93-6.6.142 6.10-6.12.92 6.13-6.18.23 6.19-6.19.10",
        "MSG_PEEK on a Unix socket races with the collection of sockets"),
    Bug("CVE-2026-31431", "4.14-5.10.254 5.11-5.15.204 5.16-6.1.170 6.2-6.6.137 6.7-6.12.85 "
        "6.13-6.18.22 6.19-6.19.12", "Copy Fail writes to files that may only be read",
        "AF_ALG sockets and splice are denied"),
    Bug("CVE-2026-43284", "4.11-5.10.255 5.11-5.15.206 5.16-6.1.172 6.2-6.6.138 6.7-6.12.87 "
        "6.13-6.18.28 6.19-7.0.5", "Dirty Frag: IPsec decrypts in pages of files",
        "splice is denied, and no network is up"),
    Bug("CVE-2026-53362", "6.0-6.1.177 6.2-6.6.144 6.7-6.12.95 6.13-6.18.38 6.19-7.1.3",
        "a datagram of IPv6 is written past its end", "no network is up"),
)  # fmt: skip


def _has(bug: Bug, kernel: Version) -> bool:
    ranges = (part.split("-") for part in bug.ranges.split())
    return any(_version(first) <= kernel < _version(fixed) for first, fixed in ranges)


def _kernel_bugs(root: Path) -> Seen:
    kernel = _kernel_version(root)
    bugs = [bug for bug in BUGS if _has(bug, kernel)]
    version = ".".join(map(str, kernel))
    if not bugs:
        return _good(f"none of {len(BUGS)} known holes is in Linux {version}")
    bare = [f"{bug.name} ({bug.what})" for bug in bugs if not bug.wall]
    behind = [f"{bug.name} ({bug.what}; {bug.wall})" for bug in bugs if bug.wall]
    meaning = f"Unless your distribution has mended its Linux {version} (most do, and name the CVE)"
    if bare:
        meaning += f", a job can try these with calls that it may make: {', '.join(bare)}"
    if behind:
        meaning += f"{'; and' if bare else ','} only one wall keeps it from: {', '.join(behind)}"
    return Seen(
        WARNING, f"{len(bugs)} of {len(BUGS)} known holes are in upstream's {version}",
        meaning + ".", "Install your distribution's newest kernel and boot it.",
    )  # fmt: skip


def _seccomp(root: Path) -> Seen:
    actions = (_text(root, "proc/sys/kernel/seccomp/actions_avail") or "").split()
    if "errno" not in actions:
        return Seen(
            BAD, "this kernel has no seccomp filters", "No sandbox can be made.",
            "Boot a kernel with CONFIG_SECCOMP_FILTER=y.",
        )  # fmt: skip
    return _good("the kernel has seccomp filters")


def _file_systems(root: Path) -> Seen:
    known = {line.split()[-1] for line in (_text(root, "proc/filesystems") or "").splitlines()}
    missing = sorted({"tmpfs", "proc"} - known)
    if missing:
        return Seen(
            BAD, f"the kernel has no {' and no '.join(missing)}", "No sandbox can be made.",
            "Boot a kernel with CONFIG_TMPFS=y and CONFIG_PROC_FS=y.",
        )  # fmt: skip
    return _good("tmpfs and proc")


_NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")


def _namespaces(root: Path) -> Seen:
    """Sysctls that stop people without root (kernel.unprivileged_userns_clone, AppArmor's
    restriction) do not concern the launcher, which has root: they are told, and are good."""
    missing = [name for name in _NAMESPACES if not os.path.lexists(root / f"proc/self/ns/{name}")]
    if missing:
        return Seen(
            BAD, f"the kernel has no {', '.join(missing)} namespaces", "No sandbox can be made.",
            "Boot a kernel with CONFIG_NAMESPACES=y and CONFIG_USER_NS=y.",
        )  # fmt: skip
    most = {name: _number(root, f"proc/sys/user/max_{name}_namespaces") for name in _NAMESPACES}
    least, name = min((most[name], name) for name in _NAMESPACES if most[name] is not None)
    assert least is not None
    if least < 100:
        return Seen(
            BAD if least < 8 else WARNING, f"user.max_{name}_namespaces is {least}",
            "Every running job needs one of each kind, so jobs fail at the step \"clone\".",
            _sysctl(f"user.max_{name}_namespaces", 10000),
        )  # fmt: skip
    return _good(f"all {len(_NAMESPACES)} kinds{_gates(root)}")


def _gates(root: Path) -> str:
    shut = [
        f"{name} = {value}"
        for name, value in (("unprivileged_userns_clone", 0),
                            ("apparmor_restrict_unprivileged_userns", 1))
        if _number(root, f"proc/sys/kernel/{name}") == value
    ]  # fmt: skip
    return f" ({', '.join(shut)} stops only people without root)" if shut else ""


def _own_ids(root: Path) -> Seen:
    """Jobs get uids that nobody else has; a container may have too few to give."""
    for kind in ("uid", "gid"):
        lines = (_text(root, f"proc/self/{kind}_map") or "").splitlines()
        ranges = [tuple(map(int, line.split())) for line in lines]
        if not any(first <= FIRST_UID and LAST_UID < first + n for first, _, n in ranges):
            return Seen(
                BAD, f"{kind}s up to {LAST_UID} are not ours to give: a container with an id map?",
                "Sandrun does not start: every running job gets an id of the machine.",
                "Start the container without --uidmap and --userns.",
            )  # fmt: skip
    for file in ("etc/subuid", "etc/subgid"):
        for line in (_text(root, file) or "").splitlines():
            _, first, count = line.split(":")
            if int(first) <= LAST_UID and FIRST_UID < int(first) + int(count):
                return Seen(
                    WARNING, f"/{file} gives away ids that jobs use: {line}",
                    "A container of that user could signal a job.",
                    f"Take {FIRST_UID} to {LAST_UID} out of /{file}.",
                )  # fmt: skip
    return _good(f"uids {FIRST_UID} to {LAST_UID} are nobody else's")


# --- cgroups and memory ------------------------------------------------------------------------

_CONTROLLERS = ("memory", "pids", "cpu")


class _Mount(NamedTuple):
    point: str
    kind: str
    options: list[str]  # of the mount, then of the file system


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in (_text(root, "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        words, kinds = left.split(), right.split()
        yield _Mount(words[4], kinds[0], words[5].split(",") + kinds[2].split(","))


def _controllers(root: Path) -> dict[str, tuple[int, _Mount]]:
    """Which version offers each controller, and where, as sandbox.cgroups looks for them."""
    found: dict[str, tuple[int, _Mount]] = {}
    for mount in _mounts(root):
        if mount.kind == "cgroup":
            for name in mount.options:
                found.setdefault(name, (1, mount))
    for mount in _mounts(root):
        if mount.kind == "cgroup2":
            offered = _text(root, f"{mount.point[1:]}/cgroup.controllers") or ""
            for name in offered.split():
                found.setdefault(name, (2, mount))
    return {name: found[name] for name in (*_CONTROLLERS, "cpuacct") if name in found}


def _cgroups(root: Path) -> Seen:
    offered = _controllers(root)
    found = ", ".join(f"{name} v{version}" for name, (version, _) in offered.items()) or "none"
    closed = {name: mount for name, (_, mount) in offered.items() if "ro" in mount.options}
    wanted = [*_CONTROLLERS]
    if offered.get("cpu", (2,))[0] == 1:
        wanted.append("cpuacct")
    missing = [name for name in wanted if name not in offered or name in closed]
    if not missing:
        return _good(found)
    told = f"no {', no '.join(missing)} (found: {found}{', read-only' if closed else ''})"
    if set(missing) <= _allowed_to_miss():
        return Seen(
            WARNING, told,
            "SANDRUN_ALLOW_MISSING lets jobs run: their limits are estimates, and one job can take "
            "from others what it likes for a moment.", _provide(offered, closed),
        )  # fmt: skip
    return Seen(
        BAD, told, "Sandrun does not start: no job runs without limits.", _provide(offered, closed)
    )


def _allowed_to_miss() -> set[str]:
    words = os.environ.get("SANDRUN_ALLOW_MISSING", "").split(",")
    return {name for word in words for name in MISSABLE.get(word.strip(), ())}


def _provide(offered: Collection[str], closed: Mapping[str, _Mount]) -> str:
    for mount in closed.values():
        return f"sudo mount -o remount,rw {mount.point}; for a container see docs/deployment.md"
    if not offered:
        return "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    return (
        "Boot with cgroup_no_v1=all cgroup_enable=memory; in a container, give it these controllers"
    )


def _delegation(root: Path) -> Seen:
    """Under systemd the cgroups below us are ours only in a scope that is delegated to us."""
    versions = {version for version, _ in _controllers(root).values()}
    if not (root / "run/systemd/system").is_dir():
        return _good("no systemd: Sandrun makes a cgroup of its own")
    there = any((root / folder / "systemd-run").exists() for folder in ("usr/bin", "bin"))
    if not there and 2 in versions:
        return Seen(
            WARNING, "systemd without systemd-run",
            "systemd may move or limit what Sandrun makes below a cgroup that is not its own.",
            "sudo apt-get install systemd, or use integrations/systemd/sandrun.service.",
        )  # fmt: skip
    if not there:
        return _good("systemd does not manage the controllers of cgroup version 1")
    return _good("systemd delegates a scope to script/server")


def _swaps(root: Path) -> list[str]:
    return [line.split()[0] for line in (_text(root, "proc/swaps") or "").splitlines()[1:]]


def _swap(root: Path) -> Seen:
    swaps = _swaps(root)
    if not swaps:
        return _good("none")
    remedy = "sudo swapoff -a, and take the lines with swap out of /etc/fstab"
    if _controllers(root).get("memory", (0,))[0] != 2:
        return Seen(
            BAD, ", ".join(swaps),
            "Sandrun does not start: only cgroup version 2 keeps uploads and outputs out of swap.",
            remedy,
        )  # fmt: skip
    if all(_in_memory(root, name) for name in swaps):
        return _good(f"{', '.join(swaps)}: compressed memory, and Sandrun's limit of swap is 0")
    return Seen(
        WARNING, ", ".join(swaps),
        "Sandrun and its jobs have a swap limit of 0, but a proxy in front of it has not: what "
        "clients send and get may reach a disk.", remedy,
    )  # fmt: skip


def _in_memory(root: Path, swap: str) -> bool:
    """zram that nothing spills from."""
    return _text(root, f"sys/block/{Path(swap).name}/backing_dev") == "none"


def _hibernation(root: Path) -> Seen:
    possible = "disk" in (_text(root, "sys/power/state") or "").split()
    place = (_text(root, "sys/power/resume") or "0:0") != "0:0" or bool(_swaps(root))
    if possible and place:
        return Seen(
            WARNING, "this machine can hibernate",
            "That writes all memory to a disk: code, logs and outputs of jobs.",
            "sudo systemctl mask hibernate.target hybrid-sleep.target "
            "suspend-then-hibernate.target",
        )  # fmt: skip
    return _good("memory is never written to a disk")


def _shared_pages(root: Path) -> Seen:
    if _text(root, "sys/kernel/mm/ksm/run") == "1":
        return Seen(
            WARNING, "KSM is on",
            "Equal pages of programs that asked for it are merged, and who writes one can tell by "
            "the time that another has it.", "echo 2 | sudo tee /sys/kernel/mm/ksm/run",
        )  # fmt: skip
    return _good("KSM is off")


# --- what the machine writes down ----------------------------------------------------------------


def _core_dumps(root: Path) -> Seen:
    pattern = _text(root, "proc/sys/kernel/core_pattern") or ""
    off = _sysctl("kernel.core_pattern", "core")
    if "apport" in pattern:
        off = f"sudo systemctl disable --now apport.service; {off}"
    if pattern.startswith("|"):
        return Seen(
            WARNING, f"crashes are piped to {pattern[1:].split(' ')[0]}",
            "Jobs are kept out (their limit is 1, at which the kernel starts no helper), but for "
            "every one that crashes the kernel logs the name of its program.", off,
        )  # fmt: skip
    if pattern.startswith("@"):
        return Seen(
            WARNING, f"crashes are sent to the socket {pattern[1:]}",
            "Never tried: the memory of a job that crashes may be handed to another program.", off,
        )  # fmt: skip
    return _good(f"{pattern or 'none'}: a file, and jobs may write none")


def _crash_log(root: Path) -> Seen:
    names = [
        name
        for name in ("debug.exception-trace", "kernel.print-fatal-signals")
        if _number(root, f"proc/sys/{name.replace('.', '/')}")
    ]
    if not names:
        return _good("the kernel does not log crashes")
    return Seen(
        WARNING, f"{' and '.join(names)} on",
        "For a job that crashes the kernel logs the name of its program, which the client chose, "
        "and it stays in the log when the job is forgotten.",
        " && ".join(_sysctl(name, 0) for name in names),
    )  # fmt: skip


_WATCHERS = frozenset(
    "auditd osqueryd falco tetragon tracee sysmon bpftrace execsnoop execsnoop-bpfcc execsnoop.bt "
    "forkstat atopacctd falcon-sensor wazuh-modulesd".split()
)


def _watchers(root: Path) -> Seen:
    """Programs that record which programs start, as far as a name tells."""
    names = set()
    if not (root / "proc/1").exists():
        return _needs_root("the list of processes")  # which is hidden from us
    for folder in (root / "proc").glob("[0-9]*"):
        try:
            names.add((folder / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue
    running = sorted(name for name in names if name in {known[:15] for known in _WATCHERS})
    if running:
        return Seen(
            WARNING, f"{', '.join(running)} running",
            "May keep the names and arguments of jobs' programs, and crashes, after the job is "
            "forgotten.",
            f"Stop it (sudo systemctl disable --now {running[0]}), or leave out uids {FIRST_UID} "
            f"to {LAST_UID}.",
        )  # fmt: skip
    return _good("no program that is known to record others")


def _audit_rules(root: Path) -> Seen:
    files = [root / "etc/audit/audit.rules", *_children(root, "etc/audit/rules.d")]
    watching = [
        line.strip()
        for file in files
        if file.suffix == ".rules"
        for line in (_text(file.parent, file.name) or "").splitlines()
        if re.search(r"^\s*-[aA]\s.*-S\s*(\S*execve|all)", line) and "never" not in line
    ]
    if watching:
        return Seen(
            WARNING, f"audit rule: {watching[0]}",
            "The arguments of jobs' programs go to the audit log when these rules are loaded.",
            f"sudo auditctl -A exit,never -S all -F 'uid>={FIRST_UID}' -F 'uid<={LAST_UID}', and "
            "that line (without sudo auditctl) as the first in /etc/audit/rules.d/00-sandrun.rules",
        )  # fmt: skip
    return _good("no audit rule about programs that start")


def _accounting(root: Path) -> Seen:
    """The kernel does not tell whether it is on; a file that grew since the boot does."""
    booted = re.search(r"^btime (\d+)", _text(root, "proc/stat") or "", re.MULTILINE)
    for path in ("var/log/account/pacct", "var/account/pacct"):
        file = root / path
        if file.exists() and booted and file.stat().st_mtime >= int(booted[1]):
            return Seen(
                WARNING, f"/{path} was written since the boot",
                "Process accounting keeps the name of every program of every job.",
                f"sudo accton off && sudo rm /{path}",
            )  # fmt: skip
    return _good("no process accounting")


def _tracing(root: Path) -> Seen:
    for folder in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
        tracer = _text(root, f"{folder}/current_tracer")
        if tracer is None:
            continue
        events = _text(root, f"{folder}/events/enable")
        if tracer != "nop" or events not in (None, "0"):
            return Seen(
                WARNING, f"tracer {tracer}, events {events}",
                "The kernel may keep what jobs do in its trace buffer.",
                f"echo nop | sudo tee /{folder}/current_tracer; "
                f"echo 0 | sudo tee /{folder}/events/enable",
            )  # fmt: skip
        return _good("the kernel traces nothing")
    return _good("no tracefs is mounted")


# --- what other people of this machine can see ---------------------------------------------------


def _kernel_log(root: Path) -> Seen:
    if _number(root, "proc/sys/kernel/dmesg_restrict") == 0:
        return Seen(
            WARNING, "dmesg_restrict is 0",
            "Everybody with an account here can read the kernel's log, and what it tells about "
            "jobs that were killed or crashed. (Jobs cannot.)",
            _sysctl("kernel.dmesg_restrict", 1),
        )  # fmt: skip
    return _good("only root reads the kernel's log")


def _process_list(root: Path) -> Seen:
    options = [option for mount in _mounts(root) if mount.point == "/proc"
               for option in mount.options]  # fmt: skip
    hidden = [option for option in options if re.fullmatch(r"hidepid=(?!0|off).+", option)]
    if not hidden:
        return Seen(
            WARNING, "/proc is mounted without hidepid",
            "Everybody with an account here sees the arguments of running jobs with ps. (Jobs see "
            "only themselves.)",
            "sudo mount -o remount,hidepid=invisible /proc, and `proc /proc proc "
            "hidepid=invisible 0 0` in /etc/fstab",
        )  # fmt: skip
    return _good(hidden[-1])


def _profiling(root: Path) -> Seen:
    level = _number(root, "proc/sys/kernel/perf_event_paranoid")
    if level is not None and level < 1:
        return Seen(
            WARNING, f"perf_event_paranoid is {level}",
            "Everybody with an account here can profile whole cores, and so the jobs on them. "
            "(Jobs cannot.)", _sysctl("kernel.perf_event_paranoid", 2),
        )  # fmt: skip
    return _good("nobody without root profiles others")


def _hyperthreads(root: Path) -> Seen:
    if _text(root, "sys/devices/system/cpu/smt/active") == "1":
        return Seen(
            WARNING, "on",
            "Two jobs may share a core at the same time, which is how most side channels between "
            "them are made. Secrecy of what jobs compute from each other is not promised.",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control, and boot with nosmt",
        )  # fmt: skip
    return _good("off")


def _cpu_bugs(root: Path) -> Seen:
    bugs = [
        file.name
        for file in _children(root, "sys/devices/system/cpu/vulnerabilities")
        if file.read_text().startswith("Vulnerable")
    ]
    if bugs:
        return Seen(
            WARNING, f"vulnerable: {', '.join(bugs)}",
            "Jobs may read memory of each other, of Sandrun or of the kernel through the "
            "processor. That is not promised against.",
            "Boot without mitigations=off, with the newest kernel and microcode (sudo apt-get "
            "install intel-microcode amd64-microcode); in a virtual machine, ask its provider.",
        )  # fmt: skip
    return _good("the kernel covers all that it knows")


# --- the service itself --------------------------------------------------------------------------


def _temporary(root: Path) -> Seen:
    """The keeper puts a tmpfs of its own over web's /tmp; TMPDIR from outside is not passed on."""
    if not (root / "tmp").is_dir():
        return Seen(
            BAD, "there is no /tmp", "Sandrun does not start: it covers /tmp with memory of its "
            "own.", "sudo mkdir -m 1777 /tmp",
        )  # fmt: skip
    return _good("the server gets a /tmp of its own, in memory; yours and TMPDIR are not used")


def _descriptors(root: Path) -> Seen:
    limits = _text(root, "proc/self/limits") or ""
    found = re.search(r"^Max open files\s+\S+\s+(\S+)", limits, re.MULTILINE)
    most = found[1] if found else "0"
    if most != "unlimited" and int(most) < 4096:
        return Seen(
            WARNING, f"{most} open files at most",
            "Every running job and every connection takes some; beyond that jobs fail and "
            "connections are refused.",
            "ulimit -Hn 65536, LimitNOFILE=65536 in a unit, --ulimit nofile=65536:65536 for a "
            "container",
        )  # fmt: skip
    return _good(f"{most} open files at most")


# Below these a client can fill the memory of the server or slip past its checks (daphne: frames of
# any size and forged headers; autobahn: GHSA-hxp9-w8x3-p566, frames that inflate; Django, Twisted:
# requests that smuggle or cost too much).
_FLOORS = {"daphne": "4.2.3", "Django": "5.2.13", "Twisted": "24.7", "autobahn": "26.7.1"}


def _packages(root: Path) -> Seen:
    path = [str(root / folder.lstrip("/")) for folder in sys.path if folder.startswith("/")]
    found: dict[str, str] = {}
    for name in _FLOORS:
        for distribution in importlib.metadata.distributions(name=name, path=path):
            found.setdefault(name, distribution.version)
    old = [
        f"{name} {found.get(name, 'missing')} (needs {floor})"
        for name, floor in _FLOORS.items()
        if _version(found.get(name, "0")) < _version(floor)
    ]
    if old:
        return Seen(
            BAD, ", ".join(old), "Clients could do to the server what these versions let them.",
            "sudo script/setup",
        )  # fmt: skip
    return _good(", ".join(f"{name} {version}" for name, version in found.items()))


CHECKS = (
    Check(101, "kernel", _kernel),
    Check(102, "kernel bugs", _kernel_bugs),
    Check(103, "seccomp", _seccomp),
    Check(104, "file systems", _file_systems),
    Check(105, "namespaces", _namespaces),
    Check(106, "job ids", _own_ids),
    Check(107, "cgroups", _cgroups),
    Check(108, "delegation", _delegation),
    Check(109, "swap", _swap),
    Check(110, "hibernation", _hibernation),
    Check(111, "shared pages", _shared_pages),
    Check(112, "core dumps", _core_dumps),
    Check(113, "crash log", _crash_log),
    Check(114, "watchers", _watchers),
    Check(115, "audit rules", _audit_rules),
    Check(116, "accounting", _accounting),
    Check(117, "tracing", _tracing),
    Check(118, "kernel log", _kernel_log),
    Check(119, "process list", _process_list),
    Check(120, "profiling", _profiling),
    Check(121, "hyperthreads", _hyperthreads),
    Check(122, "processor bugs", _cpu_bugs),
    Check(123, "temporary files", _temporary),
    Check(124, "descriptors", _descriptors),
    Check(125, "packages", _packages),
)


# --- trials --------------------------------------------------------------------------------------


_PATIENCE = 0.8  # seconds for a runtime to say its version


def _filter(root: Path) -> Seen:
    """As the launcher builds it; needs no root."""
    try:
        from sandbox import privileges, seccomp

        privileges.check()
        size = len(seccomp.build()) // 8
    except (ImportError, OSError, RuntimeError) as error:
        return Seen(
            BAD, f"cannot be built: {error}", "No sandbox can be made.",
            "sudo script/setup (it installs libseccomp2 and builds python-prctl)",
        )  # fmt: skip
    return _good(f"{size} instructions")


def _sandbox(root: Path) -> Seen:
    """One sandbox, made as the server makes them, in which all runtimes say their versions."""
    if os.geteuid() != 0:
        return _needs_root("")
    commands = {name: runtime.version_command(Limits()) for name, runtime in load().items()}
    script = "\n".join(_probe(name, command) for name, command in commands.items())
    words = ["run", "--tasks", "256", "--timeout", "30", "--", "sh", "-c", script + "\nwait"]
    done = subprocess.run(
        [*_scope(), sys.executable, "-I", "-m", "sandbox", *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": done.stderr.strip() or f"ended with {done.returncode}"}
    if "error" in answer or answer["reason"] != "exit":
        return Seen(
            BAD, f"none can be made: {answer.get('error', answer.get('reason'))}",
            "No job runs; the server refuses to start.",
            "The other findings that are bad say why; else the step is explained in "
            "sandbox/README.md.",
        )  # fmt: skip
    languages = sorted(map(_language, answer["stdout"].splitlines()))
    if not languages:
        return Seen(
            BAD, "made, but it can run no language", "Every job is refused.",
            "sudo script/runtimes, or install an interpreter below /usr",
        )  # fmt: skip
    return _good("made; runs " + ", ".join(languages))


def _probe(name: str, command: Command) -> str:
    """Shell: in the background, its name and what it says first; its name alone if it is slow."""
    words = [*(f"{key}={value}" for key, value in command.env.items()), *command.steps[0]]
    return (
        f"(timeout {_PATIENCE} env {shlex.join(words)} >{name} 2>&1; "
        f"case $? in 0) echo {name} $(head -n 1 {name}) ;; 124) echo {name} ;; esac) &"
    )


def _language(line: str) -> str:
    """Its name and version, from the name and what it said of itself."""
    name, _, said = line.partition(" ")
    version = re.search(r"\d+(\.\d+)+", said)
    return f"{name} {version[0]}" if version else name


def _scope() -> list[str]:
    """As script/server: under systemd, a scope whose cgroups are ours."""
    if os.path.isdir("/run/systemd/system") and not os.environ.get("SANDRUN_SCOPE"):
        for folder in os.get_exec_path():
            if os.access(f"{folder}/systemd-run", os.X_OK):
                return [f"{folder}/systemd-run", "--scope", "--quiet", "--property=Delegate=yes"]
    return []


TRIALS = (Check(151, "filter", _filter), Check(152, "sandbox", _sandbox))


# --- the command line ----------------------------------------------------------------------------


def table(findings: Sequence[Finding]) -> str:
    """One line for what is good; for the rest also what it means and what to do."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.name:{width}}  {finding.verdict:7}  {finding.found}")
        if finding.meaning:
            lines += textwrap.wrap(finding.meaning, 96 - 4, initial_indent=" " * 4,
                                   subsequent_indent=" " * 4)  # fmt: skip
        if finding.remedy:
            lines.append(f"    Remedy: {finding.remedy}")
    verdicts = [finding.verdict for finding in findings]
    counts = (f"{verdicts.count(verdict)} {verdict}" for verdict in (BAD, WARNING, GOOD))
    return "\n".join([*lines, "", ", ".join(counts)])


def passes(findings: Sequence[Finding], strict: bool) -> bool:
    """Whether nothing is bad; if strict, whether everything is good."""
    refused = (BAD, WARNING) if strict else (BAD,)
    return not any(finding.verdict in refused for finding in findings)


def main() -> None:
    """Exit code 1 when it does not pass."""
    parser = argparse.ArgumentParser(
        prog="sandrun doctor", allow_abbrev=False,
        description="Say what this machine lacks, what that means, and what to do about it.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a list of findings, for programs")
    parser.add_argument("--strict", action="store_true", help="warnings, too, make exit code 1")
    parser.add_argument(
        "--look", action="store_true", help="only look: make no sandbox, as a server will anyway"
    )
    arguments = parser.parse_args()
    findings = examine(CHECKS if arguments.look else (*CHECKS, *TRIALS))
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print(table(findings))
    sys.exit(0 if passes(findings, arguments.strict) else 1)


if __name__ == "__main__":
    main()
