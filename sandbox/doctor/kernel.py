"""Kernel: whether it has all that a sandbox is made of, and ids to give to jobs."""

import os
import re
from pathlib import Path

from sandbox.doctor.files import Version, number_of, text_of, version_of
from sandbox.doctor.words import (
    BAD,
    WARNING,
    Check,
    Seen,
    good,
    sysctl,
)
from sandbox.model import LAST_UID, SIGNER_UID

_LEAST_KERNEL = (5, 12)  # mount_setattr; clone3, fsopen and proc's subset=pid are older
_TRIED_KERNEL = (6, 1)


def upstream_version(root: Path) -> Version:
    """The upstream version. Debian's and Ubuntu's release names hide it: 6.1.0-37 is 6.1.140."""
    release = version_of(text_of(root, "proc/sys/kernel/osrelease") or "")
    debian = re.findall(r"Debian (\d[\d.]*)", text_of(root, "proc/sys/kernel/version") or "")
    ubuntu = (text_of(root, "proc/version_signature") or "").split()[2:3]
    told = [version_of(word) for word in (*debian, *ubuntu)]
    return max((version for version in told if version[:2] == release[:2]), default=release)


def _kernel(root: Path) -> Seen:
    version = upstream_version(root)
    found = f"Linux {text_of(root, 'proc/sys/kernel/osrelease')}"
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
    return good(found)


def _seccomp(root: Path) -> Seen:
    actions = (text_of(root, "proc/sys/kernel/seccomp/actions_avail") or "").split()
    if "errno" not in actions:
        return Seen(
            BAD, "this kernel has no seccomp filters", "No sandbox can be made.",
            "Boot a kernel with CONFIG_SECCOMP_FILTER=y.",
        )  # fmt: skip
    return good("the kernel has seccomp filters")


def _file_systems(root: Path) -> Seen:
    known = {line.split()[-1] for line in (text_of(root, "proc/filesystems") or "").splitlines()}
    missing = sorted({"tmpfs", "proc"} - known)
    if missing:
        return Seen(
            BAD, f"the kernel has no {' and no '.join(missing)}", "No sandbox can be made.",
            "Boot a kernel with CONFIG_TMPFS=y and CONFIG_PROC_FS=y.",
        )  # fmt: skip
    return good("tmpfs and proc")


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
    most = {name: number_of(root, f"proc/sys/user/max_{name}_namespaces") for name in _NAMESPACES}
    least, name = min((most[name], name) for name in _NAMESPACES if most[name] is not None)
    assert least is not None
    if least < 100:
        return Seen(
            BAD if least < 8 else WARNING, f"user.max_{name}_namespaces is {least}",
            "Every running job needs one of each kind, so jobs fail at the step \"clone\".",
            sysctl(f"user.max_{name}_namespaces", 10000),
        )  # fmt: skip
    return good(f"all {len(_NAMESPACES)} kinds{_gates(root)}")


def _gates(root: Path) -> str:
    shut = [
        f"{name} = {value}"
        for name, value in (("unprivileged_userns_clone", 0),
                            ("apparmor_restrict_unprivileged_userns", 1))
        if number_of(root, f"proc/sys/kernel/{name}") == value
    ]  # fmt: skip
    return f" ({', '.join(shut)} stops only people without root)" if shut else ""


def _own_ids(root: Path) -> Seen:
    """Jobs get uids that nobody else has; a container may have too few to give."""
    for kind in ("uid", "gid"):
        lines = (text_of(root, f"proc/self/{kind}_map") or "").splitlines()
        ranges = [tuple(map(int, line.split())) for line in lines]
        if not any(first <= SIGNER_UID and LAST_UID < first + n for first, _, n in ranges):
            return Seen(
                BAD, f"{kind}s up to {LAST_UID} are not ours to give: a container with an id map?",
                "Sandrun does not start: every running job gets an id of the machine.",
                "Start the container without --uidmap and --userns.",
            )  # fmt: skip
    for file in ("etc/subuid", "etc/subgid"):
        for line in (text_of(root, file) or "").splitlines():
            _, first, count = line.split(":")
            if int(first) <= LAST_UID and SIGNER_UID < int(first) + int(count):
                return Seen(
                    WARNING, f"/{file} gives away ids that jobs use: {line}",
                    "A container of that user could signal a job.",
                    f"Take {SIGNER_UID} to {LAST_UID} out of /{file}.",
                )  # fmt: skip
    return good(f"uids {SIGNER_UID} to {LAST_UID} are nobody else's")


CHECKS = (
    Check(101, "kernel", _kernel),
    Check(103, "seccomp", _seccomp),
    Check(104, "file systems", _file_systems),
    Check(105, "namespaces", _namespaces),
    Check(106, "job ids", _own_ids),
)
