"""CS: collection, and what survives the program. Whatever a job leaves, in whatever state and with
whoever still at it: what is listed is what is served, and it is collected when all are dead."""

import asyncio
import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sandbox.model import MIB
from tests.attacks.arena import Attacker, Seen
from tests.attacks.wire import unpacked
from tests.journeys.server import Server, eventually, memory_of
from tests.sandbox.box import Box, Ran

DISK = 100 * MIB


@pytest.fixture
def box() -> Iterator[Box]:
    """A launcher of our own."""
    made = Box()
    try:
        yield made.start()
    finally:
        made.close()


def outputs(attacker: Attacker, seen: Seen) -> tuple[dict[str, Any], bool]:
    """(rows by path, truncated) of a job."""
    answer = attacker.ask("GET", f"/outputs/{seen.id}")
    assert answer.status == 200, answer
    return {row["path"]: row for row in answer.json["outputs"]}, answer.json["truncated"]


HOLES = """
for n in range(3):
    with open(f"hole{n}", "wb") as file:
        file.truncate(99_000_000)
for n in range(200):
    os.link("hole0", f"link{n:03}")
with open("kept", "wb") as file:
    libc.fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(5_000_000))
say([os.stat(f"hole{n}").st_blocks for n in range(3)])
"""


def test_holes_weigh_what_they_are_when_they_are_kept(attacker: Attacker) -> None:
    """CS-01. Three files of 99 MB that take no block, 200 names for one of them, and a file with
    room that it does not use: as much as the disk's limit comes out, and it is said that some did
    not. What the job did not pay its client does: in what it holds, and then it is refused."""
    held = 150 * MIB
    server = Server(env={"SANDRUN_CLIENT_HELD_BYTES": held, "SANDRUN_SUBMIT_RATE": "1000/m"})
    try:
        ours = Attacker(server, "CS-01")
        before = memory_of(server.pids()["web"]).memfds
        for _ in range(2):
            seen = ours.python(HOLES)
            assert seen.said == [0, 0, 0], seen
            rows, truncated = outputs(ours, seen)
            total = sum(row["size"] for row in rows.values())
            assert truncated and 99_000_000 <= total <= DISK, (rows, truncated)
            assert seen.status["memory_bytes"] < 40 * MIB, seen.status  # it paid for nothing
        refused = ours.submit({"main.py": b"1"}, entrypoint="main.py")
        assert refused.status == 429, refused
        assert refused.json["reason"] == "held_bytes", refused.json
        assert memory_of(server.pids()["web"]).memfds - before <= 2 * DISK + 8 * MIB
        ours.leave()
        assert eventually(lambda: memory_of(server.pids()["web"]).memfds <= before, 5)
        assert ours.python("say(1)").said == 1
        ours.leave()
    finally:
        assert server.end() == 0, server.banner


RACES = """
with open("shared.bin", "wb") as file:
    file.write(bytes(4 << 20))  # no holes: once the disk is full, who touches one gets SIGBUS
log = open("appended.bin", "ab", buffering=0)
said, tell = os.pipe()
for n in range(8):
    if os.fork() == 0:
        os.setsid()
        file = open("shared.bin", "r+b")
        view = mmap.mmap(file.fileno(), 4 << 20, mmap.MAP_SHARED)
        block = bytes([n]) * 65536
        at, told = n << 16, False
        while True:
            view[at:at + 65536] = block
            if n < 2:
                tried(os.writev, log.fileno(), [block] * 16)
            if n == 2:
                file.truncate(4 << 20), log.truncate(1 << 20)
            at = (at + 8 * 65536) % (4 << 20)
            if not told:
                told = os.write(tell, b"x")
for _ in range(8):
    os.read(said, 1)
for n in range(3):
    if os.fork() == 0:
        os.writev(os.open(f"late{n}", os.O_CREAT | os.O_WRONLY), [os.urandom(1 << 20)] * 4)
        os._exit(0)
os._exit(0)
"""


def test_what_was_hashed_is_what_is_served_whoever_still_wrote(attacker: Attacker) -> None:
    """CS-02. Eight survivors write to mapped and appended files, one cuts them, three are in
    the middle of a large write, and main exits: the hash, the size, two downloads and the archive
    are one. Six times."""
    for _ in range(6):
        seen = attacker.python(RACES)
        assert (seen.reason, seen.code) == (None, 0), seen.status
        rows, _ = outputs(attacker, seen)
        assert {"shared.bin", "appended.bin"} <= set(rows), rows
        packed = unpacked(attacker, seen.id, "tar.gz")
        assert set(packed) == set(rows)
        for path, row in rows.items():
            content = attacker.download(seen.id, path)
            assert len(content) == row["size"], (path, row, len(content))
            assert hashlib.sha256(content).hexdigest() == row["sha256"], (path, row)
            assert attacker.download(seen.id, path) == content == packed[path], path
        attacker.delete(seen.id)


# Survivors that die slowly, or that stand still. {} is main's last word.
SURVIVORS = {
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "a child whose parent waits for it": "libc.vfork() or time.sleep(100)",
    "much memory": "m = mmap.mmap(-1, 300 << 20); m.write(bytes(300 << 20)); told(); time.sleep(9)",
    "in an open": "os.mkfifo(f'fifo{n}'); told(); open(f'fifo{n}')",
    "threads": "[threading.Thread(target=time.sleep, args=(9,)).start() for _ in range(8)]; told()",
    "in a group that is stopped": "told(); os.kill(0, signal.SIGSTOP)",
    "a writer": "told()\nwhile True: open(f'w{n}', 'ab').write(bytes(65536))",
}
SURVIVED = """
import ctypes, mmap, os, signal, sys, threading, time
libc = ctypes.CDLL(None)
said, say = os.pipe()
once = []
def told():
    if not once:
        once.append(os.write(say, b"x"))
for n in range(2):
    if os.fork() == 0:
        os.setsid()
        if sys.argv[1] in ("stopped", "a child whose parent waits for it"):
            told()
        exec(sys.argv[2])
        time.sleep(100)
    if sys.argv[1] == "much memory":
        break
for _ in range(n + 1):
    os.read(said, 1)
open("left", "w").write("mine")
os._exit(0)
"""


def test_nothing_is_collected_while_anybody_of_the_job_lives(box: Box) -> None:
    """CS-03. Survivors that are stopped, wait in the kernel, or have much to give back when they
    die: at the moment that the collection begins no process of the job is there."""
    collect, alive = box.sandbox._collect, []

    async def watched(child: Any, *rest: Any) -> Any:
        alive.append(box.pids())
        return await collect(child, *rest)

    box.sandbox._collect = watched  # type: ignore[method-assign]
    for name, code in SURVIVORS.items():
        ran = box.python(SURVIVED, name, code, wall_seconds=20)
        assert (ran.reason, ran.code) == ("exit", 0), (name, ran.result, ran.stderr)
        assert ran.files["left"] == b"mine", (name, ran.files.keys())
        assert ran.result.usage.wall_usec < 15_000_000, (name, ran.result.usage)
    assert alive == [[]] * len(SURVIVORS), alive


NAMES = """
import resource
def put(path, content=b"mine", mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
path = b""
os.makedirs("deep/" + "/".join(["d"] * 62))
put("deep/" + "/".join(["d"] * 62) + "/x")
put("mode-0", mode=0)
os.makedirs("locked/in/side")
put("locked/in/side/x", mode=0o200)
for folder, mode in (("locked/in/side", 0), ("locked/in", 0o111), ("locked", 0o333)):
    os.chmod(folder, mode)
for name in (b"\\xff\\xfe", b"\\xed\\xa0\\x80", "\\u00e9".encode(), "e\\u0301".encode(),
             b"\\x01", b"~"):
    put(b"odd-" + name)
flags = ctypes.c_int(0x30)
fd = os.open("mode-0-too", os.O_CREAT | os.O_RDONLY, 0)
immutable = call(16, fd, 0x40086602, bytes(flags))
count = int(sys.argv[1])
os.mkdir("many")
for n in range(count):
    os.close(os.open(f"many/{n * 7919 % 100_003:06}", os.O_CREAT | os.O_WRONLY))
if sys.argv[2:]:
    with open("zz-large", "wb") as file:
        file.truncate(99_000_000)
    with open("zz-larger", "wb") as file:
        file.truncate(99_000_000)
say(immutable)
"""
ODD = 10  # files beside the many


def test_hostile_trees_come_out_in_one_order_and_what_is_left_out_is_said(box: Box) -> None:
    """CS-04. Deep, locked, oddly named, and many: the same twice, in the same order, and truncated
    when something was left out: a file more than 10,000, or a byte more than the disk's limit."""
    code = "from probe import *\n" + NAMES
    from tests.attacks.arena import PROBE

    files = {"probe.py": PROBE.encode()}

    def rows(*args: str) -> tuple[list[str], bool]:
        ran = box.python(code, *args, files=files, wall_seconds=60)
        assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr)
        assert ran.text in ('"ENOSYS"\n', '"EPERM"\n', '"ENOTTY"\n'), ran.text
        found = ran.result.outputs
        return [row.path for row in found.files], found.truncated

    few, truncated = rows("5")
    assert not truncated and len(few) == ODD + 5, few
    assert "locked/in/side/x" in few and any(path.startswith("deep/d/d") for path in few), few
    assert rows("5") == (few, False)
    most, truncated = rows(str(10_001 - ODD))
    assert (len(most), truncated) == (10_000, True)
    assert [path for path in most if path in few] == [path for path in few if path in most]
    large, truncated = rows("5", "large")
    assert "zz-large" in large and "zz-larger" not in large and truncated, large


DISGUISED = """
with open("data", "r+b") as file:
    before = os.fstat(file.fileno())
    file.write(b"NEWS")
os.utime("data", ns=(before.st_mtime_ns, before.st_mtime_ns))
os.utime("main.py", ns=(0, 0))
open("data2", "w").write("more")
say(before.st_mtime_ns)
"""


def test_an_input_in_disguise_is_only_told_by_asking_for_it(attacker: Attacker) -> None:
    """CS-05. Rewritten with as many bytes and its old time: as documented, without patterns it is
    taken for the input that it seems; a pattern brings it, as it is now. What was uploaded is what
    the job's hash is about, whatever is on the disk."""
    files = {"data": b"OLD!"}
    plain = attacker.python(DISGUISED, files=files)
    assert plain.said == 946_684_800 * 10**9, plain
    rows, _ = outputs(attacker, plain)
    assert "data" not in rows and {"main.py", "data2"} <= set(rows), rows
    asked = attacker.python(DISGUISED, files=files, outputs=["data"])
    rows, _ = outputs(attacker, asked)
    assert set(rows) == {"data"}, rows
    assert attacker.download(asked.id, "data") == b"NEWS"
    honest = attacker.python(DISGUISED, files=files, outputs=["data"])
    assert honest.status["job_hash"] == asked.status["job_hash"]
    other = attacker.python(DISGUISED, files={"data": b"OLD?"}, outputs=["data"])
    assert other.status["job_hash"] != asked.status["job_hash"]


WORKPLACE = """
import shutil, sys
mode = int(sys.argv[1], 8)
answers = [tried(os.rename, "/job", "/jobs"), tried(os.rename, "/job/..", "/x"),
           tried(os.rmdir, "/job"), tried(os.symlink, "/etc", "/job/../job2"),
           tried(os.setxattr, "/job", "system.posix_acl_default", bytes(28)),
           tried(os.setxattr, "/job", "user.x", b"1"), tried(os.chown, "/job", 0, 0)]
for name in os.listdir("/job"):
    path = "/job/" + name
    shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
os.symlink("/etc", "/job/link")
os.makedirs("/job/empty/folders")
os.chmod("/job", mode)
os.chdir("/tmp")
say(answers)
"""


def test_a_work_directory_in_any_state_is_collected(attacker: Attacker) -> None:
    """CS-06. It empties the work directory, leaves a link and folders, and takes all permissions or
    gives them to all; it cannot move, remove or give away the directory itself. No output, and no
    fault of ours."""
    for mode in ("0", "1777", "111", "6777"):
        seen = attacker.python(WORKPLACE, mode)
        assert len(seen.said) == 7 and "ok" not in seen.said, seen.said
        assert outputs(attacker, seen) == ({}, False), (mode, seen.status)
        assert seen.status["warnings"] == [], seen.status


SPECIAL = """
made = {}
def node(name, mode, device=0):
    made[name] = tried(os.mknod, name, mode, device)
node("whiteout", stat.S_IFCHR | 0o666, os.makedev(0, 0))
node("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
node("disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
node("fifo", stat.S_IFIFO | 0o666)
node("socket", stat.S_IFSOCK | 0o666)
node("regular", stat.S_IFREG | 0o666)
os.mkdir("folder")
made["opaque"] = tried(os.setxattr, "folder", "user.overlay.opaque", b"y")
for n in range(50):
    os.mkfifo(f"fifo{n:02}")
listener = socket.socket(socket.AF_UNIX)
listener.bind("bound")
os.symlink("/dev/zero", "zero")
os.link("fifo", "again")
say(made)
"""


def test_what_is_no_file_is_neither_opened_nor_listed(attacker: Attacker) -> None:
    """CS-07. Nodes of every kind, also the one that needs no right (a whiteout), pipes and sockets
    among the outputs: made or not, only the regular file comes out, by pattern too, at once."""
    for patterns in ([], ["**"], ["whiteout", "fifo", "socket", "zero", "bound", "regular"]):
        seen = attacker.python(SPECIAL, outputs=patterns)
        made = seen.said
        assert made["null"] == made["disk"] == "EPERM", made
        assert made["whiteout"] in ("ok", "EPERM") and made["opaque"] != "ok", made
        assert made["fifo"] == made["regular"] == "ok", made
        rows, truncated = outputs(attacker, seen)
        new = set(rows) - {"main.py", "probe.py", f"{attacker.canary}.txt"}
        assert (new, truncated) == ({"regular"}, False), rows


PHASES = "import os, time\nopen('x', 'wb').write(os.urandom(4 << 20))\nprint(1, flush=True)\n"


def test_a_job_ended_at_any_moment_has_one_end(attacker: Attacker, server: Server) -> None:
    """CS-08. Cancelled, deleted, or cancelled twice at moments spread over its whole life, from the
    launch to after the collection: one final state, and nothing is left (HI2, HI4, HI7)."""
    chance = random.Random(8)
    ends = []
    started = time.monotonic()
    attacker.run({"main.py": PHASES.encode()})
    whole = min(time.monotonic() - started, 1.0) * 1.1
    for n in range(30):
        job = attacker.start({"main.py": PHASES.encode()})
        time.sleep(chance.random() * whole)  # the moment is the point
        if n % 3 == 0:
            attacker.delete(job)
            continue
        attacker.cancel(job)
        if n % 3 == 1:
            attacker.cancel(job)
        seen = attacker.finish(job)
        assert seen.reason in ("cancelled", None), seen.status
        ends.append(seen.reason)
        attacker.delete(job)
    assert "cancelled" in ends, ends
    web = server.pids()["web"]
    assert eventually(lambda: memory_of(web).memfds < 4 * MIB + 30_000_000, 5), memory_of(web)


def test_a_collector_that_is_killed_costs_the_outputs_only(box: Box) -> None:
    """CS-09. SIGKILL from the machine in the middle of a copy of 90 MB: the verdict stands, and
    a note in words says that the outputs could not be had; the next job has its own."""
    code = "import os\nfor n in range(9): open(f'{n}', 'wb').write(os.urandom(1 << 20) * 10)"
    collect = box.sandbox._collect
    killed: list[int] = []

    async def kill() -> None:
        while not killed:
            await asyncio.sleep(0.002)
            for pid in filter(is_copying, box.pids()):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    async def attacked(*args: Any) -> Any:
        killing = asyncio.ensure_future(kill())
        try:
            return await collect(*args)
        finally:
            killing.cancel()

    box.sandbox._collect = attacked  # type: ignore[method-assign]
    ran: Ran = box.python(code)
    assert killed, "nobody was killed"
    assert (ran.reason, ran.code) == ("exit", 0), ran.result
    assert ran.result.outputs[:2] == (-1, ()) and ran.result.outputs.truncated, ran.result.outputs
    (note,) = ran.result.notes
    assert note.startswith("outputs could not be collected: "), note
    assert "None" not in note and len(note) > len("outputs could not be collected: "), note
    box.sandbox._collect = collect  # type: ignore[method-assign]
    assert set(box.python(code).files) == set("012345678")


def is_copying(pid: int) -> bool:
    """Whether it has a store that is not empty."""
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if "memfd:outputs" in os.readlink(fd) and os.stat(fd).st_blocks:
                    return True
    return False


LAST_WORDS = """
said, tell = os.pipe()
for n in range(8):
    if os.fork() == 0:
        os.setsid()
        os.write(tell, b"x")
        k = 0
        while True:
            os.write(1, b"%s %d %07d \\xf0\\x9f\\x92\\xa3\\n" % (MARK, n, k) * 50)
            k += 1
for _ in range(8):
    os.read(said, 1)
time.sleep(0.3)
os._exit(0)
"""


def test_the_last_words_of_the_dying_stay_in_their_log(attacker: Attacker) -> None:
    """CS-10. Eight survivors are killed in the middle of writing as fast as they can: the log is
    theirs, whole records but where the pipe was full, as many bytes as are counted; and no log that
    comes later begins with them."""
    for n in range(4):
        mark = f"words-{n}".encode()
        jobs = [attacker.start_python(f"MARK = {mark!r}\n" + LAST_WORDS)]
        jobs += [attacker.start_python("print('quiet')") for _ in range(3)]
        loud, *quiet = [attacker.finish(job) for job in jobs]
        assert (loud.reason, loud.code) == (None, 0), loud.status
        logs = loud.status["logs"]
        assert len(loud.stdout) + logs["stdout_dropped_bytes"] == logs["stdout_bytes"], logs
        records = loud.stdout.split(b"\n")
        assert len(records) > 100, len(records)
        whole = [record for record in records if record.startswith(mark + b" ")]
        assert len(whole) >= len(records) - 3, (len(whole), len(records), records[-3:])
        assert all(seen.stdout == b"quiet\n" and not seen.stderr for seen in quiet), quiet
        assert attacker.python("print('quiet')").text == "quiet\n"
        for job in jobs:
            attacker.delete(job)
