"""Attacker: a client with an address of its own that runs hostile code on the real server, and what
can then be seen: from inside through the job's logs and outputs, from outside on the machine.
"""

import functools
import http.client
import itertools
import json
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sandrun.receipt import verify
from tests.journeys.server import Answer, Server, eventually, form, parse, targz

NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")
HAS_IPV6 = os.path.exists("/proc/net/if_inet6")  # whether this kernel has such sockets at all
SESSION = f"CNRY-{secrets.token_hex(4)}"  # how every canary of this run begins
_numbers = itertools.count(1)
_NONE: Mapping[str, bytes] = {}
_STREAMS = ("stdout", "stderr")

# `from probe import *` in Python code inside.
PROBE = '''
import ctypes, errno, json, mmap, os, resource, select, signal, socket, stat, struct, subprocess
import sys, threading, time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

def call(number, *args):
    """What a raw system call answers: "ok", or the name of its errno. bytes are pointers."""
    args = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in args]
    answer = libc.syscall(ctypes.c_long(number), *args)
    return "ok" if answer >= 0 else errno.errorcode[ctypes.get_errno()]

def tried(do, *args, **options):
    """ "ok", or the name of the errno that it raised."""
    try:
        do(*args, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"

def status(path="/proc/self/status"):
    lines = (line.split(":", 1) for line in Path(path).read_text().splitlines())
    return {name: value.strip() for name, value in lines}

def say(value):
    print(json.dumps(value), flush=True)
'''


# As many as are taken of those whose names are the longest where they are signed: a space is %20.
MANY_OUTPUTS = """
for _ in range(4):
    os.mkdir(" " * 250); os.chdir(" " * 250)
for n in range(4200):
    open(" " * 245 + f"{n:05}", "w").close()
"""


class Seen(NamedTuple):
    """A job that is over."""

    id: str
    status: dict[str, Any]  # /status with logs and outputs
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def code(self) -> int:
        """-1 when a signal ended it."""
        return int(self.status["execution_metadata"]["exit_code"])

    @property
    def reason(self) -> str | None:
        """None for a job that completed."""
        return None if self.status["reason"] is None else str(self.status["reason"])

    @property
    def said(self) -> Any:
        """The JSON that it said; it must have come to its end."""
        assert (self.reason, self.code) == (None, 0), (self.status, self.stderr.decode()[-2000:])
        return json.loads(self.stdout)


class Process(NamedTuple):
    """A process of a job as the machine shows it."""

    pid: int
    status: dict[str, str]
    namespaces: dict[str, str]
    descriptors: dict[int, str]
    mounts: list[list[str]]
    interfaces: list[str]


class Held(NamedTuple):
    """A running job from outside: our pid 1 and the program, and what it has said until now."""

    id: str
    said: Any
    init: Process
    program: Process

    def pids(self) -> list[int]:
        """Every process of the job, by its uid."""
        uid = self.init.status["Uid"]
        return [pid for pid, status in _processes() if status.get("Uid") == uid]


class Attacker:
    """One client address; everything that it starts is deleted by `leave`."""

    def __init__(self, server: Server, case: str = "XX") -> None:
        number = next(_numbers)
        self.server = server
        self.address = f"127.{100 + number // 60000}.{number // 250 % 240}.{number % 250 + 1}"
        self.canary = f"{SESSION}-{case}-{secrets.token_hex(6)}"
        self.tokens: dict[str, str] = {}  # of our jobs, by id

    # --- requests ----------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        seconds: float = 120,
    ) -> Answer:
        """One request from our address, on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.port, seconds, source_address=(self.address, 0)
        )
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(), fields)
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.server.port), 60, source_address=(self.address, 0)
        )

    def exchange(self, *raw: bytes) -> bytes:
        """All that comes back for these bytes until the server hangs up."""
        with self.connect() as client:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
                for piece in raw:
                    client.sendall(piece)
            received = bytearray()
            with suppress(ConnectionResetError):
                while piece := client.recv(65536):
                    received += piece
            return bytes(received)

    def answer(self, *raw: bytes) -> Answer:
        return parse(self.exchange(*raw))

    # --- jobs --------------------------------------------------------------------------------

    def submit(self, files: Mapping[str, bytes], **manifest: Any) -> Answer:
        """POST /submit as a form; of an accepted job the token is kept."""
        kind, body = form(files, manifest)
        return self.accepted(self.ask("POST", "/submit", body, {"Content-Type": kind}))

    def accepted(self, answer: Answer) -> Answer:
        """The same answer; of an accepted job the token is kept."""
        if answer.status == 200:
            self.tokens[answer.json["job_id"]] = answer.json["owner_token"]
        return answer

    def start(self, files: Mapping[str, bytes], *, canary: bool = True, **manifest: Any) -> str:
        """The id of an accepted job. Unless `canary` is false, our canary goes with it in a file's
        name, a file's content, and the environment."""
        if canary:
            files = {**files, f"{self.canary}.txt": self.canary.encode()}
            manifest["env"] = {**manifest.get("env", {}), "CANARY": self.canary}
        answer = self.submit(files, **manifest)
        assert answer.status == 200, answer
        return str(answer.json["job_id"])

    def start_archive(self, files: Mapping[str, bytes], **manifest: Any) -> str:
        """The same as one tar.gz."""
        return self.start({"job.tar.gz": targz(files)}, canary=False, **manifest)

    def finish(self, job: str) -> Seen:
        """Wait for its end. It is one end: asked again, it is the same; and if the server signs,
        it has signed all of it."""
        for _ in range(6):  # of a minute
            answer = self.ask("GET", f"/status/{job}?wait=60")
            assert answer.status == 200, answer
            if answer.json["status"] in ("completed", "failed"):
                break
        else:
            raise AssertionError(f"no limit ends {job}")
        streams = [self.ask("GET", f"/logs/{job}?stream={name}").body for name in _STREAMS]
        again = self.ask("GET", f"/status/{job}").json
        for name in ("status", "reason", "execution_metadata", "signal"):
            assert again[name] == answer.json[name], (name, again, answer.json)
        if self.server.worker:
            stdout, stderr = streams
            receipt = verify(answer.json["receipt"], [self.server.worker], job_id=job)
            receipt.check_status(answer.json, stdout=stdout, stderr=stderr)
        return Seen(job, answer.json, *streams)

    def run(self, files: Mapping[str, bytes], **options: Any) -> Seen:
        return self.finish(self.start(files, **options))

    def sh(
        self, script: str, *args: str, files: Mapping[str, bytes] = _NONE, **options: Any
    ) -> Seen:
        """Run a shell script."""
        given = {"interpreter": "sh", "entrypoint": "run.sh", "args": list(args), **options}
        return self.run({"run.sh": script.encode(), **files}, **given)

    def python(
        self, code: str, *args: str, files: Mapping[str, bytes] = _NONE, **options: Any
    ) -> Seen:
        """Run Python code, with the probe's names at hand."""
        return self.finish(self.start_python(code, *args, files=files, **options))

    def start_python(
        self, code: str, *args: str, files: Mapping[str, bytes] = _NONE, **options: Any
    ) -> str:
        main = "from probe import *\n" + code
        given = {"interpreter": "python3", "entrypoint": "main.py", "args": list(args), **options}
        return self.start({"main.py": main.encode(), "probe.py": PROBE.encode(), **files}, **given)

    def c(self, source: str, *args: str, flags: str = "", before: str = "", **options: Any) -> Seen:
        """Compile C here, run it there, by `sh`: `before` it, more of the script."""
        files = {"probe": compiled(source, flags), **options.pop("files", {})}
        script = f'{before}\nchmod +x probe && exec ./probe "$@"\n'
        return self.sh(script, *args, files=files, **options)

    @contextmanager
    def held(self, code: str = "say(os.getpid())", *args: str, **options: Any) -> Iterator[Held]:
        """A Python job that has said something and then waits to be ended, seen from outside."""
        mark = secrets.token_hex(8)  # finds its process among all
        job = self.start_python(code + "\nsignal.pause()", *args, mark, **options)
        try:
            assert eventually(lambda: b"\n" in self.log(job) or self.is_over(job), 30)
            assert not self.is_over(job), self.finish(job)
            program = next(pid for pid, status in _processes() if _is_marked(pid, mark))
            init = int(_status(program)["PPid"])
            yield Held(job, json.loads(self.log(job).splitlines()[0]), look(init), look(program))
            assert not self.is_over(job), self.finish(job)  # nobody else ended it
        finally:
            self.cancel(job)

    def log(self, job: str, stream: str = "stdout") -> bytes:
        return self.ask("GET", f"/logs/{job}?stream={stream}").body

    def is_over(self, job: str) -> bool:
        return self.ask("GET", f"/status/{job}").json["status"] in ("completed", "failed")

    def cancel(self, job: str) -> None:
        answer = self.ask("POST", f"/jobs/{job}/cancel", b"", self.bearer(job))
        assert answer.status == 200, answer

    def delete(self, job: str) -> None:
        """Forget it: at once it is nowhere."""
        answer = self.ask("DELETE", f"/jobs/{job}", b"", self.bearer(job))
        del self.tokens[job]
        assert answer.status == 200, answer
        assert self.ask("GET", f"/status/{job}").status == 404

    def download(self, job: str, path: str) -> bytes:
        answer = self.ask("GET", f"/download/{job}/{path}")
        assert answer.status == 200, answer
        return answer.body

    def leave(self) -> None:
        """Delete whatever we started; then nothing is counted against us any more (HI7)."""
        for job in list(self.tokens):
            if self.ask("GET", f"/status/{job}").status == 200:
                self.delete(job)
        if self.server.process.poll() is None:
            assert eventually(lambda: self._active() == 0, 5), "a slot of the quota is not back"

    def _active(self) -> int:
        return int(self.ask("GET", "/stats").json["your_quota"]["active_jobs"])

    def bearer(self, job: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[job]}"}


# --- the machine's side ------------------------------------------------------------------------


def look(pid: int) -> Process:
    proc = Path(f"/proc/{pid}")
    return Process(
        pid,
        _status(pid),
        {kind: os.readlink(proc / "ns" / kind) for kind in NAMESPACES},
        descriptors(pid),
        [line.split() for line in (proc / "mountinfo").read_text().splitlines()],
        [line.split(":")[0].strip() for line in (proc / "net/dev").read_text().splitlines()[2:]],
    )


def descriptors(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the one that lists them
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def _processes() -> Iterator[tuple[int, dict[str, str]]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield int(name), _status(int(name))


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def _is_marked(pid: int, mark: str) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return mark.encode() in words
    return False


# --- probes in C -------------------------------------------------------------------------------


@functools.cache
def compiled(source: str, flags: str = "") -> bytes:
    """A static program made from C source; the same source is compiled once."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        path = f"{folder}/probe"
        subprocess.run(
            ["gcc", "-O1", "-w", "-static", "-pthread", "-x", "c", "-", "-o", path, *flags.split()],
            input=source.encode(), check=True,
        )  # fmt: skip
        subprocess.run(["strip", path], check=True)
        return Path(path).read_bytes()
