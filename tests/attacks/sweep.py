"""Where a canary could have gone: files of real file systems that were changed meanwhile, the
kernel's log, the journal (HI5, DP-01)."""

import mmap
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_VIRTUAL = {"proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue"}


@contextmanager
def traces(word: str) -> Iterator[list[str]]:
    """A list that is filled, when the block ends, with every place that holds `word`."""
    started = time.time() - 1
    found: list[str] = []
    yield found
    found += _in_files(word.encode(), started)
    for argv in (["dmesg"], ["journalctl", "--no-pager", "--since", f"@{int(started)}"]):
        with suppress(FileNotFoundError):
            said = subprocess.run(argv, capture_output=True, check=False).stdout
            found += [f"{argv[0]}: {line!r}" for line in said.splitlines() if word.encode() in line]


def _in_files(word: bytes, since: float) -> Iterator[str]:
    for mount in _real_mounts():
        for folder, folders, names in os.walk(mount):
            folders[:] = [name for name in folders if not os.path.ismount(f"{folder}/{name}")]
            for path in (f"{folder}/{name}" for name in names):
                with suppress(OSError, ValueError):
                    if word in path.encode(errors="surrogateescape"):
                        yield path
                    if os.lstat(path).st_ctime >= since and _holds(path, word):
                        yield path


def _real_mounts() -> list[str]:
    """Mount points of file systems that outlive a power cut and that somebody can write to, each
    file system once."""
    mounts: dict[str, str] = {}
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            kind, *_, options = rest.split()  # of the file system, not of this mount of it
            if kind not in _VIRTUAL and "ro" not in options.split(","):
                point = fields.split()[4].encode().decode("unicode_escape")
                if os.path.isdir(point):
                    mounts.setdefault(fields.split()[2], point)
    return list(mounts.values())


def _holds(path: str, word: bytes) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as content:
            return re.search(re.escape(word), content) is not None
    finally:
        os.close(fd)
