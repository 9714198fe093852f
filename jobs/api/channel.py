"""Channel: one connection, with the bounds that Twisted lacks. Head and body of a request have
deadlines that no trickle prolongs, and whatever is refused before Django sees it is refused with a
sentence, in a response that looks like Django's.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import daphne.server  # noqa: F401  (first: it chooses the reactor)
from twisted.internet import interfaces
from twisted.internet import reactor as installed_reactor
from twisted.web import http
from zope.interface import implementer

from jobs.api.middleware import HEADERS
from jobs.api.wire import PROBLEM, encode, problem
from jobs.conf import Config
from jobs.errors import Reason

reactor: Any = installed_reactor
TwistedChannel: Any = http.HTTPChannel  # comes without types

BUSY_RETRY_SECONDS = 5
LINGER_SECONDS = 5  # for a refused client to read why; for an answer that may have no reader


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
            response = bare_response(status, sentence, reason, self._cors(), retry_after)
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


def bare_response(
    status: int, sentence: str, reason: Reason, more: dict[str, str], retry_after: int
) -> bytes:
    """A whole response, for where no request exists that could carry it."""
    body = problem_body(status, sentence, reason, retry_after)
    headers = plain_headers() | more | {"Content-Length": str(len(body)), "Connection": "close"}
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after)
    lines = [
        f"HTTP/1.1 {status} {phrase(status).decode()}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def plain_headers() -> dict[str, str]:
    return {"Content-Type": PROBLEM, **HEADERS}


def problem_body(
    status: int, sentence: str, reason: Reason, retry_after: int = BUSY_RETRY_SECONDS
) -> bytes:
    more = {"retry_after": retry_after} if status in (429, 503) else {}
    return encode({**problem(status, sentence, reason), **more})
