"""All outputs of a job as one archive, made while the client reads it: nothing is prepared ahead,
no file is ever whole in memory, and what takes time happens in a thread, a step at a time.

What comes out lands on users' machines: regular files below the folder where it is unpacked, with
one of two modes, nobody's in particular. The collector sees to that too; here it is checked again.

Deflate level 1. Against level 6 it is 2 to 6 times as fast on text, tables and programs (80 to 140
MB/s instead of 16 to 36) for archives that are 9 to 24 % larger, and what does not compress goes
through at 40 MB/s either way. A slow archive would cost CPU that jobs need.
"""

import asyncio
import re
import stat
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from jobs.memory import MemoryFile
from sandbox.model import Output

PIECE = 64 * 1024  # what is handed out at once, at most
STEP = 1024 * 1024  # of input, for one visit to a thread
LEVEL = 1

_ENTRY = 4096  # what an entry is counted as beside its content: many empty files are work too
_GZIP = 16 + zlib.MAX_WBITS  # zlib's own gzip header: no name, no time
_ZIP_FIRST, _ZIP_LAST = 315_532_800, 4_354_819_198  # 1980-01-01 and 2107-12-31, as zip counts

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="archives")
_Result = TypeVar("_Result")

Work = Generator[int, None, None]  # yields how much was done since


class Format(NamedTuple):
    content_type: str
    write: "Callable[[_Sink, MemoryFile, Sequence[Output], int], Work]"


def stream(
    form: str, memory: MemoryFile, outputs: Sequence[Output], mtime: int
) -> AsyncGenerator[bytes, None]:
    """The archive in pieces; the same outputs and `mtime` (Unix seconds) give the same bytes.

    Owns `memory` from the call on. Whoever stops early should `aclose`. Raises ValueError, before
    the first piece, for outputs that must not be handed out.
    """
    with memory.closed_on_error():
        _check(outputs, memory.size)
        entries = sorted(outputs, key=lambda output: _raw(output.path))
        return _pieces(_Making(FORMATS[form], memory, entries, mtime))


async def _pieces(making: "_Making") -> AsyncGenerator[bytes, None]:
    try:
        while (batch := await _in_own_thread(making.step)) is not None:
            for start in range(0, len(batch), PIECE):
                yield batch[start : start + PIECE]
    finally:
        await _in_own_thread(making.close)


def _in_own_thread(work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
    """One for all archives: they take turns, step by step, and no upload waits for them."""
    return asyncio.get_running_loop().run_in_executor(_THREAD, work)


class _Sink:
    """Takes what is written until somebody fetches it. Cannot seek and does not know where it is,
    so that zipfile writes forward only.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _Making:
    """The archive while it is made. A reader may be cancelled while a thread is inside a step:
    `close` then waits for that step, since it reads from the descriptor.
    """

    def __init__(
        self, form: Format, memory: MemoryFile, entries: Sequence[Output], mtime: int
    ) -> None:
        self._memory = memory
        self._sink = _Sink()
        self._work = form.write(self._sink, memory, entries, mtime)
        self._lock = threading.Lock()

    def step(self) -> bytes | None:
        """What the next STEP bytes of input become, which may be nothing; None behind the end."""
        with self._lock:
            done = 0
            for did in self._work:
                done += did
                if done >= STEP:
                    return self._sink.take()
            return self._sink.take() or None

    def close(self) -> None:
        with self._lock, self._memory:
            self._work.close()


# ---- the formats: each writes to the sink and says now and then how much input that was


def _write_tar_gz(sink: _Sink, memory: MemoryFile, entries: Sequence[Output], mtime: int) -> Work:
    gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    for entry in entries:
        sink.write(gzip.compress(_tar_header(entry, mtime)))
        for chunk in memory.chunks(entry.offset, entry.size):
            sink.write(gzip.compress(chunk))
            yield len(chunk)
        sink.write(gzip.compress(bytes(-entry.size % tarfile.BLOCKSIZE)))
        yield _ENTRY
    sink.write(gzip.compress(bytes(2 * tarfile.BLOCKSIZE)))
    sink.write(gzip.flush())


def _tar_header(entry: Output, mtime: int) -> bytes:
    """pax, which says that names are UTF-8. For a name that is not, pax has a keyword that GNU tar
    does not know and complains about; the GNU form holds the raw bytes, for every tar.
    """
    info = tarfile.TarInfo(entry.path)  # a regular file of uid and gid 0, without owner names
    info.size, info.mode, info.mtime = entry.size, _mode(entry), mtime
    if _is_text(entry.path):
        return info.tobuf(tarfile.PAX_FORMAT)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _write_zip(sink: _Sink, memory: MemoryFile, entries: Sequence[Output], mtime: int) -> Work:
    with zipfile.ZipFile(sink, "w") as archive:
        for entry in entries:
            with archive.open(_zip_info(entry, mtime), "w") as file:
                for chunk in memory.chunks(entry.offset, entry.size):
                    file.write(chunk)
                    yield len(chunk)
            yield _ENTRY


def _zip_info(entry: Output, mtime: int) -> zipfile.ZipInfo:
    when = time.gmtime(min(max(mtime, _ZIP_FIRST), _ZIP_LAST))
    info = zipfile.ZipInfo(zip_name(entry.path), when[:6])
    info.create_system = 3  # Unix: the mode counts, and a backslash is none of its separators
    info.external_attr = (stat.S_IFREG | _mode(entry)) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info._compresslevel = LEVEL  # type: ignore[attr-defined]  # open() has no argument for it
    info.file_size = entry.size  # by this it decides on zip64
    return info


FORMATS = {
    "tar.gz": Format("application/gzip", _write_tar_gz),
    "zip": Format("application/zip", _write_zip),
}


# ---- names and modes

# What no zip name may hold: bytes that are not UTF-8; backslashes and drive letters, which on
# Windows lead somewhere else. And what would look like the escape of such a thing.
_ESCAPED = re.compile(r"[\\\udc80-\udcff]|(?<=\A[A-Za-z]):|%(?=[0-9A-Fa-f]{2})")


def zip_name(path: str) -> str:
    """`path` as text that means the same place everywhere, escaped as in a download URL. Different
    paths have different names.
    """
    return _ESCAPED.sub(lambda found: f"%{_raw(found[0])[0]:02X}", path)


def _check(outputs: Sequence[Output], size: int) -> None:
    """Every output stays below the folder where it is unpacked, and lies within `size` bytes."""
    if len({output.path for output in outputs}) != len(outputs):
        raise ValueError("two outputs have the same path")
    for output in outputs:
        _raw(output.path)  # surrogates that stand for no byte are refused here
        if "\0" in output.path or not {"", ".", ".."}.isdisjoint(output.path.split("/")):
            raise ValueError("the path of an output is not a relative path of a file")
        if min(output.offset, output.size) < 0 or output.offset + output.size > size:
            raise ValueError("an output lies outside its memory")


def _raw(path: str) -> bytes:
    """The bytes that the job named its file with."""
    return path.encode("utf-8", "surrogateescape")


def _is_text(path: str) -> bool:
    return not any("\udc80" <= char <= "\udcff" for char in path)


def _mode(entry: Output) -> int:
    """Whether it can be executed, and nothing else of what the job's mode may say."""
    return 0o755 if entry.mode & 0o100 else 0o644
