"""HTTP to one server: requests, answers, and what is said on and on. The words of the protocol are
h11's, which is imported with the first request.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from sandrun.errors import ConnectionFailed, SandrunError, refusal
from sandrun.streams import Network, Stream

if TYPE_CHECKING:
    import h11

_PIECE = 128 << 10
_HEAD_BYTES = 64 << 10
_IDLE = 8  # connections that are kept to ask again

Progress = Callable[[int, int], None]  # bytes that are sent, and all that will be


@dataclass(frozen=True)
class Body:
    """What is sent, in pieces that can be sent again."""

    content_type: str
    pieces: Sequence[bytes | memoryview]
    size: int


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # quoted, with its query
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    sent: Progress | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    @property
    def problem(self) -> Mapping[str, Any]:
        """What it says is wrong; nothing, where something else than Sandrun has answered."""
        if 300 <= self.status < 400:
            elsewhere = self.headers.get("location", "")
            return {"error": f"The server is elsewhere (HTTP {self.status}): {elsewhere!r}"}
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ConnectionFailed("The server's answer is no JSON: is it Sandrun?") from None


class Http:
    """Speaks to the server at `url`; waits `timeout` seconds for each sign of life."""

    def __init__(self, network: Network, url: str, timeout: float) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
        except ValueError as error:  # an IPv6 address without its end
            raise SandrunError(f"{url!r} is no address of a server: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SandrunError(f"{url!r} is no address of a server, like http://localhost:8443")
        try:
            port = parts.port
        except ValueError:
            raise SandrunError(f"{url!r} has no possible port") from None
        if "@" in parts.netloc:
            raise SandrunError("The address of a server has no user and no password in it")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._prefix = quote(parts.path.rstrip("/"), safe="/%~:@!$&'()*+,;=")
        self.url = f"{parts.scheme}://{self._authority}{self._prefix}"
        self._network = network
        self._timeout = timeout
        self._idle: list[_Connection] = []  # each has been answered, and may be asked again

    async def ask(self, request: Request) -> Answer:
        """The whole answer. Raises Refused or ConnectionFailed."""
        connection = await self._connection()
        try:
            status, headers = await connection.ask(self._head(request), request)
            async with aclosing(connection.pieces()) as pieces:
                answer = Answer(status, headers, b"".join([piece async for piece in pieces]))
        finally:
            self._keep(connection)
        if status >= 300:
            raise refusal(status, answer.problem)
        return answer

    async def listen(
        self, request: Request, until: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of the answer, as they come, until time.monotonic() is `until`. Raises Refused
        or ConnectionFailed.
        """
        connection = await self._connection()
        try:
            status, headers = await connection.ask(self._head(request), request, until)
            async with aclosing(connection.pieces(until)) as pieces:
                if status >= 300:
                    said = b"".join([piece async for piece in pieces])
                    raise refusal(status, Answer(status, headers, said).problem)
                async for piece in pieces:
                    yield piece
        finally:
            self._keep(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            if not (connection := self._idle.pop()).is_stale():
                return connection
            connection.close()
        stream = await self._network.connect(self._host, self._port, self._tls, self._timeout)
        return _Connection(stream, self._timeout)

    def _keep(self, connection: "_Connection") -> None:
        if len(self._idle) < _IDLE and connection.is_ready():
            self._idle.append(connection)
        else:
            connection.close()

    def _head(self, request: Request) -> "h11.Request":
        import h11

        headers = {
            "Host": self._authority,
            "User-Agent": "sandrun",
            "Accept": "application/json",
            **request.headers,
        }
        if request.body:
            headers["Content-Type"] = request.body.content_type
            headers["Content-Length"] = str(request.body.size)
        elif request.method == "POST":
            headers["Content-Length"] = "0"
        target = self._prefix + request.path
        return h11.Request(method=request.method, target=target, headers=list(headers.items()))


class _Connection:
    """One request after the other."""

    def __init__(self, stream: Stream, timeout: float) -> None:
        import h11

        self._stream = stream
        self._timeout = timeout
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)

    async def ask(
        self, head: "h11.Request", request: Request, until: float | None = None
    ) -> tuple[int, Mapping[str, str]]:
        """The status and the headers of the answer; `pieces` must follow."""
        try:
            await self._send(head, request)
        except ConnectionFailed:
            # Whoever refuses a body answers early and reads no further: the answer may be there.
            try:
                return await self._answer()
            except ConnectionFailed:
                pass
            raise
        return await self._answer(until)

    async def pieces(self, until: float | None = None) -> AsyncGenerator[bytes, None]:
        import h11

        while True:
            event = await self._event(until)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    def is_ready(self) -> bool:
        """Whether another request may follow, once the answer was read to its end."""
        import h11

        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        if self._h11.trailing_data[0]:  # an answer that nobody has asked for
            return False
        self._h11.start_next_cycle()
        return True

    def is_stale(self) -> bool:
        return self._stream.is_stale()

    def close(self) -> None:
        self._stream.close()

    async def _send(self, head: "h11.Request", request: Request) -> None:
        import h11

        begin = self._h11.send(head)
        assert begin is not None
        if not request.body or request.body.size < _PIECE:  # in one go
            whole = b"".join(request.body.pieces) if request.body else b""
            if whole:
                self._h11.send(h11.Data(data=whole))
            self._h11.send(h11.EndOfMessage())
            await self._stream.send(begin + whole)
            if request.sent:
                request.sent(len(whole), len(whole))
            return
        await self._stream.send(begin)
        done = 0
        for piece in request.body.pieces:
            view = memoryview(piece)
            for start in range(0, len(view), _PIECE):
                part = view[start : start + _PIECE]
                self._h11.send(h11.Data(data=bytes(part)))  # of a known length: it goes as it is
                await self._stream.send(part)
                done += len(part)
                if request.sent:
                    request.sent(done, request.body.size)
        self._h11.send(h11.EndOfMessage())

    async def _answer(self, until: float | None = None) -> tuple[int, Mapping[str, str]]:
        import h11

        while not isinstance(event := await self._event(until), h11.Response):
            pass  # 100 Continue, or the like
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return event.status_code, headers

    async def _event(self, until: float | None = None) -> "h11.Event":
        import h11

        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise ConnectionFailed(f"The server's answer breaks off: {error}") from None
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type), event  # PAUSED: nobody has asked
                return event
            seconds = self._timeout
            if until is not None:
                seconds = min(seconds, max(until - time.monotonic(), 0.001))
            self._h11.receive_data(await self._stream.receive(seconds))
