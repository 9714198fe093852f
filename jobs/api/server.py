"""Server: Daphne, with the bounds that it lacks. Stock Daphne reads a body of any size to disk
before anybody is asked, lets Twisted parse uploads on the event loop, gives clients all the time
they want, and keeps what a slow client does not read.

Here connections are counted by client (channel.py is one of them, request.py what it asks), what
many ask at once is done a little in each turn of the loop, and an answer is written as fast as it
is read. There is no access log.
"""

import asyncio
import functools
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from daphne.http_protocol import HTTPFactory
from daphne.server import Server as DaphneServer
from twisted.internet import defer
from twisted.logger import globalLogBeginner

from jobs.api import websocket
from jobs.api.channel import Channel, reactor
from jobs.api.clients import client_name, is_trusted, networks
from jobs.api.errors import report
from jobs.api.request import Request
from jobs.api.uploads import BODY_KEY
from jobs.api.views import TRAILERS_KEY
from jobs.api.websocket import SOCKET_KEY, Socket
from jobs.engine import Engine

Scope = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]
MayOpen = Callable[[str, Callable[[str], str | None]], bool]

IDLE_SECONDS = 20  # a connection that asks nothing
REQUESTS_A_TURN = 4  # begun before others are heard again
SOCKETS_A_TURN = 4  # opened before others are heard again
WRITES_A_TURN = 16  # pieces of answers, of whatever many clients read at once
SEND_BYTES = 256 * 1024  # of an answer in the kernel; it would take 4 MB for each slow reader
CONNECTIONS = 8000  # of 40 KiB each, when they are WebSockets
DRAIN_SECONDS = 1.0  # for answers that are on their way when we stop
STOP_SECONDS = 0.5  # for those that are cut off then


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
        self.opening = Turnstile(SOCKETS_A_TURN)
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
