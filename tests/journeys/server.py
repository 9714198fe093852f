"""Server: the real one, started as the README says, and a client that knows only HTTP."""

import asyncio
import http.client
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
ENDED = ("completed", "failed")


class Server:
    """One running `script/server`; `end` stops it as Ctrl-C would."""

    worker = ""  # who has to have signed what it tells of jobs, if the test has given it a key

    def __init__(
        self,
        *options: str,
        repository: Path = REPOSITORY,
        prefix: list[str] | None = None,
        env: Mapping[str, object] | None = None,
    ):
        """`env`: settings, SANDRUN_... with their values."""
        self.process = subprocess.Popen(
            [*(prefix or []), str(repository / "script" / "server"), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd="/", stdin=subprocess.DEVNULL,
            env={**os.environ, **{name: str(value) for name, value in (env or {}).items()}},
        )  # fmt: skip
        self.banner = ""
        self.port = 0
        assert self.process.stdout
        for line in self.process.stdout:
            self.banner += line
            if "Sandrun is ready on http://" in line:
                self.port = int(line.rsplit(":", 1)[1].strip().strip("/"))
                break
        assert self.port, f"the server did not start:\n{self.banner}"

    def end(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop; its exit code. What it printed meanwhile is in `banner`."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=10)
        self.banner += rest or ""
        return self.process.returncode

    def pids(self) -> dict[str, int]:
        """keeper, launcher, web, and signer if there is one, by name."""
        pids = {"keeper": self.process.pid}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    words = (stat.parent / "cmdline").read_text()
                    ours = ("launcher", "signer")
                    name = next((name for name in ours if f"sandbox.{name}" in words), "web")
                    pids[name] = int(stat.parent.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return pids

    # --- HTTP --------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), fields
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        status, body, _ = self.request("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def submit(
        self, files: dict[str, bytes], manifest: dict[str, Any] | str | None
    ) -> tuple[int, dict[str, Any]]:
        """POST /submit with file parts by file name: (status, JSON)."""
        kind, body = form(files, manifest)
        status, answer, _ = self.request("POST", "/submit", body, **{"Content-Type": kind})
        return status, json.loads(answer)

    def start(self, files: dict[str, bytes], **manifest: Any) -> str:
        """The id of an accepted job."""
        status, answer = self.submit(files, manifest)
        assert status == 200, (status, answer)
        return str(answer["job_id"])

    def finish(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        """/status of the job once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status: dict[str, Any] = self.get(f"/status/{job}?wait=10")
            if status["status"] in ENDED:
                return status
        raise AssertionError(f"{job} did not end within {seconds} s: {status}")

    def run(
        self, files: dict[str, bytes], **manifest: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(status, logs) of a job run to its end."""
        job = self.start(files, **manifest)
        return self.finish(job), self.get(f"/logs/{job}")

    def wait_for_log(self, job: str, word: str, seconds: float = 20.0) -> None:
        """Until the job has printed `word`."""
        assert eventually(lambda: word in self.get(f"/logs/{job}")["stdout"], seconds), word

    def slowest_health(self, job: str) -> float:
        """Seconds of the slowest /health until the job is over, asked for without a pause to spare:
        a stall must not be able to fall on another request."""
        times: list[float] = []

        def ask() -> None:
            started = time.monotonic()
            status, _, _ = self.request("GET", "/health")
            times.append(time.monotonic() - started if status == 200 else float("inf"))

        with meanwhile(ask, 0.02):  # and not /status?wait=, which brings the whole log with it
            assert eventually(lambda: self.get(f"/status/{job}")["status"] in ENDED, 150)
        return max(times)


def make_key(file: Path) -> str:
    """The path of a new worker key, as an operator makes one."""
    command = [REPOSITORY / "script/server", "--generate-key", file]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(file)


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def meanwhile(do: Callable[[], object], seconds: float) -> Iterator[None]:
    """Do it again and again in a thread, at least once, with a pause of so many seconds."""
    over = threading.Event()

    def again() -> None:
        do()
        while not over.wait(seconds):
            do()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def form(files: Mapping[str, bytes], manifest: Mapping[str, Any] | str | None) -> tuple[str, bytes]:
    """multipart/form-data with file parts by file name: (Content-Type, body)."""
    boundary = uuid.uuid4().hex
    parts = [
        (f'name="files"; filename="{name}"\r\nContent-Type: application/octet-stream', content)
        for name, content in files.items()
    ]
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        parts.append(('name="manifest"', text.encode()))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for head, content in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return kind, body + f"--{boundary}--\r\n".encode()


# --- many clients at once --------------------------------------------------------------------


class Answer(NamedTuple):
    """What one request was answered."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One client address of many; its requests do not wait for each other."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.port = port
        self.address = address

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request over its own connection, from our address."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(self.address, 0)
        )
        try:
            fields = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))}
            head = "".join(
                f"{name}: {value}\r\n" for name, value in {**fields, **(headers or {})}.items()
            )
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            return parse(await reader.read())
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def submit(self, files: Mapping[str, bytes], wait: int = 0, **manifest: Any) -> Answer:
        kind, body = form(files, manifest)
        path = f"/submit?wait={wait}" if wait else "/submit"
        return await self.ask("POST", path, body, {"Content-Type": kind})

    async def status(self, job: str, wait: int = 0) -> dict[str, Any]:
        answer = await self.ask("GET", f"/status/{job}?wait={wait}")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def finish(self, job: str) -> dict[str, Any]:
        """/status, logs and outputs of the job once it has ended."""
        while True:
            status = await self.status(job, 60)
            if status["status"] in ("completed", "failed"):
                return status

    async def cancel(self, job: str, owner_token: str) -> dict[str, Any]:
        bearer = {"Authorization": f"Bearer {owner_token}"}
        answer = await self.ask("POST", f"/jobs/{job}/cancel", b"", bearer)
        assert answer.status == 200, answer
        return dict(answer.json)


def parse(raw: bytes) -> Answer:
    """A whole response, read to the end of the connection."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    return Answer(int(first.split()[1]), body, headers)


def _dechunked(raw: bytes) -> bytes:
    body = bytearray()
    start = 0
    while start < len(raw):
        end = raw.index(b"\r\n", start)
        length = int(raw[start:end], 16)
        if not length:  # trailers may follow
            break
        body += memoryview(raw)[end + 2 : end + 2 + length]
        start = end + 2 + length + 2
    return bytes(body)


# --- what the machine shows of the server ----------------------------------------------------


class Memory(NamedTuple):
    """What one process holds, in bytes."""

    rss: int
    memfds: int  # what its memfds really take, each counted once
    memfd_count: int
    descriptors: int

    @property
    def total(self) -> int:
        return self.rss + self.memfds


def memory_of(pid: int) -> Memory:
    rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    blocks: dict[int, int] = {}
    folder = f"/proc/{pid}/fd"
    names = os.listdir(folder)
    for name in names:
        with suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                found = os.stat(f"{folder}/{name}")
                blocks[found.st_ino] = found.st_blocks * 512
    return Memory(rss, sum(blocks.values()), len(blocks), len(names))


class Watch:
    """The largest of what a process held between two points of time, looked at all the while."""

    def __init__(self) -> None:
        self.most = Memory(0, 0, 0, 0)
        self.total = 0
        self.looks = 0

    def look(self, pid: int) -> None:
        seen = memory_of(pid)
        self.most = Memory(*map(max, self.most, seen))
        self.total = max(self.total, seen.total)
        self.looks += 1


@contextmanager
def watching(pid: int, seconds: float = 0.005) -> Iterator[Watch]:
    """Look every `seconds`, in a thread."""
    watch = Watch()
    with meanwhile(lambda: watch.look(pid), seconds):
        yield watch
    watch.look(pid)


def targz(files: Mapping[str, bytes], mode: Literal["w:gz", "w"] = "w:gz") -> bytes:
    """A tar.gz of the files, or as plain a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def processes_below(pid: int) -> Iterator[int]:
    """Every process that this one has started, and those that they have."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                yield child
                yield from processes_below(child)


def cgroups_of(keeper: int) -> list[str]:
    """Cgroup folders of jobs that this keeper's launcher made."""
    return [
        path
        for path, _, _ in os.walk("/sys/fs/cgroup")
        if f"/sandrun-{keeper}-" in path and "/jobs/" in path
    ]
