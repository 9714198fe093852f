"""A whole server without a sandbox: our Server and Django in front of a FakeRunner, in a process of
its own since a reactor runs once. Says its port, as the real one does.
"""

import asyncio
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Wired:
    """Such a server while the block lasts. Every job makes `files` of so many bytes; with `hold`
    none ends by itself; without `collects` no garbage is collected; `settings` are of Config.
    """

    def __init__(
        self,
        files: dict[str, int] | None = None,
        hold: bool = False,
        collects: bool = True,
        **settings: object,
    ) -> None:
        orders = {"files": files or {}, "hold": hold, "collects": collects, "settings": settings}
        self._orders = json.dumps(orders)

    def __enter__(self) -> "Wired":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.wired", self._orders],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.port = int(line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.out, self.err = self.process.communicate(timeout=10)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self, raw: bytes) -> bytes:
        """Everything that comes back for `raw` until the server hangs up."""
        with self.connect() as client:
            client.sendall(raw)
            return read_all(client)

    def held(self) -> list[int]:
        """Bytes of each MemoryFile that the server has open."""
        return held(self.process.pid)

    def living(self) -> dict[str, int]:
        """How many there are of what a request consists of, by the names of their types."""
        self.process.send_signal(signal.SIGUSR1)
        assert self.process.stdout
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found

    def peak_rss(self) -> int:
        """Bytes of memory that the server ever had in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


def held(pid: int) -> list[int]:
    """Bytes of each MemoryFile that a process has open."""
    sizes = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if str(fd.readlink()).startswith("/memfd:sandrun"):
                sizes.append(fd.stat().st_size)
    return sorted(sizes)


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := client.recv(65536):
        received += piece
    return bytes(received)


def readable(client: socket.socket, seconds: float) -> bool:
    return bool(select.select([client], [], [], seconds)[0])


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandrun_site.settings")
    import django

    django.setup()
    from jobs import conf
    from jobs.api.channel import reactor
    from jobs.api.server import Server
    from jobs.api.site import Interpreter, Site
    from jobs.api.sockets import welcome
    from jobs.engine import Engine
    from sandbox import runtimes
    from sandrun_site.asgi import door
    from tests.fakes import FakeRunner

    orders: dict[str, Any] = json.loads(sys.argv[1])
    loop = reactor._asyncioEventloop
    asyncio.set_event_loop(loop)

    async def open_site() -> Site:
        runner = FakeRunner(hold=orders["hold"])
        runner.files = {name: bytes(size) for name, size in orders["files"].items()}
        config = conf.read(orders["settings"])
        engine = Engine(runner, config)
        engine.start()
        known = {name: Interpreter(one, "fake") for name, one in runtimes.load().items()}
        return Site(config, engine, known, ("localhost", "127.0.0.1"))

    def say_living(*_: object) -> None:
        kinds = ("Request", "Channel", "ASGIRequest", "Reading", "Rejected", "UnknownJob")
        names = (type(one).__name__ for one in gc.get_objects())
        print(json.dumps(Counter(name for name in names if name in kinds)), flush=True)

    signal.signal(signal.SIGUSR1, say_living)
    if not orders["collects"]:
        gc.disable()
    site = loop.run_until_complete(open_site())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    Server(door(site), listener, site.engine, welcome(site)).run()


if __name__ == "__main__":
    main()
