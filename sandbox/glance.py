"""Glance (runs INSIDE): which files a running job seems to have made, for whoever watches it.

Pid 1 looks when web asks, and only then. It is advice and no result: the job goes on meanwhile, and
may have pid 1 believe anything about its own files. What comes out is what collect finds after the
end. Everything that one look takes is bounded, since it is the job's time and memory: names, bytes
of them, entries, depth and CPU time.
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sandbox.globs import matcher

FILES: Final = 200
BYTES: Final = 16 * 1024  # of their paths, as JSON
ENTRIES: Final = 10_000
DEPTH: Final = 16
CPU_SECONDS: Final = 0.02

_COARSE = 10_000_000  # nanoseconds: the clock of files is at most so much behind ours

_Found = tuple[str, os.stat_result]


class _Spent(Exception):
    """As much as one look may take."""


def glance(patterns: Sequence[str], began_ns: int) -> dict[str, Any]:
    """{"files": [[path, size]...], "more": how many others were seen}: regular files below our
    working directory that `patterns` ask for; without them, those that are new or changed since
    `began_ns`.
    """
    wanted = matcher(patterns) if patterns else None
    files: list[tuple[str, int]] = []
    more, room = 0, BYTES
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, status in _walk(top, "", DEPTH, _spending()):
            if not (wanted(path) if wanted else _is_new(status, began_ns)):
                continue
            size = len(json.dumps(path))
            if len(files) == FILES or size > room:
                more += 1
            else:
                room -= size
                files.append((path, status.st_size))
    except (_Spent, OSError):
        pass  # what was seen until now is what there is to tell
    finally:
        os.close(top)
    return {"files": sorted(files), "more": more}


def _is_new(status: os.stat_result, began_ns: int) -> bool:
    """An upload is unpacked before the program begins, with times of its own."""
    return status.st_ctime_ns > began_ns or status.st_mtime_ns > began_ns - _COARSE


def _spending() -> Iterator[bool]:
    """True for each entry that may be looked at."""
    end = time.thread_time() + CPU_SECONDS
    for _ in range(ENTRIES):
        if time.thread_time() > end:
            return
        yield True


def _walk(folder: int, prefix: str, depth: int, spending: Iterator[bool]) -> Iterator[_Found]:
    """Regular files, those of a folder before what lies deeper. No link is followed; what the job
    takes away meanwhile is not there.
    """
    deeper = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not next(spending, False):
                raise _Spent
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield prefix + entry.name, status
                elif stat.S_ISDIR(status.st_mode) and depth:
                    deeper.append(entry.name)
    for name in deeper:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            child = os.open(name, flags, dir_fd=folder)
            try:
                yield from _walk(child, f"{prefix}{name}/", depth - 1, spending)
            finally:
                os.close(child)
