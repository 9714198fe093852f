"""Connections, blocking here and for asyncio in awaiting.py, behind the same words.

All that speaks to a server is written once, as coroutines over these. Over a blocking network no
coroutine ever waits: `now` runs one to its end like a function, and no event loop is needed.
"""

import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from sandrun.errors import ConnectionFailed, TlsFailed

T = TypeVar("T")
READ_BYTES = 64 << 10


class Stream(Protocol):
    """An open connection. Raises ConnectionFailed, after which it is of no use."""

    async def send(self, data: bytes | memoryview) -> None: ...

    async def receive(self, seconds: float) -> bytes:
        """What has come, b"" at the end. Waits for at most `seconds`."""
        ...

    def is_stale(self) -> bool:
        """Whether an idle one was closed by the other side, as far as can be told at once."""
        ...

    def close(self) -> None: ...


class Aside(Protocol):
    """Something that goes on beside what its starter does."""

    async def wait(self) -> None:
        """For its end."""
        ...

    async def stop(self) -> None:
        """For its end, which is near, or is brought about."""
        ...


class Network(Protocol):
    async def connect(self, host: str, port: int, tls: bool, seconds: float) -> Stream: ...

    async def sleep(self, seconds: float) -> None: ...

    def aside(self, start: Callable[[], Coroutine[Any, Any, None]]) -> Aside: ...


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result, where everything it awaits blocks instead of waiting."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("a coroutine over a blocking network has waited")


def each(items: AsyncIterator[T]) -> Iterator[T]:
    """The items, for `for`; whoever leaves the loop early closes what they come from."""

    async def step() -> T:
        return await anext(items)

    try:
        while True:
            try:
                yield now(step())
            except StopAsyncIteration:
                return
    finally:
        if close := getattr(items, "aclose", None):
            now(close())


def failed(doing: str, host: str, port: int, error: BaseException) -> ConnectionFailed:
    if isinstance(error, TimeoutError):
        why = "no answer in time"
    else:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    kind = TlsFailed if type(error).__name__.startswith("SSL") else ConnectionFailed
    return kind(f"{doing} {host}:{port}: {why}")


def tls_context() -> Any:
    import ssl

    return ssl.create_default_context()


# ---- blocking


class BlockingNetwork:
    async def connect(self, host: str, port: int, tls: bool, seconds: float) -> "BlockingStream":
        try:
            opened = socket.create_connection((host, port), seconds)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                opened = tls_context().wrap_socket(opened, server_hostname=host)
        except (OSError, UnicodeError) as error:
            raise failed("Cannot reach", host, port, error) from None
        return BlockingStream(opened, host, port, seconds)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (nothing else waits here)

    def aside(self, start: Callable[[], Coroutine[Any, Any, None]]) -> "AsideThread":
        return AsideThread(start)


class BlockingStream:
    def __init__(self, opened: socket.socket, host: str, port: int, seconds: float) -> None:
        self._socket = opened
        self._peer = host, port
        self._seconds = seconds

    async def send(self, data: bytes | memoryview) -> None:
        try:
            self._socket.settimeout(self._seconds)
            self._socket.sendall(data)
        except OSError as error:
            raise failed("Lost the connection to", *self._peer, error) from None

    async def receive(self, seconds: float) -> bytes:
        try:
            self._socket.settimeout(seconds)
            return self._socket.recv(READ_BYTES)
        except OSError as error:
            raise failed("Lost the connection to", *self._peer, error) from None

    def is_stale(self) -> bool:
        try:
            self._socket.settimeout(0)
            return bool(self._socket.recv(1)) or True  # closed, or says what nobody has asked
        except BlockingIOError:
            return False
        except OSError as error:
            # TLS has a word of its own for "nothing there".
            return type(error).__name__ != "SSLWantReadError"

    def close(self) -> None:
        self._socket.close()


class AsideThread:
    def __init__(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        import threading

        self._coroutine = start()
        self._thread = threading.Thread(target=now, args=(self._coroutine,), daemon=True)
        self._thread.start()

    async def wait(self) -> None:
        self._thread.join()

    stop = wait
