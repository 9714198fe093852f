"""A program's stdin while it runs: what is put arrives, in order and whole, and a program that does
not read, or reads no more, blocks nobody and leaves nothing.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from sandbox.feed import ROOM, Feed
from tests.sandbox.box import Box, Ran, wait_until

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nprint('end')"
DEAF = "import time\nprint('here', flush=True)\ntime.sleep(60)"


def fed(box: Box, code: str, feed: Feed, hear: Callable[[str], None], **options: object) -> Ran:
    """Run Python code on `feed`; `hear` gets each line of stdout as it comes."""
    begun = bytearray()

    def on_output(stream: str, data: bytes) -> None:
        if stream == "stdout":
            begun.extend(data)
        while b"\n" in begun:
            line, _, rest = begun.partition(b"\n")
            begun[:] = rest
            hear(line.decode())

    return box.python(code, stdin=feed, on_output=on_output, **options)


def test_a_program_is_answered_line_by_line(box: Box) -> None:
    feed = Feed()
    said: list[str] = []

    def answer(line: str) -> None:
        said.append(line)
        if len(said) < 5:
            feed.put(f"{said[-1]}{len(said)}\n".encode())
        else:
            feed.end()

    feed.put(b"x\n")  # before there is a program
    ran = fed(box, ECHO, feed, answer)
    assert (ran.reason, ran.code) == ("exit", 0)
    assert ran.text.split() == ["x", "1x", "2x1", "31x2", "42x13", "end"]
    assert (feed.is_open, feed.waiting, feed.taken) == (False, 0, 2 + 3 + 4 + 5 + 6)


def test_what_waits_comes_in_order_and_behind_the_first_text(box: Box) -> None:
    first, rest = os.urandom(200_000), os.urandom(150_000)
    feed = Feed(first)
    assert feed.room == ROOM - len(first)
    feed.put(rest[: feed.room])
    rest = rest[: feed.taken]
    feed.end()
    code = (
        "import hashlib, sys\nd = sys.stdin.buffer.read()\nprint(len(d), d[:8].hex(), d[-8:].hex())"
    )
    ran = fed(box, code, feed, lambda line: None)
    whole = first + rest
    assert ran.text.split() == [str(len(whole)), whole[:8].hex(), whole[-8:].hex()]


def test_a_program_that_never_reads_blocks_nobody(box: Box) -> None:
    feed = Feed()
    full: list[int] = []

    def fill(line: str) -> None:
        while feed.room:
            feed.put(b"x" * min(feed.room, 60_000))
        full.append(feed.waiting)

    ran = fed(box, DEAF, feed, fill, wall_seconds=1.0)
    assert ran.reason == "timeout"
    assert full == [ROOM]
    assert feed.taken < ROOM + (1 << 20)  # what a pipe holds at most
    assert (feed.is_open, feed.waiting) == (False, 0)


def test_a_program_that_closes_its_stdin_is_told_of(box: Box) -> None:
    feed = Feed()
    stood: list[bool] = []

    def put(line: str) -> None:
        stood.append(feed.is_open)
        feed.put(b"nobody reads this")
        stood.append(feed.is_open)

    code = "import os, time\nos.close(0)\nprint('closed', flush=True)\ntime.sleep(60)"
    assert fed(box, code, feed, put, wall_seconds=1.0).reason == "timeout"
    assert (stood, feed.waiting) == ([True, False], 0)


def test_the_end_of_the_program_closes_it(box: Box) -> None:
    feed = Feed(b"nobody reads this")
    assert fed(box, "pass", feed, lambda line: None).code == 0
    assert (feed.is_open, feed.waiting) == (False, 0)


def test_the_program_opens_it_by_name_and_not_for_writing(box: Box) -> None:
    code = (
        "import os\n"
        "for flags in (os.O_WRONLY, os.O_RDWR):\n"
        "    try: os.open('/proc/self/fd/0', flags)\n"
        "    except PermissionError: print('no')\n"
        "print(open('/dev/stdin').read())"
    )
    feed = Feed(b"by name")
    feed.end()
    assert fed(box, code, feed, lambda line: None).text.split("\n")[:3] == ["no", "no", "by name"]


def test_nobody_else_has_the_end_that_is_written_to(box: Box) -> None:
    feed = Feed()
    holders: dict[str, set[str]] = {"launcher": set(), "job": set()}

    def look(line: str) -> None:
        pipe = os.readlink(f"/proc/self/fd/{feed._pipe}")
        for who, pids in (("launcher", [box.process.pid]), ("job", box.pids())):
            for fd in (fd for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir()):
                if os.readlink(fd) == pipe:
                    flags = (fd.parent.parent / "fdinfo" / fd.name).read_text().split()[3]
                    holders[who].add(oct(int(flags, 8) & os.O_ACCMODE))
        feed.end()

    ran = fed(box, "print(1, flush=True)\ninput('')", feed, look)
    assert b"EOFError" in ran.stderr
    assert holders == {"launcher": set(), "job": {oct(os.O_RDONLY)}}


def test_a_run_that_is_called_off_closes_it(box: Box) -> None:
    feed = Feed()

    async def call_off() -> None:
        begun = asyncio.Event()
        run = asyncio.create_task(
            box.apython(DEAF, stdin=feed, on_output=lambda stream, data: begun.set())
        )
        await begun.wait()
        feed.put(b"x" * ROOM)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()

    box.wait(call_off())
    assert (feed.is_open, feed.waiting) == (False, 0)
    assert wait_until(lambda: not box.pids())
