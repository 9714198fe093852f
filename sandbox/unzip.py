"""Unzip (inside): the members of a zip, in the order of its table.

The table at the end of the file (the central directory) says what is in it, here as for other
readers. Our own reader: the one of the standard library makes objects of a million entries before
one could count them, and looks away where members overlap or names hold a NUL.
"""

import codecs
import contextlib
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from sandbox.errors import BundleRefused
from sandbox.members import (
    CHUNK,
    MAX_MEMBERS,
    Entry,
    Head,
    Places,
    a_link,
    neither_file_nor_folder,
    shown,
    slices,
    too_large,
    too_many,
)

_ZIP_FILE, _ZIP_ROW, _ZIP_END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_ZIP64_END, _ZIP64_PLACE = b"PK\6\6", b"PK\6\7"
BEGINNINGS = (_ZIP_FILE, _ZIP_END)  # the latter of an empty one
_FILE = struct.Struct("<4s2xHH4x12xHH")  # flags, method, name and extra length
_ROW = struct.Struct("<4sxB2xHHHHLLLHHHH2xLL")
_END = struct.Struct("<4sHHHHLLH")
_END64 = struct.Struct("<4sQ4xLLQQQQ")
_PLACE64 = struct.Struct("<4sLQL")
_MAX_TABLE = 16 << 20  # bytes: more than MAX_MEMBERS with long names and extra fields need
_ALL16, _ALL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_STORED, _DEFLATED = 0, 8
_DOS, _UNIX = 0, (3, 19)  # makers; the last is macOS
_CP437 = codecs.lookup("cp437")  # now: behind the walls its table may be out of reach
_PACKED_CHUNK = 1 << 16  # zlib copies what it could not take yet, again and again


class _Table(NamedTuple):
    """Where the central directory lies, and how many rows it has."""

    rows: int
    size: int
    offset: int


class _Row(NamedTuple):
    """One member as the central directory has it."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int  # bytes in the archive
    size: int  # bytes when unpacked
    offset: int  # of the header in front of the bytes
    mtime: int
    mode: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/") or stat.S_ISDIR(self.mode)


def entries(archive: int, disk_bytes: int) -> Iterator[Entry]:
    """Every file and folder, all checked before the first; each content only when it is read."""
    table = _table(archive)
    places, total = Places(), 0
    rows: list[_Row] = []
    heads: list[Head] = []
    for row in _rows(os.pread(archive, table.size, table.offset), table.rows):
        _refuse_odd(row)
        path = places.take(row.name, row.is_folder)
        total += row.size
        if total > disk_bytes:
            raise too_large(disk_bytes)
        mode = 0o755 if row.mode & 0o100 else 0o644
        rows.append(row)
        heads.append((path, row.size, row.mtime * 1_000_000_000, mode))
    starts = _starts(archive, rows, table.offset)
    for row, head, start in zip(rows, heads, starts, strict=True):
        yield head, None if row.is_folder else _content(archive, row, start)


def _table(archive: int) -> _Table:
    """From the record that ends the file, behind which a comment of 64 KiB may stand."""
    length = os.fstat(archive).st_size
    tail_at = max(0, length - _END.size - _ALL16)
    tail = os.pread(archive, length - tail_at, tail_at)
    last = len(tail.rstrip(b"\0"))  # bsdtar fills what it writes to a pipe up with zeros
    at = len(tail)
    while (at := tail.rfind(_ZIP_END, 0, at)) >= 0:
        # The comment ends the file, or this is no such record but a part of the comment.
        after = at + _END.size
        if after <= len(tail) and last <= after + _END.unpack_from(tail, at)[-1] <= len(tail):
            break
    else:
        raise BundleRefused("The zip archive is cut off, or something follows it.")
    _, disk, first, here, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if count == _ALL16 or size == _ALL32 or offset == _ALL32:
        disk, first, here, count, size, offset, end = _table64(archive, end)
    if disk or first or here != count:
        raise BundleRefused("The zip archive is one of several parts.")
    if count > MAX_MEMBERS:
        raise too_many()
    if size > _MAX_TABLE:
        raise BundleRefused("The table of contents of the zip archive is too long.")
    if offset + size != end:  # else readers differ in where they look for it
        raise _damaged()
    return _Table(count, size, offset)


def _table64(archive: int, end: int) -> tuple[int, int, int, int, int, int, int]:
    """The same fields from the larger record, which stands before the usual one."""
    place_at = max(0, end - _PLACE64.size)
    magic, disk, at, _ = _PLACE64.unpack(os.pread(archive, _PLACE64.size, place_at))
    if magic != _ZIP64_PLACE or disk or at + _END64.size > place_at:
        raise _damaged()
    magic, length, *fields = _END64.unpack(os.pread(archive, _END64.size, at))
    if magic != _ZIP64_END or at + 12 + length != place_at:
        raise _damaged()
    disk, first, here, count, size, offset = fields
    return disk, first, here, count, size, offset, at


def _rows(table: bytes, count: int) -> Iterator[_Row]:
    at = 0
    for _ in range(count):
        (
            magic, maker, flags, method, clock, date, crc, packed, size,
            name_length, extra_length, comment_length, disk, attributes, offset,
        ) = _ROW.unpack_from(table, at)  # fmt: skip
        name_end = at + _ROW.size + name_length
        extra_end = name_end + extra_length
        if magic != _ZIP_ROW or extra_end + comment_length > len(table):
            raise _damaged()
        raw_name = table[at + _ROW.size : name_end]
        size, packed, offset, disk = _values64(
            table[name_end:extra_end], size, packed, offset, disk
        )
        if disk:
            raise BundleRefused("The zip archive is one of several parts.")
        name = _name(raw_name, bool(flags & _UTF8), maker)
        yield _Row(
            raw_name, name, flags, method, crc, packed, size, offset,
            _unix_time(date, clock), attributes >> 16,
        )  # fmt: skip
        at = extra_end + comment_length
    if at != len(table):
        raise _damaged()


def _values64(
    extra: bytes, size: int, packed: int, offset: int, disk: int
) -> tuple[int, int, int, int]:
    """Those that are too large for their fields stand in the extra field 1, in this order."""
    if _ALL32 not in (size, packed, offset) and disk != _ALL16:
        return size, packed, offset, disk
    at = 0
    while True:
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            break
        at += 4 + length
    field, at = extra[at + 4 : at + 4 + length], 0
    values = []
    for value in (size, packed, offset):
        if value == _ALL32:
            (value,) = struct.unpack_from("<Q", field, at)
            at += 8
        values.append(value)
    if disk == _ALL16:
        (disk,) = struct.unpack_from("<L", field, at)
    return values[0], values[1], values[2], disk


def _name(raw: bytes, is_utf8: bool, maker: int) -> str:
    r"""Decoded, and with / where Windows PowerShell 5 and old .NET write \ (unzip's rule too)."""
    name = _decoded(raw, is_utf8, maker)
    return name.replace("\\", "/") if maker == _DOS and "/" not in name else name


def _decoded(raw: bytes, is_utf8: bool, maker: int) -> str:
    """By the flag UTF-8, else cp437; but zip and macOS write UTF-8 and forget the flag."""
    if is_utf8:
        return raw.decode(errors="surrogateescape")
    if maker in _UNIX:
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode()
    return _CP437.decode(raw)[0]


_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)  # the month


def _unix_time(date: int, clock: int) -> int:
    """Seconds since 1970 of a DOS date, which knows no time zone: as if in UTC."""
    year = 1980 + (date >> 9)
    month = min(max(date >> 5 & 15, 1), 12)
    days = (year - 1970) * 365 + (year - 1969) // 4 + _DAYS_BEFORE[month - 1]
    days += (month > 2 and year % 4 == 0 and year != 2100) - (year > 2100) + max(date & 31, 1) - 1
    return days * 86400 + (clock >> 11) * 3600 + (clock >> 5 & 63) * 60 + (clock & 31) * 2


def _refuse_odd(row: _Row) -> None:
    """Only files and folders, and packed in a way that everybody can read."""
    kind = stat.S_IFMT(row.mode)
    if kind == stat.S_IFLNK:
        raise a_link(row.name, "zip without --symlinks")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (row.is_folder and row.size):
        raise neither_file_nor_folder(row.name)
    if row.flags & _ENCRYPTED:
        raise BundleRefused(f"{shown(row.name)} is encrypted; pack it without a password.")
    if row.method not in (_STORED, _DEFLATED):
        raise BundleRefused(
            f"{shown(row.name)} is compressed by method {row.method}; only deflate can be read."
        )


def _starts(archive: int, rows: list[_Row], limit: int) -> list[int]:
    """Where the bytes of each member begin. Each has its own: two that share some make a bomb."""
    starts, spans = [], []
    for row in rows:
        if row.offset + _FILE.size > limit:
            raise _damaged()
        head = os.pread(archive, _FILE.size + len(row.raw_name), row.offset)
        magic, flags, method, name_length, extra_length = _FILE.unpack_from(head)
        if magic != _ZIP_FILE or name_length != len(row.raw_name):
            raise _damaged()
        if head[_FILE.size :] != row.raw_name or method != row.method or flags & _ENCRYPTED:
            raise BundleRefused(f"The zip archive says two things about {shown(row.name)}.")
        starts.append(row.offset + len(head) + extra_length)
        spans.append((row.offset, starts[-1] + row.packed))
    free = 0
    for start, end in sorted(spans):
        if start < free or end > limit:
            raise BundleRefused("Members of the zip archive overlap.")
        free = end
    return starts


def _content(archive: int, row: _Row, start: int) -> Iterator[bytes]:
    packed = slices(archive, start, row.packed, _PACKED_CHUNK)
    crc, left = 0, row.size
    for chunk in packed if row.method == _STORED else _inflated(packed, row):
        left -= len(chunk)
        if left < 0:
            break
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if left or crc != row.crc:
        raise _damaged_member(row)


def _inflated(packed: Iterator[bytes], row: _Row) -> Iterator[bytes]:
    """In pieces of bounded size, whatever the packed bytes say."""
    try:
        yield from _pieces(packed, row)
    except zlib.error as error:
        raise _damaged_member(row) from error


def _pieces(packed: Iterator[bytes], row: _Row) -> Iterator[bytes]:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in packed:
        while piece:
            yield stream.decompress(piece, CHUNK)
            piece = stream.unconsumed_tail
            if stream.unused_data:
                raise _damaged_member(row)
    while not stream.eof and (rest := stream.decompress(b"", CHUNK)):
        yield rest
    if not stream.eof:
        raise _damaged_member(row)


def _damaged() -> BundleRefused:
    return BundleRefused("The zip archive is damaged.")


def _damaged_member(row: _Row) -> BundleRefused:
    return BundleRefused(f"{shown(row.name)} in the zip archive is damaged.")
