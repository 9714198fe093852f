"""Unpack (inside): what an uploaded archive holds, and its files into the work directory.

Runs behind all walls: `inspect` in a sandbox of its own, `unpack` in the job's. The bytes are
hostile; every refusal is one sentence for the person who sent them (BundleRefused). The first
bytes say whether it is a zip or a tar, and both readers go the same way: what was checked is used.
"""

import contextlib
import gzip
import hashlib
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

from sandbox import untar, unzip
from sandbox.errors import BundleRefused
from sandbox.members import Entry, slices
from sandbox.template import WORK

MAX_JOB_JSON = 256 * 1024
MAX_LISTING = 15 << 20  # bytes of JSON: what web takes, with something to spare


@contextlib.contextmanager
def _damage_is_refused() -> Iterator[None]:
    """Around whoever reads members and their content: either meets the damage."""
    try:
        yield
    except EOFError as error:
        raise BundleRefused("The archive ends too early; it was cut off.") from error
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        # Without their words, which are for programmers.
        raise BundleRefused("The archive cannot be read as zip, tar or tar.gz.") from error
    except (ValueError, ArithmeticError, LookupError, RecursionError, struct.error) as error:
        # What parsers let slip on hostile headers. The bytes are at fault, not we.
        raise BundleRefused("The archive is damaged.") from error


@_damage_is_refused()
def inspect(archive: int, disk_bytes: int) -> dict[str, Any]:
    """{"members": [[path, size, mtime_ns, mode, sha256]...], "job_json": text or None}.

    Raises BundleRefused.
    """
    members, job_json, listing = [], None, 0
    for (path, size, mtime_ns, mode), content in _entries(archive, disk_bytes):
        if content is None:
            continue
        digest = hashlib.sha256()
        kept = bytearray()
        for chunk in content:
            digest.update(chunk)
            if path == "job.json" and len(kept) <= MAX_JOB_JSON:
                kept += chunk
        members.append([path, size, mtime_ns, mode, digest.hexdigest()])
        listing += len(json.dumps(members[-1])) + 2
        if listing > MAX_LISTING:
            raise BundleRefused("The names in the archive are too long together.")
        if path == "job.json":
            if size > MAX_JOB_JSON:
                raise BundleRefused(f"job.json has {size} bytes; {MAX_JOB_JSON} are allowed.")
            job_json = kept.decode("latin-1")
    if not members:
        raise BundleRefused("The archive holds no files.")
    return {"members": members, "job_json": job_json}


def unpack(form: str, bundle: int, members: list[list[Any]]) -> None:
    """Write the members below the work directory. Raises BundleRefused when they do not fit."""
    try:
        if form == "loose":
            _unpack_loose(bundle, members)
        else:
            with _damage_is_refused():
                for (path, _, mtime_ns, mode), content in _entries(bundle, 1 << 40):
                    if content is None:
                        os.makedirs(_place_of(path), exist_ok=True)
                    else:
                        _write(path, mtime_ns, mode, content)
    except OSError as error:
        raise BundleRefused(f"The files cannot be unpacked: {error.strerror}.") from error


def _unpack_loose(bundle: int, members: list[list[Any]]) -> None:
    offset = 0
    for path, size, mtime_ns, mode, _ in members:
        _write(path, mtime_ns, mode, slices(bundle, offset, size))
        offset += size


def _place_of(path: str) -> bytes:
    return os.path.join(os.fsencode(WORK), os.fsencode(path))


def _write(path: str, mtime_ns: int, mode: int, content: Iterator[bytes]) -> None:
    name = _place_of(path)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    # O_EXCL and O_NOFOLLOW: nothing is written through or over what an earlier member made.
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for chunk in content:
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)


def _entries(archive: int, disk_bytes: int) -> Iterator[Entry]:
    """Every file and folder in its order, checked; content must be read before the next."""
    if os.pread(archive, 4, 0) in unzip.BEGINNINGS:
        return unzip.entries(archive, disk_bytes)
    return untar.entries(archive, disk_bytes)
