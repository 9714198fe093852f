"""WebSocket connections, with the bounds that Daphne and Autobahn lack: no more is read from a
client than is looked at, no more is written than it reads, and whoever answers no ping is left.
"""

import re
from collections.abc import Callable
from typing import Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

from jobs.api.gate import Gate

MESSAGE_BYTES = 64 * 1024  # what a client may send at once
FRAMES = 64  # in which it may come
WRITE_BYTES = 16 * 1024  # written but not read: at more the gate closes
HANDSHAKE_SECONDS = 5
PING_SECONDS = 20
PONG_SECONDS = 30
SOCKET_KEY = "sandrun.socket"  # of the scope
MESSAGE_KEY = "sandrun.message"  # of a websocket.send: what Autobahn has prepared for many

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes


class Socket(WebSocketProtocol):
    """One WebSocket, on the transport that a Channel had until then."""

    CONFIG_ATTRS = ()  # with them Autobahn would write a page about each socket, for no log of ours
    _waiting = 0  # messages of the client that nobody has taken

    def connectionMade(self) -> None:
        self.__dict__.update(self.factory.options)
        super().connectionMade()
        self._address = self.transport.getPeer().host
        self.gate = Gate()
        self.transport.unregisterProducer()  # the Channel's
        self.transport.bufferSize = WRITE_BYTES
        self.transport.registerProducer(self.gate, True)

    def connectionLost(self, reason: Any) -> None:
        self.gate.open.set()
        super().connectionLost(reason)
        self.factory.server_class.http_factory.lost(self._address)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._waiting += 1
        self.transport.pauseProducing()  # until somebody has taken what came
        super().onMessage(payload, isBinary)

    def taken(self) -> None:
        """One more of the client's messages is looked at."""
        self._waiting -= 1
        if self._waiting == 0 and self.state == self.STATE_OPEN:
            self.transport.resumeProducing()

    def handle_reply(self, message: dict[str, Any]) -> None:
        if self.state not in (self.STATE_CONNECTING, self.STATE_OPEN):
            return  # one of us has said the last word
        if prepared := message.get(MESSAGE_KEY):
            self.sendPreparedMessage(prepared)
        else:
            super().handle_reply(message)

    def onMessageBegin(self, isBinary: bool) -> None:
        self._frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        self._frames += 1
        if self._frames > FRAMES:  # empty ones would never make the message too long
            self.abort()
        super().onMessageFrameBegin(length)

    def onPing(self, payload: bytes) -> None:
        if self.gate.open.is_set():  # else the answers would pile up
            super().onPing(payload)

    def abort(self, *_: object) -> None:
        """Hang up."""
        self.transport.abortConnection()

    basic_error = abort  # what Daphne calls for an answer that is none


def factory(server: Any) -> WebSocketFactory:
    """For Daphne, which makes a Socket where a Request asks to be one."""
    made = WebSocketFactory(server)
    made.protocol = Socket
    made.setProtocolOptions(
        versions=[13],
        allowNullOrigin=True,  # the Guard has looked at the origin
        openHandshakeTimeout=HANDSHAKE_SECONDS,
        closeHandshakeTimeout=2,
        autoPingTimeout=PONG_SECONDS,
        maxMessagePayloadSize=MESSAGE_BYTES,
        maxFramePayloadSize=MESSAGE_BYTES,
        tcpNoDelay=True,
    )
    made.options = {name: getattr(made, name) for name in WebSocketProtocol.CONFIG_ATTRS}
    return made


async def next_message(scope: Any, receive: Callable[[], Any]) -> Any:
    """What Channels receives; the Socket hears that it was taken."""
    message = await receive()
    if message["type"] == "websocket.receive":
        scope[SOCKET_KEY].taken()
    return message


def is_handshake(headers: Any) -> bool:
    """Whether all is there that RFC 6455 (4.2.1) wants to see; Autobahn would refuse without a
    sentence.
    """

    def words(name: bytes) -> list[bytes]:
        return [
            word.strip().lower() for word in b",".join(headers.getRawHeaders(name, ())).split(b",")
        ]

    key = headers.getRawHeaders(b"Sec-WebSocket-Key", ())
    return (
        words(b"Upgrade") == [b"websocket"]
        and b"upgrade" in words(b"Connection")
        and words(b"Sec-WebSocket-Version") == [b"13"]
        and len(key) == 1
        and _KEY.fullmatch(key[0].strip()) is not None
        and words(b"Content-Length") in ([b""], [b"0"])
        and not headers.hasHeader(b"Transfer-Encoding")
    )
