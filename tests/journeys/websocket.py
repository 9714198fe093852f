"""A WebSocket client that can do what none should: it is told what to send, byte by byte."""

import base64
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """An open one. Raises ConnectionError, with what the server said, when it is refused."""

    def __init__(
        self,
        port: int,
        path: str,
        protocol: str | None = None,
        headers: tuple[str, ...] = (),
        address: str = "127.0.0.1",
        seconds: float = 30,
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds, (address, 0))
        lines = [
            f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket",
            "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []), *headers,
        ]  # fmt: skip
        self._held = b""
        self.closed: int | None = None  # the server's close code; 0 when it said none
        try:
            self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
            while b"\r\n\r\n" not in self._held and (piece := self.socket.recv(65536)):
                self._held += piece
            if not self._held.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(self._refusal().decode())
        except BaseException:
            self.socket.close()
            raise
        self.head, _, self._held = self._held.partition(b"\r\n\r\n")

    def _refusal(self) -> bytes:
        """The whole response that is no handshake."""
        head, _, _ = self._held.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(self._held) < len(head) + 4 + int(length[1]):
            if not (piece := self.socket.recv(65536)):
                break
            self._held += piece
        return self._held

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, content: bytes | str, kind: int = TEXT, last: bool = True) -> None:
        """One frame, masked as clients must."""
        data = content.encode() if isinstance(content, str) else content
        self.socket.sendall(frame(data, kind, last))

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end. A ping is answered and not told."""
        while True:
            head = self._take(2)
            if head is None:
                return None
            size = head[1] & 127
            if size > 125:
                more = self._take(2 if size == 126 else 8)
                assert more is not None
                (size,) = struct.unpack("!H" if size == 126 else "!Q", more)
            data = self._take(size)
            if data is None:
                return None
            kind = head[0] & 15
            if kind == CLOSE:
                self.closed = struct.unpack("!H", data[:2])[0] if data else 0
            elif kind == PING:
                self.send(data, PONG)
                continue
            return kind, data

    def texts(self) -> Iterator[str]:
        """Until the server closes."""
        while (found := self.receive()) is not None and found[0] != CLOSE:
            yield found[1].decode()

    def frames(self) -> Iterator[dict[str, Any]]:
        """The same, of sandrun.v1."""
        for text in self.texts():
            yield json.loads(text)

    def _take(self, size: int) -> bytes | None:
        while len(self._held) < size:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not piece:
                return None
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data


def frame(data: bytes, kind: int = TEXT, last: bool = True, size: int | None = None) -> bytes:
    """A masked frame; `size`: what its head says, if that is to be a lie."""
    size = len(data) if size is None else size
    head = bytes([kind | (128 if last else 0)])
    if size < 126:
        head += bytes([128 | size])
    elif size < 65536:
        head += b"\xfe" + struct.pack("!H", size)
    else:
        head += b"\xff" + struct.pack("!Q", size)
    mask = os.urandom(4)
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(
        len(data), "big"
    )
    return head + mask + masked


def content_of(frame: dict[str, Any]) -> bytes:
    """The bytes that a frame of stdout or stderr carries."""
    if "base64" in frame:
        return base64.b64decode(frame["base64"])
    return str(frame["data"]).encode()
