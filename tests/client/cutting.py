"""A way to the server that breaks: a proxy which ends connections in the middle."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Cut = Callable[[int, bytes], int | None]


class Proxy:
    """Passes bytes on to `port`. Of the connection number `n` (from 0), which began with the bytes
    `head`, no more than cut(n, head) bytes of answers are passed on, then it is reset; None: all.
    """

    def __init__(self, port: int, cut: Cut) -> None:
        self._to = port
        self._cut = cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.heads: list[bytes] = []  # how each connection began
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server, suppress(OSError):
            head = client.recv(65536)
            number = len(self.heads)
            self.heads.append(head)
            left = self._cut(number, head)
            server.sendall(head)
            back = threading.Thread(target=_pump, args=(client, server))
            back.start()
            while data := server.recv(65536):
                if left is not None:
                    data, left = data[:left], left - len(data)
                client.sendall(data)
                if left is not None and left <= 0:
                    break
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
