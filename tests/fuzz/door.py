"""Door: the real door (Guard, paths, views, engine) for the fuzzer, in this process, over a runner
that runs nothing but reads archives as the real one does.
"""

import asyncio
import functools
import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from jobs.api.site import Interpreter, Site
from jobs.api.uploads import BODY_KEY
from jobs.conf import Config
from jobs.engine import Engine
from jobs.memory import MemoryFile
from sandbox import runtimes, unpack
from sandbox.model import Inspection, Member
from sandrun_site.asgi import door
from tests.fakes import FakeRunner

_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_FILES = {"out/a.txt": b"1", "caf\u00e9 \udcff\n.py": b"2"}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Runner(FakeRunner):
    async def inspect(self, archive: int, *more: Any) -> Inspection:
        said = unpack.inspect(archive, 1 << 20)
        return Inspection(tuple(Member(*row) for row in said["members"]), said["job_json"])


class Door:
    """One Site for all requests; the job JOB with its TOKEN is there anew for each."""

    def __init__(self) -> None:
        self._loop = asyncio.Runner()
        self._loop.run(self._open())

    def close(self) -> None:
        self._loop.run(self.engine.close())
        self._loop.close()

    async def _open(self) -> None:
        runner = _Runner()
        runner.files = _FILES
        runner.stdout = b"\xff\n<b>"
        self.engine = Engine(runner, Config(quotas=False, allow_origin=("https://a.example",)))
        known = {name: Interpreter(one, "1") for name, one in runtimes.load().items()}
        self._app = door(Site(self.engine.config, self.engine, known, ("localhost", "[::1]")))

    def ask(self, raw: bytes) -> Answer | None:
        """The answer to the request that `raw` is, a head as HTTP/1.1 has it and a body; None for
        what the server below refuses already."""
        return self._loop.run(self._ask(raw))

    async def _ask(self, raw: bytes) -> Answer | None:
        answer = await self._send(b"POST /run?wait=60 HTTP/1.1\nhost: localhost\n\n1")
        assert answer is not None and answer.status == 200, answer
        (job,) = self.engine.store._jobs.values()
        try:
            raw = raw.replace(b"JOB", job.id.encode()).replace(b"TOKEN", job.owner_token.encode())
            return await self._send(raw)
        finally:
            for left in list(self.engine.store._jobs.values()):
                self.engine.delete(left)
            await asyncio.gather(*(task for _, task in self.engine._running.values()))

    async def _send(self, raw: bytes) -> Answer | None:
        scope, content = _scope(raw)
        if scope is None:
            return None
        body = scope[BODY_KEY] = MemoryFile()
        body.write(content)
        sent: list[dict[str, Any]] = []
        unheard = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not unheard.is_set():
                unheard.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.Event().wait()  # the client stays
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await asyncio.wait_for(self._app(scope, receive, send), 30)
        start, *pieces = sent
        return Answer(
            start["status"], start["headers"], b"".join(piece.get("body", b"") for piece in pieces)
        )


def _scope(raw: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """What Daphne makes of a head; None where Twisted would not let it through."""
    head, _, body = raw.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, rest = first.partition(b" ")
    target = rest.partition(b" ")[0]
    if not _NAME.fullmatch(method) or not target.startswith(b"/") or not target.isascii():
        return None, b""
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or b"\r" in line or b"\0" in line:
            return None, b""
        headers.append((name.lower(), value.strip(b" \t")))
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "https",
        "method": method.decode(),
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": target,
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ["203.0.113.9", 1],
        "server": ["127.0.0.1", 8443],
    }, body


@functools.cache
def opened() -> Door:
    """The one of this process."""
    return Door()
