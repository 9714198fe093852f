"""The WebSockets of a job: /stream/{job_id} and /logs/{job_id}/stream. In the old text by default,
as frames of JSON (live.py) for whoever offers the subprotocol sandrun.v1.

A consumer of Channels, without its thread hop for each message: there is no database to close.
"""

import asyncio
import base64
import codecs
import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

import msgspec
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path

from jobs import stdin
from jobs.api import live, wire
from jobs.api.clients import client_in, count
from jobs.api.middleware import refusal_of
from jobs.api.site import SCOPE_KEY, Site
from jobs.api.websocket import MESSAGE_KEY
from jobs.engine import Engine
from jobs.errors import Rejected
from jobs.job import Job
from jobs.watch import News, Watch

PROTOCOL = "sandrun.v1"
BAD_REQUEST, NOT_FOUND, TRY_LATER, GONE = 4400, 4404, 4429, 4410  # close codes: HTTP's, and 4000

_PATH = re.compile(r"/stream/[^/]+|/logs/[^/]+/stream")


def welcome(site: Site) -> Callable[[str, Callable[[str], str | None]], bool]:
    """Whether a WebSocket may be opened on a path, by a request with these headers."""

    def may_open(path: str, header: Callable[[str], str | None]) -> bool:
        known = _PATH.fullmatch(unquote(path)) is not None  # as the routes below will see it
        return known and refusal_of(site, "GET", header, handshake=True) is None

    return may_open


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say in sandrun.v1: one of those below."""

    owner_token: str = ""


class Cancel(Order, tag="cancel"):
    pass


class Stdin(Order, tag="stdin"):
    data: str = ""
    base64: str = ""
    end: bool = False
    at: int | None = None


class Stream(AsyncWebsocketConsumer):
    """One watcher. Sending waits until the client has read (Gate), so nothing piles up."""

    async def dispatch(self, message: dict[str, Any]) -> None:
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        offered = self.scope["subprotocols"]
        self._speaks_json = PROTOCOL in offered
        self._watching: asyncio.Task[None] | None = None
        self._job: Job | None = None  # until it is found
        await self.accept(PROTOCOL if self._speaks_json else None)
        site = cast(Site, self.scope[SCOPE_KEY])
        self._engine = site.engine
        job_id = self.scope["url_route"]["kwargs"]["job_id"]
        try:
            count("stream", client_in(self.scope, site.config), site.config.read_rate, site.config)
            self._job = site.engine.store.find(job_id)
            query = dict(parse_qsl(self.scope["query_string"].decode("latin-1")))
            position = live.position_of(self._job, query.get("since"))
        except Rejected as refused:
            sentence = f"{refused.sentence}: {job_id}" if refused.reason == "unknown_job" else None
            await self._refuse(refused, sentence)
            await self.close(_CLOSE_CODES.get(refused.reason, BAD_REQUEST))
            return
        watch = self._tell_json if self._speaks_json else self._tell_text
        self._watching = asyncio.create_task(watch(self._job, position))

    async def disconnect(self, code: int) -> None:
        if self._watching:
            self._watching.cancel()

    async def _tell_json(self, job: Job, position: int) -> None:
        news = None
        watch = Watch(self._engine, job, position, files=True)
        async with aclosing(watch.news()) as all_news:
            async for news in all_news:
                frame = live.frame(self._engine, job, news)
                await self.base_send({"type": "websocket.send", MESSAGE_KEY: frame.message})
        await self.close(GONE if news and news.kind == "gone" else 1000)

    async def _tell_text(self, job: Job, position: int) -> None:
        """What the earlier server sent, in its words; but at once, and nothing twice."""
        words = OldWords(self._engine, job)
        if job.is_over:
            await self.send(words.status())
        async with aclosing(Watch(self._engine, job, position).news()) as all_news:
            async for news in all_news:
                for text in words.of(news):
                    await self.send(text)
        await self.close(1000)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if not self._speaks_json or self._job is None:
            return  # the earlier clients had nothing to say; and of no job there is nothing
        try:
            try:
                order = msgspec.json.decode(text_data or "", type=Cancel | Stdin)
            except (msgspec.DecodeError, UnicodeError):
                raise Rejected(
                    "A message is a JSON object of the type cancel or stdin, with its keys only"
                ) from None
            self._engine.check_owner(self._job, order.owner_token or None)
            if isinstance(order, Cancel):
                self._engine.cancel(self._job)
                return
            taken = stdin.send(self._job, _content(order), order.end, order.at)
            await self.send(wire.encode({"type": "stdin", **taken}).decode())
        except Rejected as refused:
            await self._refuse(refused)

    async def _refuse(self, refused: Rejected, sentence: str | None = None) -> None:
        sentence = sentence or refused.sentence
        self._engine.figures.refused[refused.reason] += 1
        if self._speaks_json:
            about = {"type": "error", "error": refused.sentence, "reason": refused.reason}
            await self.send(wire.encode(about).decode())
        else:
            await self.send(f"[ERROR] {sentence}\n")


def _content(order: Stdin) -> bytes:
    if order.data and order.base64:
        raise Rejected("stdin is sent as data or as base64, not as both")
    try:
        return base64.b64decode(order.base64, validate=True) or order.data.encode()
    except ValueError:
        raise Rejected("The base64 of the message is damaged, or its data is no text") from None


_CLOSE_CODES = {"unknown_job": NOT_FOUND, "rate_limited": TRY_LATER}


class OldWords:
    """News in the text of the earlier server. A job can print such lines too: whoever must not be
    deceived speaks sandrun.v1.
    """

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine = engine
        self._job = job
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace")
            for stream in ("stdout", "stderr")
        }
        self._said = ""  # about its state

    def of(self, news: News) -> list[str]:
        if news.part and not news.part.lost:
            text = self._decoders[news.part.stream].decode(news.part.data)
            return [text if news.part.stream == "stdout" else f"[STDERR]\n{text}"] if text else []
        if news.kind == "status":
            before, self._said = self._said, self.status()
            return [self._said] if self._said != before else []
        if news.kind == "end":
            return [self._end()]
        return []

    def status(self) -> str:
        if self._said and self._job.state == "running":
            return "[STATUS] Job started\n"
        return f"[STATUS] Job status: {self._job.state}\n"

    def _end(self) -> str:
        usage = wire.usage(self._engine, self._job)
        return (
            f"[DONE] Job {self._job.state} (exit={usage['exit_code']}, "
            f"CPU={usage['cpu_seconds']:.6f}s, Mem={usage['memory_peak_mb']}MB)\n"
        )


urlpatterns = [
    path("stream/<str:job_id>", Stream.as_asgi()),
    path("logs/<str:job_id>/stream", Stream.as_asgi()),
]
