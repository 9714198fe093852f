"""Whatever a client sent, and whatever its job made, is in no file of the machine after the server
was killed at any instant. Every piece of it carries a random canary, and the canaries are looked
for in every file system of the host. (While a job lives, and after it was deleted or forgotten:
tests/attacks/test_dp.py, with the same canaries.)

The canaries are nowhere but in the memory of this process: nothing here may print one.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import re
import secrets
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.server import REPOSITORY, Server, eventually, form, memory_of, targz
from tests.sandbox.box import job_processes, pids_in

KILLS = 20
LAST_WORDS = "sleep 0.1"
CHUNK = 1 << 22

# File systems of the kernel's own making, which hold no files.
_VIRTUAL = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
    "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "sysfs",
    "tracefs",
}  # fmt: skip

# What the names of the canaries mean is in `Canaries.manifest` and here; "said" and the like are
# spelled backwards in the source, so that each comes into being only when the job runs.
SOURCE = """
# {source}
import os, sys, time, pathlib
print("up", "{said}"[::-1], flush=True)
print("{complained}"[::-1], file=sys.stderr, flush=True)
pathlib.Path("{made}"[::-1]).write_text("{written}"[::-1] * 1000)
for folder in ("/tmp", "/dev/shm"):
    pathlib.Path(folder, "{scratched}"[::-1]).write_text("{scratched}"[::-1] * 1000)
if os.fork() == 0:
    os.setsid()
    time.sleep(50)
try:
    os.execv("/bin/sh", ["{titled}"[::-1], "-c", "{then}"])
finally:
    os._exit(1)
"""


class Canaries:
    """Random words, one for each piece of what a client sends, and the address that it has."""

    NAMES = (
        "source", "file_name", "argument", "value", "typed", "agent", "said", "complained", "made",
        "written", "scratched", "titled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mark = secrets.token_hex(8)  # they all begin with it: one look finds any of them
        self.of = {name: self.mark + secrets.token_hex(8) for name in self.NAMES}
        a, b, c = (secrets.randbelow(150) + 100 for _ in range(3))
        self.address = f"127.{a}.{b}.{c}"
        text = self.mark.encode()
        spellings = [text, text[::-1], text.hex().encode(), self.mark.encode("utf-16-le")]
        for shift in range(3):  # what base64 makes of it at each place that it may have
            spellings.append(base64.b64encode(bytes(shift) + text)[4:-4])
        self.spellings = [*spellings, self.address.encode()]

    def __repr__(self) -> str:
        return "<canaries>"

    def files(self, then: str) -> dict[str, bytes]:
        source = SOURCE.format(then=then, **{n: word[::-1] for n, word in self.of.items()})
        source = source.replace(self.of["source"][::-1], self.of["source"])
        return {"main.py": source.encode(), f"{self.of['file_name']}.txt": b"a file"}

    def manifest(self, **more: Any) -> dict[str, Any]:
        return {
            "entrypoint": "main.py",
            "args": [self.of["argument"]],
            "env": {"NAME": self.of["value"]},
            "stdin": self.of["typed"],
            **more,
        }

    @property
    def headers(self) -> dict[str, str]:
        return {"User-Agent": self.of["agent"]}

    def are_in(self, data: bytes) -> bool:
        return any(spelling in data for spelling in self.spellings)

    def ask(
        self, server: Server, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        """A request from their address."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", server.port, timeout=60, source_address=(self.address, 0)
        )
        try:
            connection.request(method, path, body or None, {**self.headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def submit(
        self, server: Server, then: str, archive: bool = False, wait: int = 0, **more: Any
    ) -> dict[str, Any]:
        """A job that says and writes all of them, and ends with the shell command `then`."""
        files = self.files(then)
        kind, body = form(
            {"job.tar": targz(files, "w")} if archive else files, self.manifest(**more)
        )
        status, answer = self.ask(
            server, "POST", f"/submit?wait={wait}", body, **{"Content-Type": kind}
        )
        assert status == 200, status
        return dict(json.loads(answer))

    def wait_until_up(self, server: Server, job: str) -> None:
        """Until the job has said and written all of them."""
        assert eventually(
            lambda: (
                all(
                    self.of[word].encode() in self.ask(server, "GET", f"/logs/{job}")[1]
                    for word in ("said", "complained")
                )
                and any(self.of["titled"].encode() in line for _, line in command_lines())
            ),
            10,
        )


class Host:
    """Every file of the machine, on every file system that holds files."""

    def __init__(self, began: float | None = None) -> None:
        # The clock of file systems lags by a tick.
        self.began = time.time() - 1 if began is None else began
        self._folders: dict[str, tuple[int, list[str]]] = {}  # when changed, folders in it

    def where(self, *all_canaries: Canaries, everything: bool = False) -> list[str]:
        """Paths whose name holds a canary, or that changed since we began and whose content does.

        Looks into the folders that changed since the last look, so at all that was made, renamed
        or removed; with `everything`, which takes seconds, also at files that were there before
        and were only written to.
        """
        found: list[str] = []
        stack = _mount_points()
        borders = set(_mount_points(everything=True))  # each is walked by itself, or not at all
        seen = set()
        while stack:
            folder = stack.pop()
            try:
                status = os.lstat(folder)
                place = (status.st_dev, status.st_ino)
                if place in seen:  # bound to two places
                    continue
                seen.add(place)
                changed, inside = self._folders.get(folder, (-1, []))
                if changed != status.st_mtime_ns or everything:
                    with os.scandir(folder) as entries:
                        files, inside = self._look(folder, list(entries), all_canaries)
                    self._folders[folder] = status.st_mtime_ns, inside
                    found += files
            except (FileNotFoundError, NotADirectoryError):  # somebody else's, gone meanwhile
                self._folders.pop(folder, None)
                continue
            stack += (path for path in inside if path not in borders)
        return found

    def below(self, top: str, all_canaries: tuple[Canaries, ...]) -> list[str]:
        """The same for one file system, by whatever path it can be reached."""
        found: list[str] = []
        stack, device = [top], os.stat(top).st_dev
        while stack:
            folder = stack.pop()
            with contextlib.suppress(FileNotFoundError):
                if os.stat(folder).st_dev == device:
                    with os.scandir(folder) as entries:
                        files, inside = self._look(folder, list(entries), all_canaries)
                    found += files
                    stack += inside
        return found

    def _look(
        self, folder: str, entries: list["os.DirEntry[str]"], all_canaries: tuple[Canaries, ...]
    ) -> tuple[list[str], list[str]]:
        """(what tells, folders) of one folder."""
        found, folders = [], []
        names = os.fsencode("\n".join(entry.name for entry in entries))
        if any(canaries.are_in(names) for canaries in all_canaries):
            found.append(f"names in {folder}")
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif all_canaries and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    changed = max(status.st_mtime, status.st_ctime) >= self.began
                    if changed and _file_tells(entry.path, all_canaries):
                        found.append(entry.path)
        return found, folders


def _file_tells(path: str, all_canaries: Iterable[Canaries]) -> bool:
    with open(path, "rb", buffering=0) as file:
        for data in _contents(file.fileno()):
            if any(canaries.are_in(data) for canaries in all_canaries):
                return True
    return False


def _contents(fd: int) -> Iterator[bytes]:
    """What the file holds, in pieces that overlap; holes hold nothing."""
    at, overlap = 0, b""
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        data = os.pread(fd, CHUNK, start)
        if not data:
            return
        yield overlap + data if start == at else data
        at, overlap = start + len(data), data[-256:]


def _mount_points(pid: int | str = "self", only: str = "", everything: bool = False) -> list[str]:
    """Of file systems that hold files and that somebody can write to; `only` those of one kind."""
    points = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, *_, options = right.split()  # of the file system, not of this mount of it
        # A tmpfs may have been filled first.
        is_fixed = kind in _VIRTUAL or (kind != "tmpfs" and "ro" in options.split(","))
        if everything or (not is_fixed and only in ("", kind)):
            point = left.split()[4]
            points.append(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
    return points


def in_reach_of(server: Server, *all_canaries: Canaries) -> list[str]:
    """Files with a canary on a tmpfs that only a process of the server sees, and files on a disk
    that one of them could write to, whether these have a name or not."""
    found = []
    for pid in server.pids().values():
        for point in _mount_points(pid, only="tmpfs"):
            found += Host(began=0).below(f"/proc/{pid}/root{point}", all_canaries)
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                memory = os.readlink(fd).startswith("/memfd:")
                flags = int(Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split()[3], 8)
                writable = flags & os.O_ACCMODE != os.O_RDONLY
                if stat.S_ISREG(os.stat(fd).st_mode) and writable and not memory:
                    found.append(f"{fd} -> {os.readlink(fd)}")
    return found


def command_lines() -> Iterator[tuple[int, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes()


def running(canaries: Canaries) -> list[int]:
    return [pid for pid, line in command_lines() if canaries.are_in(line)]


def kernel_log() -> bytes:
    return subprocess.run(["dmesg"], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def host() -> Host:
    """One for all tests: the first look takes seconds."""
    host = Host()
    host.where()
    return host


# --- kill -9 --------------------------------------------------------------------------------


def test_nothing_is_left_after_kill_9_at_any_instant(host: Host) -> None:
    seed = int(os.environ.get("SANDRUN_SEED") or secrets.randbits(32))
    print(f"SANDRUN_SEED={seed}")
    chance = random.Random(seed)
    life = _life_of_a_job()
    all_canaries = []
    dead = []
    for n in range(KILLS):
        victim, archive = ("web", "launcher", "keeper")[n % 3], n % 2 == 1
        instant = chance.uniform(0, life)
        case = f"{victim} {instant:.3f} s after the {'archive' if archive else 'files'}"
        print(case)
        canaries = Canaries()
        all_canaries.append(canaries)
        server = Server("--no-quotas")
        pids = list(server.pids().values())
        try:
            assert not any(map(_cgroups_of, dead)), "a start removes what only root can"
            dead.append(_kill(server, victim, instant, canaries, archive, case))
            assert host.where(canaries) == [], case
        finally:
            for pid in _alive(pids):  # who outlived the victim, which is about to be reported
                os.kill(pid, signal.SIGKILL)
            server.end()
        assert server.process.returncode != 0, case
        assert not canaries.are_in(server.banner.encode()), case
    assert Server().end() == 0
    assert not any(map(_cgroups_of, dead))
    assert host.where(*all_canaries, everything=True) == []
    log = kernel_log()
    assert not any(canaries.are_in(log) for canaries in all_canaries)


def _life_of_a_job() -> float:
    """Seconds from a submission's first byte to its answer, and some more."""
    server, canaries = Server("--no-quotas"), Canaries()
    try:
        canaries.submit(server, LAST_WORDS, wait=20)
        began = time.monotonic()
        canaries.submit(server, LAST_WORDS, archive=True, wait=20)
        return 1.2 * (time.monotonic() - began)
    finally:
        server.end()


def _kill(
    server: Server, victim: str, instant: float, canaries: Canaries, archive: bool, case: str
) -> int:
    """Kill one process of the server so many seconds after a submission; within two more seconds
    nothing is left of it. The pid of the keeper."""
    mounts = _mounts()
    pids = server.pids()
    with _held(f"/proc/{pids['web']}/ns/mnt", f"/proc/{pids['launcher']}/ns/mnt") as namespaces:
        client = threading.Thread(target=_submit_to_the_dying, args=(server, canaries, archive))
        client.start()
        time.sleep(instant)
        os.kill(pids[victim], signal.SIGKILL)
        deadline = time.monotonic() + 2

        def soon(is_left: Callable[[], object]) -> bool:
            return eventually(lambda: not is_left(), deadline - time.monotonic())

        assert soon(lambda: _alive(pids.values())), case
        assert soon(job_processes), case
        assert soon(lambda: running(canaries)), case
        # Only root can remove a cgroup, so a dead keeper leaves them, empty, to the next start.
        left = _processes_in_cgroups_of if victim == "keeper" else _cgroups_of
        assert soon(lambda: left(pids["keeper"])), case
        assert soon(lambda: namespaces & _mount_namespaces()), case
        assert soon(lambda: _mounts() - mounts), case
    client.join(10)
    assert not client.is_alive(), case
    return pids["keeper"]


def _submit_to_the_dying(server: Server, canaries: Canaries, archive: bool) -> None:
    # Without its launcher a server refuses: an answer that is no job is one of the ends, too.
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        canaries.submit(server, LAST_WORDS, archive, wait=20)


@contextlib.contextmanager
def _held(*paths: str) -> Iterator[set[str]]:
    """What the links say; while they are held open, the kernel gives nobody else these numbers."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.callback(os.close, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        yield {os.readlink(path) for path in paths}


def _mounts() -> set[str]:
    """What the host has mounted that might be ours."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if " - tmpfs " in line or str(REPOSITORY) in line}


def _mount_namespaces() -> set[str]:
    """In which there is any process."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(folder / "ns" / "mnt"))
    return found


def _alive(pids: Iterable[int]) -> list[int]:
    alive = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                alive.append(pid)
    return alive


def _cgroups_of(keeper: int) -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"/sandrun-{keeper}-" in path + "/"]


def _processes_in_cgroups_of(keeper: int) -> list[int]:
    return [pid for path in _cgroups_of(keeper) for pid in pids_in(path)]


# As many outputs as are taken of those whose names are the longest where they are signed.
MANY = """
import os
for _ in range(4):
    os.mkdir(" " * 250); os.chdir(" " * 250)
for n in range(4200):
    open(" " * 245 + f"{n:05}", "w").close()
"""


def test_what_web_held_of_a_forgotten_job_goes_back_to_the_machine() -> None:
    """Not only to the allocator, which would keep 10 to 16 MB of it; though not each time. What is
    used for the first time stays."""
    server = Server("--no-quotas")
    try:
        web = server.pids()["web"]
        began = memory_of(web).rss

        def grown() -> int:
            return memory_of(web).rss - began

        def after_a_job() -> int:
            status, answer = server.submit({"main.py": MANY.encode()}, {"entrypoint": "main.py"})
            assert status == 200, answer
            server.finish(answer["job_id"])
            assert len(server.get(f"/outputs/{answer['job_id']}")["outputs"]) > 3000
            bearer = f"Bearer {answer['owner_token']}"
            path = f"/jobs/{answer['job_id']}"
            assert server.request("DELETE", path, Authorization=bearer)[0] == 200
            eventually(lambda: grown() < 7 << 20, 10)
            return grown()

        left = [after_a_job() for _ in range(5)]
        assert max(left) < 7 << 20, left
    finally:
        server.end()
