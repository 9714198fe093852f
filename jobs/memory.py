"""MemoryFile: bytes that have a descriptor but no name and no disk. The kernel frees them with the
last descriptor, also when we are killed.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from sandbox import channel, linux

CHUNK = 1024 * 1024
_SMALL = 64 * 1024  # bytes that take no longer than a thread's start

_Result = TypeVar("_Result")


async def in_thread(size: int, work: Callable[..., _Result], *arguments: object) -> _Result:
    """work(*arguments), in a thread when it is about so many bytes that others would wait.

    Whoever is cancelled meanwhile still waits for the thread: it holds descriptors that the caller
    closes next.
    """
    if size <= _SMALL:
        return work(*arguments)
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # cancelled again: it holds them all the same
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody asks any more
        raise


class MemoryFile:
    """Owns one memfd and closes it, at the latest when nobody holds the object any more: a request
    may be cancelled between any two steps. That can be late, since the traceback of an error holds
    what its frames held, often in a cycle: `with` closes at the end of the block.
    """

    def __init__(self, fd: int | None = None) -> None:
        """Owns `fd`, or a new and empty memfd."""
        self._fd = -1
        self._fd = channel.new_memfd("sandrun") if fd is None else fd

    @property
    def fd(self) -> int:
        if self._fd < 0:
            raise ValueError("this memory is given back already")
        return self._fd

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def write(self, data: bytes | memoryview) -> int:
        """Append all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        return len(data)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Bytes [start, start + size) in pieces."""
        end = start + size
        while start < end and (piece := self.read(start, min(CHUNK, end - start))):
            yield piece
            start += len(piece)

    def spend(self, start: int, size: int) -> Iterator[bytes]:
        """As `chunks`, and each piece is gone from here when the next is asked for: what moves an
        upload to another MemoryFile needs no second memory for it.
        """
        with self.again() as ours:  # see take
            for begin, length in _ranges(start, size):
                if not (piece := ours.read(begin, length)):
                    break
                yield piece
                linux.punch(ours.fd, begin, len(piece))

    def take(self, source: "MemoryFile", start: int, size: int) -> None:
        """Move bytes [start, start + size) of `source` to our end; they do not pass through Python,
        and are gone from `source` piece by piece.
        """
        # Through a descriptor of our own: a client that hangs up closes the body at any time, and
        # its number would be another memory's at once.
        with source.again() as theirs:
            for begin, length in _ranges(start, size):
                end = begin + length
                while begin < end:
                    moved = os.sendfile(self.fd, theirs.fd, begin, end - begin)
                    if not moved:
                        return  # `source` is shorter
                    linux.punch(theirs.fd, begin, moved)
                    begin += moved

    def seal(self) -> "MemoryFile":
        """Make the bytes final, for us and for whoever receives the descriptor."""
        channel.seal(self.fd)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return self

    def again(self) -> "MemoryFile":
        """The same bytes through a descriptor with its own life."""
        return MemoryFile(os.dup(self.fd))

    def __enter__(self) -> "MemoryFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Around the steps until somebody else owns it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _ranges(start: int, size: int) -> Iterator[tuple[int, int]]:
    """Pieces (start, size) that meet where pages do: a page is freed when all of it is given up."""
    end = start + size
    while start < end:
        length = min(CHUNK - start % CHUNK, end - start)
        yield start, length
        start += length
