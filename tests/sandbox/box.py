"""Box: a real launcher and its client for the tests of this folder, and what the machine shows
from outside while a job runs. Nothing here is faked: root, the real kernel, real processes.
"""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Coroutine, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from sandbox import cgroups, channel
from sandbox.feed import Feed
from sandbox.model import (
    FIRST_UID,
    UIDS,
    Bundle,
    Command,
    Gauge,
    Inspection,
    Limits,
    Member,
    Result,
)
from sandbox.runtimes import BASE_ENV, load
from sandbox.sandbox import OnLook, Sandbox

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-I", "-m", "sandbox.launcher"]
PYTHON = load()["python3"]


class Ran(NamedTuple):
    """A Result with the logs and the outputs' bytes."""

    result: Result
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes]

    @property
    def reason(self) -> str:
        return self.result.verdict.reason

    @property
    def code(self) -> int | None:
        return self.result.verdict.exit_code

    @property
    def text(self) -> str:
        return self.stdout.decode()


class Box:
    """One launcher; `run` and its like block until the end, `loop` is for more at once."""

    def __init__(self, launcher: Sequence[str] = LAUNCHER, without: Sequence[str] = ()) -> None:
        """`without`: controllers that its launcher is not given."""
        self.runner = asyncio.Runner()
        self.parents = cgroups.prepare(f"{cgroups.name_of_this_process()}-{time.monotonic_ns()}")
        given = [
            parent._replace(controllers=tuple(c for c in parent.controllers if c not in without))
            for parent in self.parents
            if not set(parent.controllers) <= set(without)
        ]
        ours, theirs = channel.pair()
        self.process = subprocess.Popen(
            [*launcher, str(theirs.fileno()), _json(given)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
                 "PYTHONPATH": str(REPOSITORY)},
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self.sandbox = Sandbox(ours)

    def start(self) -> "Box":
        self.runner.run(self.sandbox.start())
        return self

    def close(self) -> None:
        """End the launcher and remove its cgroups; raises when something was left in them."""
        self.runner.run(self.sandbox.close())
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.runner.close()
            cgroups.remove(self.parents)

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    # --- running -----------------------------------------------------------------------------

    def sh(self, script: str, **options: Any) -> Ran:
        """Run a shell script."""
        return self.wait(self.arun(Command((("sh", "-c", script),), BASE_ENV), **options))

    def python(self, code: str, *args: str, **options: Any) -> Ran:
        """Run Python code as /job/main.py."""
        return self.wait(self.apython(code, *args, **options))

    async def apython(self, code: str, *args: str, **options: Any) -> Ran:
        files = {"main.py": code.encode(), **options.pop("files", {})}
        return await self.arun(PYTHON.command("main.py", args), files=files, **options)

    async def arun(
        self,
        command: Command,
        *,
        files: dict[str, bytes] | None = None,
        bundle: Bundle | None = None,
        on_output: Callable[[str, bytes], None] | None = None,
        cap: int = 10 << 20,
        stdin: bytes | Feed = b"",
        patterns: Sequence[str] = (),
        on_gauge: Callable[[Callable[[], Gauge]], None] = lambda gauge: None,
        on_look: OnLook = lambda look: None,
        stop: "asyncio.Future[str] | None" = None,
        **limits: Any,
    ) -> Ran:
        """Run; keywords of Limits are limits. Closes what it was given."""
        logs = {"stdout": bytearray(), "stderr": bytearray()}

        def keep(stream: str, view: memoryview) -> None:
            logs[stream] += view[: max(0, cap - len(logs[stream]))]
            if on_output:
                on_output(stream, bytes(view))

        bundle = bundle or loose(files or {})
        limits.setdefault("wall_seconds", 30.0)
        try:
            result = await self.sandbox.run(
                command, bundle, Limits(**limits),
                stdin=stdin, patterns=patterns, on_output=keep, on_gauge=on_gauge,
                on_look=on_look, stop=stop,
            )  # fmt: skip
        finally:
            os.close(bundle.fd)
        out = result.outputs
        contents = {f.path: os.pread(out.fd, f.size, f.offset) for f in out.files}
        if out.fd >= 0:
            os.close(out.fd)
        return Ran(result, bytes(logs["stdout"]), bytes(logs["stderr"]), contents)

    def inspect(self, archive: bytes) -> Inspection:
        """Inspect the bytes of an archive; raises BundleRefused."""
        fd = channel.memfd("upload", archive)
        try:
            return self.wait(self.sandbox.inspect(fd))
        finally:
            os.close(fd)

    # --- the machine's side ------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Host pids of everything in this box's cgroups."""
        return sorted(
            {
                int(pid)
                for parent in self.parents
                for folder in Path(parent.path).iterdir()
                for pid in pids_in(folder)
            }
        )

    def cgroup_folders(self) -> list[str]:
        return [
            str(p) for parent in self.parents for p in Path(parent.path).iterdir() if p.is_dir()
        ]


def loose(files: dict[str, bytes]) -> Bundle:
    """Loose files as a Bundle; the caller closes its descriptor."""
    members = tuple(Member(path, len(data), 10**9, 0o644, "") for path, data in files.items())
    return Bundle("loose", channel.memfd("bundle", b"".join(files.values())), members)


def tarred(*members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> bytes:
    """A tar of (name or TarInfo, content)."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue()


def launcher_descriptors(pid: int) -> int:
    """How many it has open, but for the network namespaces that it keeps to use them again."""
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += not os.readlink(fd).startswith("net:[")
        except FileNotFoundError:  # closed meanwhile
            continue
    return count


def pids_in(cgroup: str | Path) -> list[int]:
    """Host pids of everything in one cgroup; none in one that is gone, or goes meanwhile."""
    try:
        return [int(pid) for pid in Path(cgroup, "cgroup.procs").read_text().split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
            return []
        raise


def job_processes() -> list[int]:
    """Every process with a uid from the range that jobs get, but for those of somebody else's
    living keeper: a server that runs on this machine meanwhile is no business of the tests."""
    return [pid for pid in map(_pid_of_a_job, Path("/proc").iterdir()) if pid]


def _pid_of_a_job(folder: Path) -> int:
    """The pid, 0 when it is no job's or not ours."""
    try:
        if not folder.name.isdigit():
            return 0
        uids = _field(folder / "status", "Uid:").split()
        if not any(FIRST_UID <= int(uid) < FIRST_UID + UIDS for uid in uids):
            return 0
        return 0 if _is_foreign(int(folder.name)) else int(folder.name)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _is_foreign(pid: int) -> bool:
    """Whether a living keeper or launcher that is not below us has it among its own."""
    keeps = False
    while pid > 1 and pid != os.getpid():
        status = Path(f"/proc/{pid}/status")
        if _field(status, "Uid:").split()[0] == "0":  # pid 1 of a job has its launcher's words too
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            keeps = keeps or not {b"sandbox.keeper", b"sandbox.launcher"}.isdisjoint(words)
        pid = int(_field(status, "PPid:"))
    return keeps and pid != os.getpid()


def _field(file: Path, name: str) -> str:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return line.removeprefix(name)
    return "0"


def wait_until(true: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Whether it became true in time: for what the kernel does without telling."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _json(parents: list[cgroups.Parent]) -> str:
    import json

    return json.dumps(parents)


__all__ = ["Box", "Ran", "job_processes", "loose", "signal", "socket", "tarred", "wait_until"]
