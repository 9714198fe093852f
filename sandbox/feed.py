"""Feed: what is sent to a program's stdin while it runs, and waits here until the program reads.

A pipe, as programs expect it. Web makes it: the read end goes inside with the orders, the write end
stays here and is nobody else's. A job that never reads blocks nobody: what its pipe does not take
waits here, `ROOM` bytes at most, and the loop tells when there is place again.

What the job can do with the read end is its own affair: widen the pipe within what the kernel
grants our uid, give it to its own processes, close it (then we are told at the next write). It can
not reopen it for writing, since the pipe is ours and nobody may write to it, and no call that the
filter allows moves pages out of it.
"""

import asyncio
import hashlib
import os
from typing import Final

ROOM: Final = 256 * 1024  # bytes that may wait


class Feed:
    """Belongs to one event loop. Whoever makes it closes it."""

    def __init__(self, first: bytes = b"") -> None:
        """`first` comes before all that is put."""
        self._waiting = bytearray(first)
        self._pipe = -1  # before the program begins
        self._is_stuck = False  # the pipe is full, and the loop tells when it is not
        self.is_open = True  # more may be put
        self.taken = 0  # bytes that were put
        self._digest = hashlib.sha256()  # of these

    @property
    def sha256(self) -> str:
        """In hex, over all that was put until now."""
        return self._digest.hexdigest()

    @property
    def waiting(self) -> int:
        """Bytes that no pipe has taken yet."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """Bytes that may be put now."""
        return max(0, ROOM - len(self._waiting))

    def put(self, data: bytes) -> None:
        """Send `data`, for which there is room, after all that was put. When the program has closed
        its stdin, that closes the feed.
        """
        self.taken += len(data)
        self._digest.update(data)
        self._waiting += data
        self._write()

    def end(self) -> None:
        """Nothing follows: the program hears so when it has read the rest."""
        self.is_open = False
        self._write()

    def open(self) -> int:
        """The program's end, for the caller to close; what has waited for it is on its way."""
        inner, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        os.fchmod(inner, 0o444)  # the job may open /dev/stdin, and not to write
        self._write()
        return inner

    def close(self) -> None:
        """Let go of the pipe and of what nobody will read. A second time does nothing."""
        self.is_open = False
        self._waiting.clear()
        self._write()

    def _write(self) -> None:
        """What the pipe takes now; the rest when it has place. After the last byte it is closed."""
        if self._pipe < 0:
            return
        try:
            while self._waiting:
                with memoryview(self._waiting) as view:
                    written = os.write(self._pipe, view)
                del self._waiting[:written]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # nobody will read
            self.is_open = False
            self._waiting.clear()
        if self._is_stuck != bool(self._waiting):
            self._is_stuck = not self._is_stuck
            loop = asyncio.get_running_loop()
            if self._is_stuck:
                loop.add_writer(self._pipe, self._write)
            else:
                loop.remove_writer(self._pipe)
        if not self._waiting and not self.is_open:
            os.close(self._pipe)
            self._pipe = -1
