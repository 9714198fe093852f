"""Watch: what somebody who follows a job hears, from any position in its log on, in order, once.

Nothing is queued for a watcher. It is asked for the next news when the one before was taken, and
looks at the job then: a slow one costs no memory, and misses what the log did not keep, which it
hears as a gap.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Literal, NamedTuple

from jobs.engine import Engine
from jobs.job import LOG, Job
from jobs.logs import Part
from sandbox.model import Glance

PIECE_BYTES = 16 * 1024  # of the log in one news; all watchers of a job cut it at the same places
MEASURE_SECONDS = 0.5  # between two looks at what no bell rings for
WATCHER_MEASURE_SECONDS = 0.0005  # of that time are for one listener: 5,000 are told every 2.5 s
PING_SECONDS = 15.0  # of silence

Kind = Literal["log", "status", "metrics", "files", "ping", "end", "gone"]


class News(NamedTuple):
    """One thing to tell. `position`: how far whoever has heard it has the log, as a whole."""

    kind: Kind
    position: int
    part: Part | None = None  # of kind log


class Watch:
    """One watcher of one job."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        position: int = 0,
        whole_letters: bool = True,
        files: bool = False,
    ) -> None:
        """`position`: where to go on; 0 is the beginning. `whole_letters`: text that is UTF-8 is
        not cut within a letter, even if the job writes it in two pieces. `files`: of these as well.
        """
        self._whole_letters = whole_letters
        self._engine = engine
        self._job = job
        self._position = position
        self._wants_files = files
        self._glance = Glance()  # as last told
        self._stood: tuple[str, int] | None = None  # state and place in line, as last told

    async def news(self) -> AsyncGenerator[News, None]:
        """Until the job is over, or forgotten, and that was told."""
        bell = self._job.bell
        bell.listeners += 1
        try:
            async with aclosing(self._news()) as all_news:
                async for news in all_news:
                    yield news
        finally:
            bell.listeners -= 1
            if not bell.listeners:
                self._job.frames.clear()

    async def _news(self) -> AsyncGenerator[News, None]:
        job = self._job
        heard = looked = asyncio.get_running_loop().time()
        while True:
            bell = job.bell.next()
            now = asyncio.get_running_loop().time()
            pause = max(MEASURE_SECONDS, job.bell.listeners * WATCHER_MEASURE_SECONDS)
            for news in self._due(now - looked >= pause):
                looked = now if news.kind == "metrics" else looked
                heard = now
                yield news
                if news.kind == "end":
                    self._engine.was_read(job, [LOG])
                if news.kind in ("end", "gone"):
                    return
            if bell.done():
                continue
            if now - heard >= PING_SECONDS:
                heard = now
                yield News("ping", self._position)
            await asyncio.wait([bell], timeout=pause)

    def _due(self, is_time: bool) -> Iterator[News]:
        """What there is to tell now. Between two of them anything may happen to the job."""
        job = self._job
        if job.is_forgotten:
            yield News("gone", self._position)
            return
        if not job.is_over:
            yield from self._status()
        while (part := self._part()) is not None:
            self._position = part.end
            yield News("log", part.end, part)
        if job.is_forgotten:
            yield News("gone", self._position)
        elif job.is_over:
            yield News("end", self._position)
        elif job.state == "running":
            if self._wants_files and job.glance is not self._glance and job.glance != self._glance:
                self._glance = job.glance
                yield News("files", self._position)
            if is_time:
                if self._wants_files:
                    job.look_at_files()
                yield News("metrics", self._position)

    def _status(self) -> Iterator[News]:
        stands = (self._job.state, self._engine.position(self._job))
        if stands != self._stood:
            self._stood = stands
            yield News("status", self._position)

    def _part(self) -> Part | None:
        """What comes next in the log, up to the next of the places where everybody cuts."""
        log = self._job.log
        size = PIECE_BYTES - self._position % PIECE_BYTES
        if size < _LONGEST_LETTER:  # what was left over by the one before
            size += PIECE_BYTES
        part = log.part(self._position, size)
        if part is None or not self._whole_letters or not (begun := _begun_letter(part.data)):
            return part
        if begun < len(part.data):
            return part._replace(data=part.data[:-begun])
        return None if part.end == log.end and not self._job.is_over else part


_LONGEST_LETTER = 4  # bytes in UTF-8


def _begun_letter(data: bytes) -> int:
    """How many bytes at the end begin a letter in UTF-8 that goes on behind them."""
    for back in range(1, min(_LONGEST_LETTER, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < size else 0
        if byte < 0x80:
            return 0
    return 0
