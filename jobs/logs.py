"""JobLog: what a job prints, bounded. Of a stream over its cap the head and the tail are kept, the
middle is dropped and counted; nothing of ours is ever written between the job's bytes.

Offsets count the bytes that the job wrote, kept or not, so a reader always knows what it missed.
"""

from typing import NamedTuple

STREAMS = ("stdout", "stderr")


class Piece(NamedTuple):
    """Bytes [offset, offset + len(data)) of a stream."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class Stream:
    """One stream: a head that fills up, then a ring that keeps the newest bytes."""

    def __init__(self, cap_bytes: int) -> None:
        self._head_cap = cap_bytes - cap_bytes // 2
        self._ring_cap = cap_bytes // 2
        self._head = bytearray()
        self._ring = bytearray()  # grows to its cap, then is overwritten in a circle
        self._ringed = 0  # bytes ever put into the ring
        self.total = 0  # bytes the job wrote

    @property
    def kept(self) -> int:
        return len(self._head) + len(self._ring)

    @property
    def dropped(self) -> int:
        return self.total - self.kept

    def append(self, view: memoryview) -> None:
        self.total += len(view)
        room = self._head_cap - len(self._head)
        if room > 0:
            self._head += view[:room]
            view = view[room:]
        if view and self._ring_cap:
            self._keep_newest(view)

    def _keep_newest(self, view: memoryview) -> None:
        skipped = max(0, len(view) - self._ring_cap)
        self._ringed += skipped  # bytes that later ones of the same view overwrite at once
        view = view[skipped:]
        while view:
            at = self._ringed % self._ring_cap
            part = view[: self._ring_cap - at]
            if at + len(part) > len(self._ring):
                self._ring.extend(bytes(at + len(part) - len(self._ring)))
            self._ring[at : at + len(part)] = part
            self._ringed += len(part)
            view = view[len(part) :]

    def read(self, offset: int, size: int) -> Piece:
        """At most `size` bytes from `offset` on; from behind the gap when `offset` is in it."""
        if offset < len(self._head):
            return Piece(offset, bytes(self._head[offset : offset + size]))
        offset = min(max(offset, self.total - len(self._ring)), self.total)
        if offset == self.total:
            return Piece(offset, b"")
        at = (self._ringed - (self.total - offset)) % self._ring_cap
        size = min(size, self.total - offset, self._ring_cap - at)
        return Piece(offset, bytes(self._ring[at : at + size]))


class JobLog:
    """Both streams of a job. `append` is what a Sandbox calls with every piece of output."""

    def __init__(self, cap_bytes: int) -> None:
        self._streams = {name: Stream(cap_bytes) for name in STREAMS}

    def append(self, stream: str, data: memoryview) -> None:
        """Take a piece; the view may change after the call."""
        self._streams[stream].append(data)

    def read(self, stream: str, offset: int = 0, size: int = 64 * 1024) -> Piece:
        """The next piece from `offset` on; empty at the end."""
        return self._streams[stream].read(offset, size)

    def total(self, stream: str) -> int:
        return self._streams[stream].total

    def dropped(self, stream: str) -> int:
        """Bytes of the middle that were not kept."""
        return self._streams[stream].dropped

    @property
    def truncated(self) -> bool:
        return any(stream.dropped for stream in self._streams.values())

    @property
    def kept_bytes(self) -> int:
        return sum(stream.kept for stream in self._streams.values())
