"""Untar (inside): the members of a tar, packed with gzip or not, one after the other.

tarfile of the standard library reads the headers. What it would let pass is refused here: streams
without end, damage that it takes for the end, and all that is neither a file nor a folder.
"""

import gzip
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from sandbox.errors import BundleRefused
from sandbox.members import CHUNK, Entry, Places, a_link, neither_file_nor_folder, shown, too_large

_OVERHEAD = 32 << 20  # headers and padding that a stream may hold beside the files' bytes
# Headers that only describe the next one: tarfile holds each of them whole, and more than once.
_WORDS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
          tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # fmt: skip
_MAX_WORDS = 1 << 20  # bytes
_LAST_TIME = 1 << 33  # seconds: a time stamp beyond is a mistake or an attack


class _StrictInfo(tarfile.TarInfo):
    """A damaged header in the middle is an error; tarfile alone would call it the end."""

    @classmethod
    def frombuf(cls, *arguments: Any) -> "_StrictInfo":
        info = super().frombuf(*arguments)
        if info.type in _WORDS and info.size > _MAX_WORDS:
            raise BundleRefused(f"The archive has a header of more than {_MAX_WORDS >> 20} MB.")
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictInfo":
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            if tarfile_.offset == 0:
                raise  # not a tar at all: this much tarfile says itself
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


def entries(archive: int, disk_bytes: int) -> Iterator[Entry]:
    """Every file and folder, each checked as it is met; content must be read before the next."""
    with os.fdopen(os.dup(archive), "rb") as raw:
        raw.seek(0)
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = _Capped(gzip.GzipFile(fileobj=raw) if packed else raw, disk_bytes + _OVERHEAD)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as tar:  # type: ignore[call-overload]
            yield from _walk(tar, disk_bytes)
        while stream.read(CHUNK):  # to the end: a wrong checksum shows only there
            pass


def _walk(tar: tarfile.TarFile, disk_bytes: int) -> Iterator[Entry]:
    places, total = Places(), 0
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # or tarfile remembers every header
        _refuse_odd(info)
        path = places.take(info.name, info.isdir())
        if info.isdir():
            yield (path, 0, 0, 0o755), None
            continue
        total += info.size
        if total > disk_bytes:
            raise too_large(disk_bytes)
        mtime = min(max(int(info.mtime), 0), _LAST_TIME)
        mode = 0o755 if info.mode & 0o100 else 0o644
        yield (path, info.size, mtime * 1_000_000_000, mode), _content(tar, info)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info)
    assert file is not None
    left = info.size
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise BundleRefused(f"The archive ends in the middle of {shown(info.name)}.")
        left -= len(chunk)
        yield chunk


def _refuse_odd(info: tarfile.TarInfo) -> None:
    """Only files and folders."""
    if info.issym() or info.islnk():
        raise a_link(info.name, "tar --dereference")
    # The holes of a sparse file never pass through the capped stream.
    regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    if not (info.isdir() or regular):
        raise neither_file_nor_folder(info.name)
