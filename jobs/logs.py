"""JobLog: what a job prints, bounded. Of a stream over its cap the head and the tail are kept, the
middle is dropped and counted; nothing of ours is ever written between the job's bytes.

Offsets count the bytes that the job wrote into one stream, kept or not, so a reader always knows
what it missed. Positions count the bytes of both streams in the order in which they came: one
number says how far somebody has read, and everything that follows it is the same for everybody.
"""

import hashlib
from array import array
from bisect import bisect_right
from typing import NamedTuple

STREAMS = ("stdout", "stderr")

TICK_SECONDS = 0.01  # of the same tick, what came first in which stream is not kept apart
SLOWEST_TICK_SECONDS = 0.64
RUNS_A_TICK = 4096  # with each so many runs ticks take twice as long: their number stays small
_RUN_MILLISECONDS = 100  # one stream alone goes on in its run for so long
_RUN_BYTES = 24


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

    def digest(self) -> str:
        """SHA-256 in hex of what is kept, as a reader gets it from the beginning to the end."""
        digest = hashlib.sha256(self._head)
        is_full = self._ring and len(self._ring) == self._ring_cap
        at = self._ringed % self._ring_cap if is_full else 0
        with memoryview(self._ring) as ring:
            digest.update(ring[at:])
            digest.update(ring[:at])
        return digest.hexdigest()

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


class Part(NamedTuple):
    """The next thing in the order of time: bytes of a stream, or how many of it are lost."""

    position: int
    stream: str
    milliseconds: int  # after the job's start
    data: bytes
    lost: int = 0  # bytes in place of `data`

    @property
    def end(self) -> int:
        return self.position + self.lost + len(self.data)


class JobLog:
    """Both streams of a job. `append` is what a Sandbox calls with every piece of output; `settle`
    gives what came since a place among the positions.
    """

    def __init__(self, cap_bytes: int) -> None:
        self._streams = {name: Stream(cap_bytes) for name in STREAMS}
        self._settled = dict.fromkeys(STREAMS, 0)  # bytes of each that have positions
        # The runs, each of one stream: where it begins, in the log and in its stream, and when.
        self._positions = array("Q")
        self._offsets = array("Q")
        self._moments = array("Q")  # milliseconds, and in the lowest bit the stream
        self.end = 0  # the position behind the last settled byte

    def append(self, stream: str, data: memoryview) -> None:
        """Take a piece; the view may change after the call."""
        self._streams[stream].append(data)

    def settle(self, milliseconds: int) -> bool:
        """Give positions to what came since the last time; whether there was anything."""
        before = self.end
        for number, name in enumerate(STREAMS):
            offset, total = self._settled[name], self._streams[name].total
            if offset < total:
                if not self._goes_on(number, milliseconds):
                    self._positions.append(self.end)
                    self._offsets.append(offset)
                    self._moments.append(milliseconds << 1 | number)
                self._settled[name] = total
                self.end += total - offset
        return self.end > before

    def _goes_on(self, stream: int, milliseconds: int) -> bool:
        """Whether the last run takes what came into `stream` now."""
        if not self._moments:
            return False
        last = self._moments[-1]
        return last & 1 == stream and milliseconds - (last >> 1) < _RUN_MILLISECONDS

    @property
    def tick_seconds(self) -> float:
        """How long to wait between two calls of `settle`, so that the runs stay few."""
        slower = 1 << len(self._positions) // RUNS_A_TICK
        return min(SLOWEST_TICK_SECONDS, TICK_SECONDS * slower)

    def part(self, position: int, size: int) -> Part | None:
        """What stands at `position`, at most `size` bytes of it; None at the end."""
        if position >= self.end:
            return None
        run = bisect_right(self._positions, position) - 1
        last = run + 1 == len(self._positions)
        room = (self.end if last else self._positions[run + 1]) - position
        milliseconds, name = self._moments[run] >> 1, STREAMS[self._moments[run] & 1]
        offset = self._offsets[run] + position - self._positions[run]
        piece = self.read(name, offset, min(size, room))
        if lost := min(piece.offset - offset, room):
            return Part(position, name, milliseconds, b"", lost)
        return Part(position, name, milliseconds, piece.data)

    def clear(self) -> None:
        """Give all up, also for whoever still reads here."""
        self._streams = {name: Stream(0) for name in STREAMS}
        self._settled = dict.fromkeys(STREAMS, 0)
        self._positions, self._offsets, self._moments = array("Q"), array("Q"), array("Q")
        self.end = 0

    def read(self, stream: str, offset: int = 0, size: int = 64 * 1024) -> Piece:
        """The next piece from `offset` on; empty at the end."""
        return self._streams[stream].read(offset, size)

    def digest(self, stream: str) -> str:
        """SHA-256 in hex of all that is kept of it. Takes a while for a long one."""
        return self._streams[stream].digest()

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
        kept = sum(stream.kept for stream in self._streams.values())
        return kept + _RUN_BYTES * len(self._positions)
