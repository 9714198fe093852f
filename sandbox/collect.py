"""Collect (inside): the files that a dead job left, into an immutable store.

Runs in a fresh sandbox with the job's uid and one descriptor of its work directory. Everything
below it is hostile: no link is followed, nothing but regular files is opened, and count, bytes,
depth and time are capped. What was hashed is what was copied is what will be served.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from sandbox import channel
from sandbox.globs import matcher

MAX_FILES = 10_000
MAX_VISITED = 100_000
MAX_DEPTH = 64
MAX_LISTING = 15 << 20  # bytes of JSON: what web takes, with something to spare
SECONDS = 10.0
_CHUNK = 1 << 20
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/"


class _Capped(Exception):
    """A cap is reached: what was collected so far stands, and the rest is left out."""


def collect(folder: int, store: int, orders: dict[str, Any]) -> dict[str, Any]:
    """{"files": [[path, offset, size, sha256, mode]...], "truncated": bool}; seals `store`."""
    wanted = matcher(orders["patterns"]) if orders["patterns"] else None
    inputs = {path: (size, mtime_ns) for path, size, mtime_ns, *_ in orders["members"]}
    files: list[list[Any]] = []
    too_deep: list[str] = []
    left, listing, truncated = orders["max_bytes"], 0, False
    try:
        for path, status, parent, name in _walk(folder, too_deep):
            if wanted is None:
                if inputs.get(path) == (status.st_size, status.st_mtime_ns):
                    continue  # as it was uploaded
            elif not wanted(path):
                continue
            # A name is said in JSON here, in %XX where it is signed; beside it are less than 200.
            listing += max(len(json.dumps(path)), _encoded_size(os.fsencode(path))) + 200
            if len(files) == MAX_FILES or status.st_size > left or listing > MAX_LISTING:
                raise _Capped
            entry = _copy(path, parent, name, store)
            if entry is not None:
                files.append(entry)
                left -= entry[2]
    except _Capped:
        truncated = True
    channel.seal(store)
    return {"files": files, "truncated": truncated or bool(too_deep)}


def _encoded_size(name: bytes) -> int:
    """Letters of the name as in a URL: three for each byte that could mean something there."""
    return len(name) + 2 * len(name.translate(None, _PLAIN))


def _walk(top: int, too_deep: list[str]) -> Iterator[tuple[str, os.stat_result, int, str]]:
    """Regular files in a stable order: path, stat, the open parent and the name in it.

    A folder that lies too deep is left out, and named in `too_deep`; the others are not.
    """
    deadline = time.monotonic() + SECONDS
    visited = 0

    def below(
        folder: int, prefix: str, depth: int
    ) -> Iterator[tuple[str, os.stat_result, int, str]]:
        nonlocal visited
        names = []
        os.fchmod(folder, 0o700)  # its owner, who is us now, may have locked itself out
        with os.scandir(folder) as entries:
            for entry in entries:
                visited += 1
                if visited > MAX_VISITED or time.monotonic() > deadline:
                    raise _Capped
                names.append(entry.name)
        for name in sorted(names):
            if time.monotonic() > deadline:
                raise _Capped
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield prefix + name, status, folder, name
            elif stat.S_ISDIR(status.st_mode):
                if depth == MAX_DEPTH:
                    too_deep.append(name)
                    continue
                child = _open(name, folder, os.O_DIRECTORY, status.st_mode)
                try:
                    yield from below(child, f"{prefix}{name}/", depth + 1)
                finally:
                    os.close(child)

    return below(top, "", 0)


def _open(name: str, folder: int, flags: int, mode: int) -> int:
    """Open without following, waiting or changing. The owner may have locked itself out: mode."""
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        # Nobody is left to put a link here: the job is dead, and this is no link.
        os.chmod(name, stat.S_IMODE(mode) | 0o700, dir_fd=folder)
        return os.open(name, flags, dir_fd=folder)


def _copy(path: str, folder: int, name: str, store: int) -> list[Any] | None:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    fd = _open(name, folder, 0, status.st_mode)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        offset = os.lseek(store, 0, os.SEEK_CUR)
        digest, size = hashlib.sha256(), 0
        while chunk := os.read(fd, _CHUNK):
            digest.update(chunk)
            size += len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(store, view) :]
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        return [path, offset, size, digest.hexdigest(), mode]
    finally:
        os.close(fd)
