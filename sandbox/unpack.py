"""Unpack (inside): what an uploaded archive holds, and its files into the work directory.

Runs behind all walls: `inspect` in a sandbox of its own, `unpack` in the job's. The bytes are
hostile; every refusal is one sentence for the person who sent them (BundleRefused).
"""

import contextlib
import gzip
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from sandbox.errors import BundleRefused
from sandbox.template import WORK

MAX_MEMBERS = 10_000
MAX_PATH_BYTES = 1024
MAX_DEPTH = 64
MAX_JOB_JSON = 64 * 1024
MAX_LISTING = 15 << 20  # bytes of JSON: what web takes, with something to spare
_CHUNK = 1 << 20
_OVERHEAD = 32 << 20  # headers and padding that a stream may hold beside the files' bytes
_LAST_TIME = 1 << 33  # seconds: a time stamp beyond is a mistake or an attack


@contextlib.contextmanager
def _damage_is_refused() -> Iterator[None]:
    """Around whoever reads members and their content: either meets the damage."""
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise BundleRefused(f"The archive cannot be read as tar or tar.gz: {error}.") from error
    except (ValueError, ArithmeticError, LookupError, RecursionError, UnicodeError) as error:
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
        _write(path, mtime_ns, mode, _slices(bundle, offset, size))
        offset += size


def _slices(fd: int, offset: int, size: int) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        chunk = os.pread(fd, min(_CHUNK, end - offset), offset)
        if not chunk:
            raise BundleRefused("The upload is shorter than it says.")
        offset += len(chunk)
        yield chunk


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


class _StrictInfo(tarfile.TarInfo):
    """A damaged header in the middle is an error; tarfile alone would call it the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictInfo":
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise BundleRefused(f"The archive is damaged: {error}.") from error


class _Capped:
    """A stream that refuses to be longer than it may: the answer to every decompression bomb."""

    def __init__(self, stream: gzip.GzipFile | IO[bytes], cap: int) -> None:
        self._stream = stream
        self._left = cap

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise BundleRefused("The archive unpacks to more than a job may store.")
        return chunk


_Head = tuple[str, int, int, int]  # path, size, mtime_ns, mode
_Entry = tuple[_Head, Iterator[bytes] | None]  # None: a folder


def _entries(archive: int, disk_bytes: int) -> Iterator[_Entry]:
    """Every file and folder in its order, checked; content must be read before the next."""
    with os.fdopen(os.dup(archive), "rb") as raw:
        raw.seek(0)
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = _Capped(gzip.GzipFile(fileobj=raw) if packed else raw, disk_bytes + _OVERHEAD)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as tar:  # type: ignore[call-overload]
            yield from _walk(tar, disk_bytes)
        while stream.read(_CHUNK):  # to the end: a wrong checksum shows only there
            pass


def _walk(tar: tarfile.TarFile, disk_bytes: int) -> Iterator[_Entry]:
    files: set[str] = set()
    folders: set[str] = {""}
    count = total = 0
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # or tarfile remembers every header
        count += 1
        if count > MAX_MEMBERS:
            raise BundleRefused(f"The archive has more than {MAX_MEMBERS} members.")
        path = clean_path(info.name)
        _place(path, info, files, folders)
        if info.isdir():
            yield (path, 0, 0, 0o755), None
            continue
        total += info.size
        if total > disk_bytes:
            raise BundleRefused(f"The archive unpacks to more than {disk_bytes >> 20} MB.")
        mtime = min(max(int(info.mtime), 0), _LAST_TIME)
        mode = 0o755 if info.mode & 0o100 else 0o644
        yield (path, info.size, mtime * 1_000_000_000, mode), _content(tar, info)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info)
    assert file is not None
    left = info.size
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise BundleRefused(f"The archive ends in the middle of {shown(info.name)}.")
        left -= len(chunk)
        yield chunk


def _place(path: str, info: tarfile.TarInfo, files: set[str], folders: set[str]) -> None:
    """Refuse what is no file or folder, and two members that want the same place."""
    name = shown(info.name)
    if info.issym() or info.islnk():
        raise BundleRefused(f"{name} is a link; pack what it points to (tar --dereference).")
    # The holes of a sparse file never pass through the capped stream.
    regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    if not (info.isdir() or regular):
        raise BundleRefused(f"{name} is neither a file nor a folder.")
    if info.isdir():
        if path in files:
            raise BundleRefused(f"{name} is in the archive twice, as a file and as a folder.")
        parents = path
    else:
        if not path:
            raise BundleRefused(f"{name} is no name for a file.")
        if path in files or path in folders:
            raise BundleRefused(f"{name} is in the archive twice.")
        files.add(path)
        parents = path.rpartition("/")[0]
    while parents not in folders:
        if parents in files:
            raise BundleRefused(f"{name} lies below a file of the archive.")
        folders.add(parents)
        parents = parents.rpartition("/")[0]


def clean_path(name: str) -> str:
    """The member's path without './' and doubled slashes; '' for the root itself.

    Raises BundleRefused for every way to leave the work directory or to name nothing.
    """
    if len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise BundleRefused(f"A path is longer than {MAX_PATH_BYTES} bytes.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = parts and parts[0][1:2] == ":"
    if name.startswith("/") or "\\" in name or "\0" in name or drive:
        raise BundleRefused(f"{shown(name)} is not a relative path.")
    if ".." in parts:
        raise BundleRefused(f"{shown(name)} leads out of the work directory.")
    if len(parts) > MAX_DEPTH:
        raise BundleRefused(f"{shown(name)} lies more than {MAX_DEPTH} folders deep.")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise BundleRefused("A name is longer than 255 bytes.")
    return "/".join(parts)


def shown(name: str) -> str:
    """A hostile name in a sentence: quoted, escaped, short."""
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."
