"""Connections for asyncio (see streams.py). Imported only by who needs it: asyncio takes 50 ms."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sandrun.streams import READ_BYTES, failed, tls_context


class AsyncioNetwork:
    async def connect(self, host: str, port: int, tls: bool, seconds: float) -> "AsyncioStream":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                _, stream = await loop.create_connection(
                    lambda: AsyncioStream(loop, host, port, seconds),
                    host, port, ssl=tls_context() if tls else None,
                )  # fmt: skip
        except (OSError, UnicodeError) as error:
            raise failed("Cannot reach", host, port, error) from None
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def aside(self, start: Callable[[], Coroutine[Any, Any, None]]) -> "AsideTask":
        return AsideTask(asyncio.create_task(start()))


class AsyncioStream(asyncio.Protocol):
    """What has come is kept when the connection is lost: it may say why. (asyncio's StreamReader
    throws it away.)
    """

    transport: asyncio.Transport

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, seconds: float
    ) -> None:
        self._loop = loop
        self._peer = host, port
        self._seconds = seconds
        self._came = bytearray()
        self._over = False
        self._error: Exception | None = None
        self._news = asyncio.Event()  # something came, or nothing will
        self._room = asyncio.Event()  # to write more
        self._room.set()

    async def send(self, data: bytes | memoryview) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._room.wait()
                if self._over:
                    raise self._error or ConnectionResetError("it was closed")
                self.transport.write(data)
                await self._room.wait()
        except OSError as error:
            raise failed("Lost the connection to", *self._peer, error) from None

    async def receive(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError as error:
            raise failed("Lost the connection to", *self._peer, error) from None
        if not self._came and self._error:
            raise failed("Lost the connection to", *self._peer, self._error)
        data = bytes(self._came)
        self._came.clear()
        if not self._over:
            self._news.clear()
            self.transport.resume_reading()
        return data

    def is_stale(self) -> bool:
        """Also when it belongs to an event loop that is no more."""
        elsewhere = self._loop is not asyncio.get_running_loop()
        return elsewhere or self._over or bool(self._came) or self.transport.is_closing()

    def close(self) -> None:
        with suppress(RuntimeError):  # its event loop is closed
            self.transport.abort()  # at once: there is nothing that anybody waits for

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        self._news.set()
        if len(self._came) >= READ_BYTES:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self._over = True
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._over, self._error = True, error
        self._news.set()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()


class AsideTask:
    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    async def wait(self) -> None:
        await asyncio.wait([self._task])

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
