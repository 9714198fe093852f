"""People: what others on this machine, jobs among them, can see of a running job."""

import re
from pathlib import Path

from sandbox.doctor.files import children_of, mounts, number_of, text_of
from sandbox.doctor.words import WARNING, Check, Seen, good, sysctl


def _kernel_log(root: Path) -> Seen:
    if number_of(root, "proc/sys/kernel/dmesg_restrict") == 0:
        return Seen(
            WARNING, "dmesg_restrict is 0",
            "Everybody with an account here can read the kernel's log, and what it tells about "
            "jobs that were killed or crashed. (Jobs cannot.)",
            sysctl("kernel.dmesg_restrict", 1),
        )  # fmt: skip
    return good("only root reads the kernel's log")


def _process_list(root: Path) -> Seen:
    options = [option for mount in mounts(root) if mount.point == "/proc"
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
    return good(hidden[-1])


def _profiling(root: Path) -> Seen:
    level = number_of(root, "proc/sys/kernel/perf_event_paranoid")
    if level is not None and level < 1:
        return Seen(
            WARNING, f"perf_event_paranoid is {level}",
            "Everybody with an account here can profile whole cores, and so the jobs on them. "
            "(Jobs cannot.)", sysctl("kernel.perf_event_paranoid", 2),
        )  # fmt: skip
    return good("nobody without root profiles others")


def _hyperthreads(root: Path) -> Seen:
    if text_of(root, "sys/devices/system/cpu/smt/active") == "1":
        return Seen(
            WARNING, "on",
            "Two jobs may share a core at the same time, which is how most side channels between "
            "them are made. Secrecy of what jobs compute from each other is not promised.",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control, and boot with nosmt",
        )  # fmt: skip
    return good("off")


def _cpu_bugs(root: Path) -> Seen:
    bugs = [
        file.name
        for file in children_of(root, "sys/devices/system/cpu/vulnerabilities")
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
    return good("the kernel covers all that it knows")


CHECKS = (
    Check(118, "kernel log", _kernel_log),
    Check(119, "process list", _process_list),
    Check(120, "profiling", _profiling),
    Check(121, "hyperthreads", _hyperthreads),
    Check(122, "processor bugs", _cpu_bugs),
)
