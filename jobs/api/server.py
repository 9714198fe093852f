"""Server: Daphne, with the bounds that it lacks. Stock Daphne reads a body of any size to disk
before anybody is asked, lets Twisted parse uploads on the event loop, gives clients all the time
they want, and keeps what a slow client does not read.

Here a body goes straight into a MemoryFile and is counted while it comes; head and body have
deadlines that no trickle prolongs; an answer is written as fast as it is read. There is no access
log, and errors that happen below Django look like the others.
"""

import asyncio
import functools
import io
import re
import socket
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server as DaphneServer
from twisted.internet import defer, interfaces
from twisted.internet import reactor as installed_reactor
from twisted.logger import globalLogBeginner
from twisted.web import http
from zope.interface import implementer

from jobs.api import websocket
from jobs.api.clients import client_at, client_name, is_trusted, networks, over_rate
from jobs.api.errors import report
from jobs.api.gate import Gate
from jobs.api.middleware import HEADERS
from jobs.api.uploads import BODY_KEY, STDIN_BYTES, too_large
from jobs.api.views import TRAILERS_KEY
from jobs.api.websocket import SOCKET_KEY, Socket
from jobs.api.wire import PROBLEM, encode, problem
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Reason, Wait
from jobs.memory import MemoryFile

reactor: Any = installed_reactor
TwistedChannel: Any = http.HTTPChannel  # comes without types

Scope = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]
MayOpen = Callable[[str, Callable[[str], str | None]], bool]

IDLE_SECONDS = 20  # a connection that asks nothing
REQUESTS_A_TURN = 4  # begun before others are heard again
WRITES_A_TURN = 16  # pieces of answers, of whatever many clients read at once
BUSY_RETRY_SECONDS = 5
SMALL_BODY = 1024 * 1024  # bytes that are read before anybody asks whether their client has quota
SEND_BYTES = 256 * 1024  # of an answer in the kernel; it would take 4 MB for each slow reader
LINGER_SECONDS = 5  # for a refused client to read why; for an answer that may have no reader
UNBUFFERED = b"x-accel-buffering"  # a header of answers that are read while they are made
CONNECTIONS = 8000  # of 40 KiB each, when they are WebSockets
DRAIN_SECONDS = 1.0  # for answers that are on their way when we stop
STOP_SECONDS = 0.5  # for those that are cut off then

UPLOADS = {b"/submit": "submit", b"/run": "run"}  # what takes a body, and the view's name
STDIN = re.compile(rb"/jobs/[^/]+/stdin")  # and what takes a small one

_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)


@implementer(interfaces.IHalfCloseableProtocol)
class Channel(TwistedChannel):
    """One connection. Head and body of each request have one deadline each, from the first byte."""

    totalHeadersSize = 16 * 1024
    maxHeaders = 100
    abortTimeout = LINGER_SECONDS

    _deadline: Any = None
    _half_closed = False
    refused = False
    peer = ""

    @property
    def config(self) -> Config:
        config = self.factory.server.config
        assert isinstance(config, Config)
        return config

    @property
    def asked(self) -> tuple[bytes, bytes]:
        """Method and target, once the head is here. Twisted tells the Request after the body."""
        return self._command, self._path

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            return  # read only so that the client comes to read why
        if self._deadline is None and not self._handlingRequest:
            self._arm(self.config.head_seconds, self._late)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:  # more lines may have come with the one that was at fault
            super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        self._arm(self.config.body_seconds, self._late)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if self.refused:  # it is all here, and was thrown away
            self.loseConnection()
            return
        self._disarm()
        super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:
        super().rawDataReceived(data)
        pipelined = sum(map(len, self._dataBuffer)) if self._handlingRequest else 0
        if pipelined > self._optimisticEagerReadSize:
            self._answer_soon()  # Twisted reads no more, and so would not see the client leave

    def requestDone(self, request: Any) -> None:
        if not self.refused:
            self._disarm()
        super().requestDone(request)
        if self._half_closed:
            self._end()

    def readConnectionLost(self) -> None:
        """Nothing more comes: the client has gone, or closed its half of the connection and reads.
        Only what we write would tell which. What it asked is answered, if it has not to wait long.
        """
        self._half_closed = True
        self._end()

    def writeConnectionLost(self) -> None:
        """Our own half: `refuse` has closed it."""

    def _end(self) -> None:
        if self.requests and self._handlingRequest and not self.refused:
            self._answer_soon()
        else:
            self.loseConnection()

    def loseConnection(self) -> None:
        """After what is left of an answer, for which Twisted waits however long it is not read."""
        if not self.refused:
            self.setTimeout(None)  # it would take the deadline for one of a request
            self._arm(self.config.stall_seconds, self.transport.abortConnection)
        super().loseConnection()

    def _answer_soon(self) -> None:
        self._arm(LINGER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Hang up, unless an answer has begun: what becomes of that one shows as it is written. Of
        one that goes on as long as a job does, perhaps in silence, nothing would show.
        """
        if self.requests and (self.requests[0].gate is None or self.requests[0].is_live):
            self.transport.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        self._disarm()
        super().connectionLost(reason)
        self.factory.lost(self.peer)

    def refuse(
        self, status: int, sentence: str, reason: Reason, retry_after: int = BUSY_RETRY_SECONDS
    ) -> None:
        """Answer now, take no more, and let the client read why before we hang up. `retry_after`
        is told with 429 and 503.
        """
        if not self.refused:
            self.refused = True
            self.factory.server.engine.figures.refused[reason] += 1
            for request in self.requests:
                request.drop_body()
            response = _bare_response(status, sentence, reason, self._cors(), retry_after)
            self.transport.write(response)
            self.transport.loseWriteConnection()  # a close while bytes come would lose the answer
            self._arm(LINGER_SECONDS, self.transport.abortConnection)

    def _cors(self) -> dict[str, str]:
        """For a page of a site that is invited, which else would see only that it failed."""
        for request in self.requests[-1:]:
            for origin in request.requestHeaders.getRawHeaders("Origin", ()):
                if origin in self.config.allow_origin:
                    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        return {}

    def timeoutConnection(self) -> None:
        """Nothing came for a while. Between two requests that is the end; within one, say so."""
        if self._deadline is None:
            super().timeoutConnection()
        else:
            self._late()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's, for whatever is wrong with a head; the two counts tell which."""
        if (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        ):
            self._refuse_headers()
        else:
            self.refuse(400, "The head of the request is malformed", "invalid_request")

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._receivedHeaderSize == 0:  # no line before it
            most = self.totalHeadersSize // 1024
            sentence = f"The URL is longer than {most} KiB; what is long belongs into the body"
            self.refuse(414, sentence, "too_large")
        else:
            self._refuse_headers()

    def _refuse_headers(self) -> None:
        most = f"{self.totalHeadersSize // 1024} KiB or {self.maxHeaders} headers"
        self.refuse(431, f"The head of the request has more than {most}", "too_large")

    def _late(self) -> None:
        self.refuse(408, "The request took too long to arrive", "timeout")

    def _arm(self, seconds: float, act: Callable[[], object]) -> None:
        self._disarm()
        self._deadline = reactor.callLater(seconds, act)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None


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
        view = self._view()
        self.most = STDIN_BYTES if view == "stdin" else self.channel.config.upload_bytes
        if length is not None and length > self.most:
            self._refuse_body()
        elif length != 0 and view:  # else what comes is read, and thrown away
            client = self._client()
            if length and length > self.server.engine.room(client):
                self._refuse_for_now(length)
            elif view != "stdin" and (length is None or length > SMALL_BODY):
                self._take_large(client, view)
            else:
                self.body = Body(self.server.engine, client)

    def _view(self) -> str | None:
        """The one to which the body will go."""
        method, target = self.channel.asked
        path, _ = _path_and_host(target)
        path = unquote_to_bytes(path.split(b"?", 1)[0])
        found = "stdin" if STDIN.fullmatch(path) else UPLOADS.get(path)
        return found if method == b"POST" else None

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
            # At "websocket" Daphne gives the connection to Autobahn, past the Guard. A list means
            # the same to us, and the Guard refuses it with a sentence.
            if not self._is_handshake(command, path, version):
                headers.setRawHeaders(b"Upgrade", [b",".join(upgrade) + b","])
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
        super().setResponseCode(code, message or _phrase(code))  # Twisted does not know 429

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
        content = _body(status, sentence, reason)
        headers = _headers() | {"Content-Length": str(len(content))}
        self.handle_reply(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        self.handle_reply({"type": "http.response.body", "body": content})


class Factory(HTTPFactory):
    """Makes the connections, up to a number, and up to a smaller one for each client."""

    protocol = Channel

    def __init__(self, server: "Server") -> None:
        super().__init__(server)
        self.clients: Counter[str] = Counter()  # connections by client

    def buildProtocol(self, addr: Any) -> Channel | None:
        config = self.server.config
        client = client_name(addr.host)
        crowded = self.clients[client] >= config.client_connections
        if crowded and not is_trusted(addr.host, networks(config.trust_proxy)):
            return None  # Twisted closes it
        if self.clients.total() >= CONNECTIONS:
            return None
        self.clients[client] += 1
        channel = super().buildProtocol(addr)
        assert isinstance(channel, Channel)
        channel.peer = addr.host
        channel.requestFactory = Request
        channel.timeOut = IDLE_SECONDS
        return channel

    def lost(self, address: str) -> None:
        """A connection from there is no more, whatever it had become."""
        client = client_name(address)
        self.clients[client] -= 1
        if not self.clients[client]:
            del self.clients[client]


class Turnstile:
    """Lets a few in each turn of the loop, in their order. Hundreds of requests that come at once
    would else all be begun in one turn, or hundreds of readers all be written to in each, and
    whoever asks for the server's health meanwhile waits for all.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._entered = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def enter(self) -> None:
        if self._entered < self._at_once and not self._waiting:
            self._entered += 1
            self._turn_next()
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _turn_next(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._entered = 0
        while self._waiting and self._entered < self._at_once:
            place = self._waiting.popleft()
            if not place.done():  # its client may have left
                place.set_result(None)
                self._entered += 1
        if self._entered:
            self._turn_next()


class Server(DaphneServer):
    """Serves `application` on `listener` until SIGTERM or SIGINT; then `engine` is closed."""

    def __init__(
        self,
        application: Application,
        listener: socket.socket,
        engine: Engine,
        may_open: MayOpen = lambda path, header: False,
    ) -> None:
        """`may_open`: whether a WebSocket is served on a path, to a request with such headers."""
        turnstile = Turnstile(REQUESTS_A_TURN)

        async def in_turn(scope: Scope, receive: Any, send: Any) -> None:
            if scope["path"] != "/health":
                await turnstile.enter()
            if scope["type"] == "websocket":
                receive = functools.partial(websocket.next_message, scope, receive)
            await application(scope, receive, send)

        super().__init__(
            in_turn,
            endpoints=["a socket that listens already"],
            server_name="",
            ping_interval=websocket.PING_SECONDS,
        )
        self.engine = engine
        self.may_open = may_open
        self.config = engine.config
        self.connections: dict[Any, dict[str, Any]] = {}
        self.ws_factory = websocket.factory(self)
        self.http_factory = Factory(self)
        self._writing = Turnstile(WRITES_A_TURN)
        self._listener = listener
        self._port: Any = None

    def run(self) -> None:
        """Daphne's, but for the listener and the factory; returns when all is closed."""
        globalLogBeginner.beginLoggingTo(  # Twisted would log the addresses of clients
            [_report_failures], redirectStandardIO=False, discardBuffer=True
        )
        # Connections inherit it. Linux counts it twice, for what it spends itself.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._port = reactor.adoptStreamPort(
            self._listener.fileno(), self._listener.family, self.http_factory
        )
        self._listener.close()  # Twisted has its own copy of it
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        reactor.addSystemEventTrigger(
            "before",
            "shutdown",
            lambda: defer.Deferred.fromFuture(asyncio.ensure_future(self._stop())),
        )
        reactor.run()

    def create_application(self, protocol: Any, scope: Scope) -> Any:
        if isinstance(protocol, Socket):
            scope["root_path"] = ""
            scope[SOCKET_KEY] = protocol
        if isinstance(protocol, Request):
            scope["root_path"] = ""  # Daphne believes a header that any client may send
            protocol.trailers = scope[TRAILERS_KEY] = {}
            if protocol.method == b"POST" and protocol.body is not None:
                scope[BODY_KEY], protocol.body = protocol.body, None
            else:
                protocol.drop_body()  # nobody reads it, and the answer may take long
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Write, then wait until the client has read enough of it; leave one that does not."""
        if message["type"] in ("websocket.send", "http.response.body"):
            await self._writing.enter()
        await super().handle_reply(protocol, message)
        gate = getattr(protocol, "gate", None)
        if gate and not gate.open.is_set():
            try:
                await asyncio.wait_for(gate.open.wait(), self.config.stall_seconds)
            except TimeoutError:
                protocol.abort()

    async def _stop(self) -> None:
        """Take no more, end what runs, and let the answers that are on their way arrive."""
        await self._port.stopListening().asFuture(asyncio.get_running_loop())
        await self.engine.close()
        running = [
            details["application_instance"]
            for details in self.connections.values()
            if "application_instance" in details
        ]
        if running:
            _, late = await asyncio.wait(running, timeout=DRAIN_SECONDS)
            for application in late:
                application.cancel()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), STOP_SECONDS)


def _report_failures(event: Any) -> None:
    """Of all that Twisted would log, the exceptions that nobody caught."""
    if failure := event.get("log_failure"):
        report(failure.value)


def _path_and_host(target: bytes) -> tuple[bytes, bytes | None]:
    """What the first line of a request names. Only a whole URL names a host."""
    found = _ABSOLUTE.fullmatch(target)
    if not found:
        return target, None
    return found[2] if found[2].startswith(b"/") else b"/" + found[2], found[1]


def _bare_response(
    status: int, sentence: str, reason: Reason, more: dict[str, str], retry_after: int
) -> bytes:
    """A whole response, for where no request exists that could carry it."""
    body = _body(status, sentence, reason, retry_after)
    headers = _headers() | more | {"Content-Length": str(len(body)), "Connection": "close"}
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after)
    lines = [
        f"HTTP/1.1 {status} {_phrase(status).decode()}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def _headers() -> dict[str, str]:
    return {"Content-Type": PROBLEM, **HEADERS}


def _body(
    status: int, sentence: str, reason: Reason, retry_after: int = BUSY_RETRY_SECONDS
) -> bytes:
    more = {"retry_after": retry_after} if status in (429, 503) else {}
    return encode({**problem(status, sentence, reason), **more})
