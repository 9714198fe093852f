"""How a job looks to whoever watches it: frames of JSON, which a WebSocket sends as they are, lines
of NDJSON as lines, and Server-Sent Events as events; or nothing but what the job prints.
"""

import base64
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import cached_property
from typing import NamedTuple

from autobahn.websocket.protocol import PreparedMessage

from jobs.api import wire
from jobs.engine import Engine
from jobs.errors import Rejected
from jobs.job import Forgotten, Job
from jobs.logs import Part
from jobs.watch import News, Watch

_RETRY_MILLISECONDS = 1000  # for a browser's EventSource, before it comes back
_PLAIN = bytes(byte for byte in range(256) if byte >= 0x20 or byte in b"\b\t\n\f\r")


class Format(NamedTuple):
    content_type: str
    write: Callable[[Engine, Job, News], bytes]


class Frame:
    """A JSON object about a job: `seq` says how far whoever has read it has the log."""

    def __init__(self, position: int, kind: str, fields: Mapping[str, object]) -> None:
        self.position = position
        self.kind = kind
        self.json = wire.encode({"seq": position, "type": kind, **fields})

    @cached_property
    def message(self) -> PreparedMessage:
        """The same as a WebSocket's message of text."""
        return PreparedMessage(self.json, isBinary=False, applyMask=False, doNotCompress=True)


_FRAMES = 16  # of a job are kept for those who come to the same place next
_METRICS_SECONDS = 0.25  # for so long everybody hears the same


def frame(engine: Engine, job: Job, news: News) -> Frame:
    """The Frame of `news`; of what all who watch the job hear alike, one for all of them."""
    key = _shared(engine, job, news)
    found = job.frames.get(key)
    if not isinstance(found, Frame):
        if news.part:
            found = Frame(news.position, *_part(news.part))
        else:
            found = Frame(news.position, news.kind, _more(engine, job, news))
        if len(job.frames) >= _FRAMES:
            del job.frames[next(iter(job.frames))]
        job.frames[key] = found
    return found


def _shared(engine: Engine, job: Job, news: News) -> tuple[object, ...]:
    """What two News have in common that are one Frame."""
    begin = news.part.position if news.part else news.position
    stands = (job.state, engine.position(job)) if news.kind == "status" else None
    quarter = engine.clock().monotonic // _METRICS_SECONDS if news.kind == "metrics" else None
    glance = job.glance if news.kind == "files" else None
    return news.kind, begin, news.position, stands, quarter, glance


def _part(part: Part) -> tuple[str, dict[str, object]]:
    moment = {"t": part.milliseconds / 1000}
    if part.lost:
        return "gap", {**moment, "stream": part.stream, "bytes": part.lost}
    return part.stream, {**moment, **_content(part.data)}


def _content(data: bytes) -> dict[str, object]:
    """As text if it is text; if not, or if JSON would blow it up, the bytes as base64."""
    if len(data.translate(None, _PLAIN)) * 8 <= len(data):
        try:
            return {"data": data.decode()}
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(data).decode()}


def _more(engine: Engine, job: Job, news: News) -> dict[str, object]:
    if news.kind == "status":
        return {"status": job.state, "queue_position": engine.position(job)}
    if news.kind == "metrics":
        return wire.metrics(engine, job)
    if news.kind == "files":
        return wire.files(job)
    if news.kind == "end":
        return {"result": wire.result(engine, job)}
    return {}


def _line(engine: Engine, job: Job, news: News) -> bytes:
    return frame(engine, job, news).json + b"\n"


def _event(engine: Engine, job: Job, news: News) -> bytes:
    """A ping is a comment: it wakes no listener."""
    if news.kind == "ping":
        return b":\n\n"
    made = frame(engine, job, news)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (made.position, made.kind.encode(), made.json)


def _bytes(engine: Engine, job: Job, news: News) -> bytes:
    return news.part.data if news.part else b""


NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
FORMATS = {
    "text": Format(wire.TEXT, _bytes),
    "ndjson": Format(NDJSON, _line),
    "sse": Format(EVENTS, _event),
}


def position_of(job: Job, since: str | None) -> int:
    """The position that `since` asks for. Raises Rejected."""
    if not since:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", since):
        raise Rejected("since is the seq of something that was read: a whole number")
    if int(since) > job.log.end:
        raise Rejected(f"since={since} lies behind all that the job has printed")
    return int(since)


async def follow(
    form: Format, engine: Engine, job: Job, position: int = 0, stream: str | None = None
) -> AsyncGenerator[bytes, None]:
    """What the watcher reads, from `position` on: of both streams, or of `stream`. Raises Forgotten
    where there are no words for it.
    """
    if form.content_type == EVENTS:
        yield b"retry: %d\n\n" % _RETRY_MILLISECONDS
    is_text = form.content_type == wire.TEXT
    watch = Watch(engine, job, position, whole_letters=not is_text, files=not is_text)
    async with aclosing(watch.news()) as all_news:
        async for news in all_news:
            if stream and news.part and news.part.stream != stream:
                continue
            if content := form.write(engine, job, news):
                yield content
            elif news.kind == "gone":
                raise Forgotten
