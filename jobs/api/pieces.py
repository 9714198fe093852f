"""Answers in pieces: what a job printed and left is not held a second time to be sent, and stays
until its last reader has it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import aclosing

from django.http import HttpResponse, StreamingHttpResponse

from jobs.api import wire
from jobs.api.site import Site
from jobs.job import Job, Reading
from jobs.memory import MemoryFile

CHUNK = 64 * 1024
WHOLE_BYTES = 64 * 1024  # answers about so much log go out in one piece
WHOLE_OUTPUTS = 200  # and about so many outputs


class Streamed(StreamingHttpResponse):
    """An answer in pieces. When its client leaves, what makes the pieces is closed there and then:
    Django's leaves that to the garbage collector, and with it what a generator holds.
    """

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._iterator) as pieces:
            async for piece in pieces:
                yield piece


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def then(
    content: AsyncGenerator[bytes, None], act: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """`content`; and `act`, when all of it was taken."""
    async with aclosing(content):
        async for piece in content:
            yield piece
    act()


async def read_out(memory: MemoryFile, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    """Bytes [start, stop). `memory` is the download's own: the job may be forgotten meanwhile."""
    try:
        for at in range(start, stop, CHUNK):
            yield memory.read(at, min(CHUNK, stop - at))
    finally:
        memory.close()


def answer(
    site: Site,
    job: Job,
    pieces: Iterator[bytes],
    kind: str = wire.JSON,
    headers: dict[str, str] | None = None,
    reads: Collection[str] = (),
) -> HttpResponse:
    """What `pieces` make of the job: whole when it is little, else as it is read. Whoever has taken
    it, has read those of LOG and the outputs.
    """
    if job.log.kept_bytes <= WHOLE_BYTES and len(job.outputs) <= WHOLE_OUTPUTS:
        content = b"".join(pieces)
        site.engine.was_read(job, reads)
        return HttpResponse(content, content_type=kind, headers=headers)
    reading = read(site, job)

    async def one_by_one() -> AsyncIterator[bytes]:
        with reading:
            for piece in pieces:
                yield piece
                await asyncio.sleep(0)  # others are served between two pieces
                reading.ensure_open()
            site.engine.was_read(job, reads)

    return Streamed(one_by_one(), content_type=kind, headers=headers)


def read(site: Site, job: Job) -> Reading:
    """What the job holds stays, and counts, until it is read."""
    return job.read(lambda: site.engine.store.weigh(job))
