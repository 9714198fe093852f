"""Bugs: known holes of the kernel that a job could reach, and what stands before each."""

from pathlib import Path
from typing import NamedTuple

from sandbox.doctor.files import Version, version_of
from sandbox.doctor.kernel import upstream_version
from sandbox.doctor.words import WARNING, Check, Seen, good


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
    return any(version_of(first) <= kernel < version_of(fixed) for first, fixed in ranges)


def _kernel_bugs(root: Path) -> Seen:
    kernel = upstream_version(root)
    bugs = [bug for bug in BUGS if _has(bug, kernel)]
    version = ".".join(map(str, kernel))
    if not bugs:
        return good(f"none of {len(BUGS)} known holes is in Linux {version}")
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


CHECKS = (Check(102, "kernel bugs", _kernel_bugs),)
