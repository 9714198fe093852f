"""Request: one request on a Channel. Its body goes straight into memory and is counted while it
comes; its answer is written as fast as the client reads it; what asks to become a WebSocket is
looked at first.
"""

import asyncio
import io
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from daphne.http_protocol import WebRequest
from twisted.web import http

from jobs.api import websocket
from jobs.api.channel import phrase, plain_headers, problem_body, reactor
from jobs.api.clients import client_at, over_rate
from jobs.api.gate import Gate
from jobs.api.uploads import FORM_BYTES, OWNER_BYTES, STDIN_BYTES, too_large
from jobs.engine import Engine
from jobs.errors import Reason, Wait
from jobs.memory import MemoryFile

SMALL_BODY = 1024 * 1024  # bytes that are read before anybody asks whether their client has quota
UNBUFFERED = b"x-accel-buffering"  # a header of answers that are read while they are made

UPLOADS = {b"/submit": "submit", b"/run": "run"}  # what takes a body, and the view's name
SMALL = (  # and what takes a small one, of at most so many bytes
    (re.compile(rb"/jobs/[^/]+/stdin"), "stdin", STDIN_BYTES),
    (re.compile(rb"/form"), "run_form", FORM_BYTES),
    (re.compile(rb"/j/[^/]+"), "owned", OWNER_BYTES),
)

_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)


class Body(MemoryFile):
    """The body of a request, counted by the engine as long as it is open."""

    def __init__(self, engine: Engine, client: str) -> None:
        self._engine = engine
        self._client = client
        self._counted = 0
        super().__init__()

    def receive(self, data: bytes) -> bool:
        """Append `data`; False when it would be too much for the engine."""
        if not self._engine.receive(self._client, len(data)):
            return False
        self._counted += len(data)
        self.write(data)
        return True

    def close(self) -> None:
        super().close()
        counted, self._counted = self._counted, 0
        if not counted:
            return
        if threading.current_thread() is threading.main_thread():
            self._engine.let_go(self._client, counted)
        else:  # garbage may be collected in any thread
            reactor.callFromThread(self._engine.let_go, self._client, counted)


class Request(WebRequest):
    """One request: its body counted into memory, its answer written through a Gate."""

    body: Body | None = None
    received = 0  # bytes of the body
    most = 0  # bytes that it may have
    chunked: int  # Twisted's
    gate: Gate | None = None
    is_live = False
    trailers: Mapping[str, str] = {}  # what the view says behind the body, of an HTTP/1.1 answer
    _parsePOSTFormSubmission = False  # Twisted would parse uploads with its e-mail parser

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parsePOSTFormSubmission = False

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()  # stays empty: what reads the body reads `body`
        view, small = self._view()
        self.most = small or self.channel.config.upload_bytes
        if length is not None and length > self.most:
            self._refuse_body()
        elif length != 0 and view:  # else what comes is read, and thrown away
            client = self._client()
            if length and length > self.server.engine.room(client):
                self._refuse_for_now(length)
            elif not small and (length is None or length > SMALL_BODY):
                self._take_large(client, view)
            else:
                self.body = Body(self.server.engine, client)

    def _view(self) -> tuple[str | None, int]:
        """The one to which the body will go, and its most if that is less than of an upload."""
        method, target = self.channel.asked
        path, _ = _path_and_host(target)
        path = unquote_to_bytes(path.split(b"?", 1)[0])
        if method != b"POST":
            return None, 0
        found = ((view, most) for pattern, view, most in SMALL if pattern.fullmatch(path))
        return next(found, (UPLOADS.get(path), 0))

    def _take_large(self, client: str, view: str) -> None:
        """A body, unless its client would hear after it that it has had its share."""
        config, engine = self.channel.config, self.server.engine
        refusal: Wait | None = engine.quota.standing(client).refusal
        if engine.store.keys.knows(client, self._header("Idempotency-Key") or ""):
            refusal = None  # its job is there already
        if config.quotas:
            refusal = over_rate(view, config.submit_rate, client) or refusal
        if refusal is None:
            self.body = Body(engine, client)
        else:
            self.requestHeaders.removeHeader(b"Expect")
            self.channel.refuse(429, refusal.sentence, refusal.reason, refusal.retry_after)

    def _client(self) -> str:
        """As the doors see it."""
        forwarded = self._header("X-Forwarded-For") or ""
        return client_at(self.channel.peer, forwarded, self.channel.config)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if command != command.upper():  # Django would take "post" for POST; we would not
            self.channel.refuse(405, "Methods are written in capital letters", "method_not_allowed")
            return
        headers = self.requestHeaders
        path, host = _path_and_host(path)
        if host is not None and len(headers.getRawHeaders(b"Host", ())) == 1:
            headers.setRawHeaders(b"Host", [host])  # RFC 9112, 3.2.2: it says more than Host
        if upgrade := headers.getRawHeaders(b"Upgrade"):
            if self._is_handshake(command, path, version):
                asyncio.ensure_future(self._open(command, path, version))
                return
            # At "websocket" Daphne gives the connection to Autobahn, past the Guard. A list means
            # the same to us, and the Guard refuses it with a sentence.
            headers.setRawHeaders(b"Upgrade", [b",".join(upgrade) + b","])
        super().requestReceived(command, path, version)

    async def _open(self, command: bytes, path: bytes, version: bytes) -> None:
        """Become a Socket in our turn: it takes as long as some answers do."""
        await self.server.opening.enter()
        if self.channel:  # else its client has left
            super().requestReceived(command, path, version)

    def _is_handshake(self, command: bytes, path: bytes, version: bytes) -> bool:
        """Whether this is to become a Socket, and may."""
        return (
            (command, version, self.received) == (b"GET", b"HTTP/1.1", 0)
            and websocket.is_handshake(self.requestHeaders)
            and self.server.may_open(path.partition(b"?")[0].decode("latin-1"), self._header)
        )

    def _header(self, name: str) -> str | None:
        """As Django has it."""
        found = self.requestHeaders.getRawHeaders(name.encode())
        return b",".join(found).decode("latin-1") if found else None

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        super().setResponseCode(code, message or phrase(code))  # Twisted does not know 429

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.refused:
            return
        self.received += len(data)
        if self.received > self.most:
            self._refuse_body()
        elif self.body is not None and not self.body.receive(data):
            self._refuse_for_now(len(data))

    def _refuse_for_now(self, size: int) -> None:
        self.requestHeaders.removeHeader(b"Expect")  # or "100 Continue" would follow the answer
        if size > self.server.engine.free:
            self.channel.refuse(503, "The memory for jobs is full", "busy")
        else:
            self.channel.refuse(
                429, "Your jobs hold all the memory that you may have", "held_bytes"
            )

    def _refuse_body(self) -> None:
        self.requestHeaders.removeHeader(b"Expect")
        error = too_large(self.most)
        self.channel.refuse(413, error.sentence, error.reason)

    def handle_reply(self, message: dict[str, Any]) -> None:
        if message.get("type") == "http.response.body" and self._has_no_body():
            message = {**message, "body": b""}  # Twisted drops only the first piece of it
        if message.get("type") == "http.response.start" and self.channel and not self.finished:
            self.is_live = any(name.lower() == UNBUFFERED for name, _ in message["headers"])
            self.gate = Gate()
            self.registerProducer(self.gate, True)
            super().handle_reply(message)
            if self.is_live:  # or the head, and the job's id in it, would wait for its first word
                http.Request.write(self, b"")
            return
        super().handle_reply(message)

    def _has_no_body(self) -> bool:
        """Whatever came would be read as the next answer, and a job can make it look like one."""
        return self.method == b"HEAD" or self.code in http.NO_BODY_CODES

    def finish(self) -> None:
        self._let_go()
        if self.trailers and self.chunked and self.channel and not self.finished:
            lines = (f"{name}: {value}\r\n" for name, value in self.trailers.items())
            self.channel.write(f"0\r\n{''.join(lines)}\r\n".encode())
            self.chunked = 0  # or Twisted would write an end of its own
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        self._let_go()
        if self.gate:
            self.gate.open.set()
        super().connectionLost(reason)

    def _let_go(self) -> None:
        if self.producer:
            self.unregisterProducer()
        self.drop_body()

    def drop_body(self) -> None:
        if self.body is not None:
            self.body.close()
            self.body = None

    def abort(self) -> None:
        """Hang up without an end that looks like one."""
        if self.channel:
            self.channel.transport.abortConnection()

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        if self.gate is not None:  # an answer has begun
            self.abort()
            return
        sentence = status_text.decode("ascii")
        reason: Reason = "internal" if status >= 500 else "invalid_request"
        self.server.engine.figures.refused[reason] += 1
        content = problem_body(status, sentence, reason)
        headers = plain_headers() | {"Content-Length": str(len(content))}
        self.handle_reply(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        self.handle_reply({"type": "http.response.body", "body": content})


def _path_and_host(target: bytes) -> tuple[bytes, bytes | None]:
    """What the first line of a request names. Only a whole URL names a host."""
    found = _ABSOLUTE.fullmatch(target)
    if not found:
        return target, None
    return found[2] if found[2].startswith(b"/") else b"/" + found[2], found[1]
