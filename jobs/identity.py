"""Identity: who signs the receipts of this server. Web's end of the signer, which has the key
(sandbox/signer.py); here is only what everybody may know, and a way to ask.
"""

import asyncio
import base64
import binascii
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.memory import MemoryFile, in_thread
from sandbox import channel
from sandbox.errors import SandboxError

SIGN_SECONDS = 10.0  # without a word from the signer, while somebody waits for one
_AT_ONCE = 16  # statements that lie at the signer: each is memory, a descriptor and a packet


class Identity:
    """One worker. All methods belong to one event loop."""

    def __init__(self, end: socket.socket) -> None:
        """`end`: ours of the SOCK_SEQPACKET pair that the keeper made."""
        end.setblocking(False)
        self._end = end
        self._worker_id = ""
        self._alive = False
        self._hello: asyncio.Future[None]
        self._next_id = 1
        self._asked: dict[int, asyncio.Future[bytes]] = {}  # until it is answered, whoever has left
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._heard = 0.0  # when it last answered or had nothing to do, by the loop's clock
        self._waiting: set[asyncio.Timeout] = set()
        self._watch: asyncio.TimerHandle | None = None  # one for all who wait

    async def start(self) -> None:
        """Hear who we are. Raises SandboxError("signer")."""
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        self._alive = True
        loop.add_reader(self._end, self._hear)
        try:
            async with asyncio.timeout(SIGN_SECONDS):
                await self._hello
        except TimeoutError:
            self._gone("it did not say who it is")
            raise SandboxError("signer", 0, "it did not say who it is") from None

    @property
    def worker_id(self) -> str:
        """Standard base64 of the public key."""
        return self._worker_id

    @property
    def alive(self) -> bool:
        """False once the signer has gone; every later call raises SandboxError."""
        return self._alive

    async def sign(self, statement: bytes) -> bytes:
        """The signature over `statement` as the payload of a DSSE envelope: 64 bytes.

        Raises SandboxError("signer") when it is gone, refuses, or answers nobody for SIGN_SECONDS.
        """
        try:
            async with asyncio.timeout(None) as limit:
                with self._watched(limit):
                    await self._slots.acquire()
                    return await (await self._ask(statement))
        except TimeoutError:
            raise SandboxError("signer", 0, f"no signature in {SIGN_SECONDS:g} s") from None
        except OSError as error:
            raise SandboxError("signer", error.errno or 0) from None

    async def _ask(self, statement: bytes) -> "asyncio.Future[bytes]":
        """Send it. The slot is the question's: free again when it was answered or not even sent."""
        try:
            with MemoryFile() as memory:
                await in_thread(len(statement), memory.write, statement)
                if not self._alive:
                    raise SandboxError("signer", 0, "it is gone")
                try:
                    message = {"op": "sign", "id": self._next_id}
                    channel.send(self._end, message, (memory.seal().fd,))
                except channel.ProtocolError as error:
                    raise SandboxError("signer", 0, str(error)) from None
        except BaseException:
            self._slots.release()
            raise
        answer = self._asked[self._next_id] = asyncio.get_running_loop().create_future()
        self._next_id += 1
        return answer

    @contextmanager
    def _watched(self, limit: asyncio.Timeout) -> Iterator[None]:
        """It runs out when the signer is silent, not when it is slow: many large statements of some
        must not be the failure of another's small one."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._heard = loop.time()
        self._waiting.add(limit)
        if not self._watch:
            self._watch = loop.call_later(SIGN_SECONDS, self._look)
        try:
            yield
        finally:
            self._waiting.discard(limit)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self._waiting:
            return
        if (left := self._heard + SIGN_SECONDS - loop.time()) > 0:
            self._watch = loop.call_later(left, self._look)
            return
        silent, self._waiting = self._waiting, set()
        for limit in silent:
            limit.reschedule(loop.time())

    def close(self) -> None:
        """Let go of the signer, which then ends. Who waits for a signature hears of it."""
        self._gone("it was closed")
        self._end.close()

    # --- what it says ------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            while self._alive:
                self._take(channel.receive(self._end)[0])
        except BlockingIOError:
            pass
        except channel.ProtocolError as error:
            self._gone(str(error))
        except (KeyError, TypeError, ValueError):
            self._gone("it does not speak as agreed")

    def _take(self, message: channel.Message) -> None:
        """Raises KeyError, TypeError or ValueError for nonsense."""
        if not self._worker_id:
            self._worker_id = base64.b64encode(_decoded(message, "hello", "public", 32)).decode()
            if not self._hello.done():
                self._hello.set_result(None)
            return
        answer = self._asked[message["id"]]
        self._heard = answer.get_loop().time()
        if message["op"] == "refused":
            refused = SandboxError("signer", 0, str(message["why"]))
            if not answer.done():  # else nobody waits any more
                answer.set_exception(refused)
        else:
            signature = _decoded(message, "signed", "signature", 64)
            if not answer.done():
                answer.set_result(signature)
        del self._asked[message["id"]]
        self._slots.release()

    def _gone(self, why: str) -> None:
        if not self._alive:
            return
        self._alive = False
        self._hello.get_loop().remove_reader(self._end)
        self._end.close()
        if not self._hello.done():
            self._hello.set_exception(SandboxError("signer", 0, why))
        for answer in self._asked.values():
            self._slots.release()
            if not answer.done():
                answer.set_exception(SandboxError("signer", 0, why))
        self._asked.clear()


def _decoded(message: channel.Message, op: str, field: str, size: int) -> bytes:
    if message["op"] != op:
        raise ValueError
    try:
        raw = base64.b64decode(message[field], validate=True)
    except binascii.Error:
        raise ValueError from None
    if len(raw) != size:
        raise ValueError
    return raw
