"""Records: what the machine writes down of jobs, and keeps when they are forgotten."""

import re
from pathlib import Path

from sandbox.doctor.files import children_of, number_of, text_of
from sandbox.doctor.words import WARNING, Check, Seen, good, needs_root, sysctl
from sandbox.model import LAST_UID, WEB_UID


def _core_dumps(root: Path) -> Seen:
    pattern = text_of(root, "proc/sys/kernel/core_pattern") or ""
    off = sysctl("kernel.core_pattern", "core")
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
    return good(f"{pattern or 'none'}: a file, and jobs may write none")


def _crash_log(root: Path) -> Seen:
    names = [
        name
        for name in ("debug.exception-trace", "kernel.print-fatal-signals")
        if number_of(root, f"proc/sys/{name.replace('.', '/')}")
    ]
    if not names:
        return good("the kernel does not log crashes")
    return Seen(
        WARNING, f"{' and '.join(names)} on",
        "For a job that crashes the kernel logs the name of its program, which the client chose, "
        "and it stays in the log when the job is forgotten.",
        " && ".join(sysctl(name, 0) for name in names),
    )  # fmt: skip


_WATCHERS = frozenset(
    "auditd osqueryd falco tetragon tracee sysmon bpftrace execsnoop execsnoop-bpfcc execsnoop.bt "
    "forkstat atopacctd falcon-sensor wazuh-modulesd".split()
)


def _watchers(root: Path) -> Seen:
    """Programs that record which programs start, as far as a name tells."""
    names = set()
    if not (root / "proc/1").exists():
        return needs_root("the list of processes")  # which is hidden from us
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
            f"Stop it (sudo systemctl disable --now {running[0]}), or leave out uids {WEB_UID} "
            f"to {LAST_UID}.",
        )  # fmt: skip
    return good("no program that is known to record others")


def _audit_rules(root: Path) -> Seen:
    files = [root / "etc/audit/audit.rules", *children_of(root, "etc/audit/rules.d")]
    watching = [
        line.strip()
        for file in files
        if file.suffix == ".rules"
        for line in (text_of(file.parent, file.name) or "").splitlines()
        if re.search(r"^\s*-[aA]\s.*-S\s*(\S*execve|all)", line) and "never" not in line
    ]
    if watching:
        return Seen(
            WARNING, f"audit rule: {watching[0]}",
            "The arguments of jobs' programs go to the audit log when these rules are loaded.",
            f"sudo auditctl -A exit,never -S all -F 'uid>={WEB_UID}' -F 'uid<={LAST_UID}', and "
            "that line (without sudo auditctl) as the first in /etc/audit/rules.d/00-sandrun.rules",
        )  # fmt: skip
    return good("no audit rule about programs that start")


def _accounting(root: Path) -> Seen:
    """The kernel does not tell whether it is on; a file that grew since the boot does."""
    booted = re.search(r"^btime (\d+)", text_of(root, "proc/stat") or "", re.MULTILINE)
    for path in ("var/log/account/pacct", "var/account/pacct"):
        file = root / path
        if file.exists() and booted and file.stat().st_mtime >= int(booted[1]):
            return Seen(
                WARNING, f"/{path} was written since the boot",
                "Process accounting keeps the name of every program of every job.",
                f"sudo accton off && sudo rm /{path}",
            )  # fmt: skip
    return good("no process accounting")


def _tracing(root: Path) -> Seen:
    for folder in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
        tracer = text_of(root, f"{folder}/current_tracer")
        if tracer is None:
            continue
        events = text_of(root, f"{folder}/events/enable")
        if tracer != "nop" or events not in (None, "0"):
            return Seen(
                WARNING, f"tracer {tracer}, events {events}",
                "The kernel may keep what jobs do in its trace buffer.",
                f"echo nop | sudo tee /{folder}/current_tracer; "
                f"echo 0 | sudo tee /{folder}/events/enable",
            )  # fmt: skip
        return good("the kernel traces nothing")
    return good("no tracefs is mounted")


CHECKS = (
    Check(112, "core dumps", _core_dumps),
    Check(113, "crash log", _crash_log),
    Check(114, "watchers", _watchers),
    Check(115, "audit rules", _audit_rules),
    Check(116, "accounting", _accounting),
    Check(117, "tracing", _tracing),
)
