"""Unpack (inside): what an uploaded archive holds, and its files into the work directory.

Runs behind all walls: `inspect` in a sandbox of its own, `unpack` in the job's. The bytes are
hostile; every refusal is one sentence for the person who sent them (BundleRefused). The first
bytes say whether it is a zip or a tar, and both readers go the same way: what was checked is used.
"""

import codecs
import contextlib
import gzip
import hashlib
import json
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

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
        why = f"The archive cannot be read as zip, tar or tar.gz: {error}."
        raise BundleRefused(why) from error
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
        _write(path, mtime_ns, mode, _slices(bundle, offset, size))
        offset += size


def _slices(fd: int, offset: int, size: int, piece: int = _CHUNK) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        chunk = os.pread(fd, min(piece, end - offset), offset)
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


_Head = tuple[str, int, int, int]  # path, size, mtime_ns, mode
_Entry = tuple[_Head, Iterator[bytes] | None]  # None: a folder


def _entries(archive: int, disk_bytes: int) -> Iterator[_Entry]:
    """Every file and folder in its order, checked; content must be read before the next."""
    zipped = os.pread(archive, 4, 0) in (_ZIP_FILE, _ZIP_END)
    return (_zip_entries if zipped else _tar_entries)(archive, disk_bytes)


class _Places:
    """What is taken so far, by as many members as are allowed."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._count = 0

    def take(self, name: str, folder: bool) -> str:
        """The clean path; refuses two members that want the same place."""
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise BundleRefused(_TOO_MANY)
        path = clean_path(name)
        if folder:
            if path in self._files:
                raise BundleRefused(
                    f"{shown(name)} is in the archive twice, as a file and as a folder."
                )
            self._take_folders(name, path)
            return path
        if not path:
            raise BundleRefused(f"{shown(name)} is no name for a file.")
        if path in self._files or path in self._folders:
            raise BundleRefused(f"{shown(name)} is in the archive twice.")
        self._files.add(path)
        self._take_folders(name, path.rpartition("/")[0])
        return path

    def _take_folders(self, name: str, path: str) -> None:
        while path not in self._folders:
            if path in self._files:
                raise BundleRefused(f"{shown(name)} lies below a file of the archive.")
            self._folders.add(path)
            path = path.rpartition("/")[0]


_TOO_MANY = f"The archive has more than {MAX_MEMBERS} members."


def _too_large(disk_bytes: int) -> BundleRefused:
    return BundleRefused(f"The archive unpacks to more than {disk_bytes >> 20} MB.")


# --- tar -------------------------------------------------------------------------------------


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


def _tar_entries(archive: int, disk_bytes: int) -> Iterator[_Entry]:
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
    places, total = _Places(), 0
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # or tarfile remembers every header
        _refuse_odd(info)
        path = places.take(info.name, info.isdir())
        if info.isdir():
            yield (path, 0, 0, 0o755), None
            continue
        total += info.size
        if total > disk_bytes:
            raise _too_large(disk_bytes)
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


def _refuse_odd(info: tarfile.TarInfo) -> None:
    """Only files and folders."""
    if info.issym() or info.islnk():
        raise _link(info.name, "tar --dereference")
    # The holes of a sparse file never pass through the capped stream.
    regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    if not (info.isdir() or regular):
        raise _odd(info.name)


# --- zip -------------------------------------------------------------------------------------
#
# The table at the end of the file (the central directory) says what is in it, here as for other
# readers. Our own reader: the one of the standard library makes objects of a million entries before
# one could count them, and looks away where members overlap or names hold a NUL.

_ZIP_FILE, _ZIP_ROW, _ZIP_END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_ZIP64_END, _ZIP64_PLACE = b"PK\6\6", b"PK\6\7"
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
_UNIX = (3, 19)  # makers: Unix, macOS
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


def _zip_entries(archive: int, disk_bytes: int) -> Iterator[_Entry]:
    table = _zip_table(archive)
    places, total = _Places(), 0
    rows: list[_Row] = []
    heads: list[_Head] = []
    for row in _zip_rows(os.pread(archive, table.size, table.offset), table.rows):
        _refuse_odd_row(row)
        path = places.take(row.name, row.is_folder)
        total += row.size
        if total > disk_bytes:
            raise _too_large(disk_bytes)
        mode = 0o755 if row.mode & 0o100 else 0o644
        rows.append(row)
        heads.append((path, row.size, row.mtime * 1_000_000_000, mode))
    starts = _zip_starts(archive, rows, table.offset)
    for row, head, start in zip(rows, heads, starts, strict=True):
        yield head, None if row.is_folder else _zip_content(archive, row, start)


def _zip_table(archive: int) -> _Table:
    """From the record that ends the file, behind which a comment of 64 KiB may stand."""
    length = os.fstat(archive).st_size
    tail_at = max(0, length - _END.size - _ALL16)
    tail = os.pread(archive, length - tail_at, tail_at)
    at = len(tail)
    while (at := tail.rfind(_ZIP_END, 0, at)) >= 0:
        # The comment ends the file, or this is no such record but a part of the comment.
        if at + _END.size <= len(tail) == at + _END.size + _END.unpack_from(tail, at)[-1]:
            break
    else:
        raise BundleRefused("The zip archive is cut off, or something follows it.")
    _, disk, first, here, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if count == _ALL16 or size == _ALL32 or offset == _ALL32:
        disk, first, here, count, size, offset, end = _zip64_table(archive, end)
    if disk or first or here != count:
        raise BundleRefused("The zip archive is one of several parts.")
    if count > MAX_MEMBERS:
        raise BundleRefused(_TOO_MANY)
    if size > _MAX_TABLE:
        raise BundleRefused("The table of contents of the zip archive is too long.")
    if offset + size > end:
        raise _damaged_zip()
    return _Table(count, size, offset)


def _zip64_table(archive: int, end: int) -> tuple[int, int, int, int, int, int, int]:
    """The same fields from the larger record, which stands before the usual one."""
    place_at = max(0, end - _PLACE64.size)
    magic, disk, at, _ = _PLACE64.unpack(os.pread(archive, _PLACE64.size, place_at))
    if magic != _ZIP64_PLACE or disk or at + _END64.size > place_at:
        raise _damaged_zip()
    magic, length, *fields = _END64.unpack(os.pread(archive, _END64.size, at))
    if magic != _ZIP64_END or at + 12 + length != place_at:
        raise _damaged_zip()
    disk, first, here, count, size, offset = fields
    return disk, first, here, count, size, offset, at


def _zip_rows(table: bytes, count: int) -> Iterator[_Row]:
    at = 0
    for _ in range(count):
        (
            magic, maker, flags, method, clock, date, crc, packed, size,
            name_length, extra_length, comment_length, disk, attributes, offset,
        ) = _ROW.unpack_from(table, at)  # fmt: skip
        name_end = at + _ROW.size + name_length
        extra_end = name_end + extra_length
        if magic != _ZIP_ROW or extra_end + comment_length > len(table):
            raise _damaged_zip()
        raw_name = table[at + _ROW.size : name_end]
        size, packed, offset, disk = _zip64_values(
            table[name_end:extra_end], size, packed, offset, disk
        )
        if disk:
            raise BundleRefused("The zip archive is one of several parts.")
        name = _zip_name(raw_name, bool(flags & _UTF8), maker)
        yield _Row(
            raw_name, name, flags, method, crc, packed, size, offset,
            _unix_time(date, clock), attributes >> 16,
        )  # fmt: skip
        at = extra_end + comment_length
    if at != len(table):
        raise _damaged_zip()


def _zip64_values(
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


def _zip_name(raw: bytes, is_utf8: bool, maker: int) -> str:
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


def _refuse_odd_row(row: _Row) -> None:
    """Only files and folders, and packed in a way that everybody can read."""
    kind = stat.S_IFMT(row.mode)
    if kind == stat.S_IFLNK:
        raise _link(row.name, "zip without --symlinks")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (row.is_folder and row.size):
        raise _odd(row.name)
    if row.flags & _ENCRYPTED:
        raise BundleRefused(f"{shown(row.name)} is encrypted; pack it without a password.")
    if row.method not in (_STORED, _DEFLATED):
        raise BundleRefused(
            f"{shown(row.name)} is compressed by method {row.method}; only deflate can be read."
        )


def _zip_starts(archive: int, rows: list[_Row], limit: int) -> list[int]:
    """Where the bytes of each member begin. Each has its own: two that share some make a bomb."""
    starts, spans = [], []
    for row in rows:
        if row.offset + _FILE.size > limit:
            raise _damaged_zip()
        head = os.pread(archive, _FILE.size + len(row.raw_name), row.offset)
        magic, flags, method, name_length, extra_length = _FILE.unpack_from(head)
        if magic != _ZIP_FILE or name_length != len(row.raw_name):
            raise _damaged_zip()
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


def _zip_content(archive: int, row: _Row, start: int) -> Iterator[bytes]:
    packed = _slices(archive, start, row.packed, _PACKED_CHUNK)
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
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in packed:
        while piece:
            yield stream.decompress(piece, _CHUNK)
            piece = stream.unconsumed_tail
            if stream.unused_data:
                raise _damaged_member(row)
    while not stream.eof and (rest := stream.decompress(b"", _CHUNK)):
        yield rest
    if not stream.eof:
        raise _damaged_member(row)


def _damaged_zip() -> BundleRefused:
    return BundleRefused("The zip archive is damaged.")


def _damaged_member(row: _Row) -> BundleRefused:
    return BundleRefused(f"{shown(row.name)} in the zip archive is damaged.")


# --- names -----------------------------------------------------------------------------------


def _link(name: str, remedy: str) -> BundleRefused:
    return BundleRefused(f"{shown(name)} is a link; pack what it points to ({remedy}).")


def _odd(name: str) -> BundleRefused:
    return BundleRefused(f"{shown(name)} is neither a file nor a folder.")


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
