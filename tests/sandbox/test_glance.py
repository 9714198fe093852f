"""What is told of a job's files while it runs: new and changed regular files, cheaply, and never
more than it may be.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.glance import BYTES, FILES, glance
from sandbox.model import Glance
from sandbox.sandbox import OnGlance
from tests.sandbox.box import PYTHON, Box

HOLDS = "\nprint('made', flush=True)\nimport time\ntime.sleep(60)\n"


def seen(box: Box, code: str, files: dict[str, bytes] | None = None, **options: Any) -> Glance:
    """What is told of a running job that has run `code`."""

    async def run() -> Glance:
        ask: asyncio.Future[Callable[[OnGlance], None]] = asyncio.get_running_loop().create_future()
        made = asyncio.Event()
        given = {"main.py": (code + HOLDS).encode(), **(files or {})}
        running = asyncio.create_task(
            box.arun(
                PYTHON.command("main.py", ()), files=given, on_look=ask.set_result,
                on_output=lambda stream, data: made.set(), **options,
            )
        )  # fmt: skip
        await made.wait()
        told: asyncio.Future[Glance] = asyncio.get_running_loop().create_future()
        (await ask)(told.set_result)
        try:
            return await asyncio.wait_for(told, 10)
        finally:
            running.cancel()
            await asyncio.wait([running])

    found = box.wait(run())
    assert isinstance(found, Glance)
    return found


def test_new_and_changed_files_are_told_and_inputs_are_not(box: Box) -> None:
    code = (
        "import os\n"
        "os.makedirs('a/b')\n"
        "open('a/b/new.txt', 'w').write('12345')\n"
        "open('changed.txt', 'a').write('!')\n"
        "os.rename('moved.txt', 'here.txt')\n"
        "open('old-times', 'w')\n"
        "os.utime('old-times', (1, 1))\n"
        "open('/tmp/elsewhere', 'w')"
    )
    files = {"input.txt": b"x", "changed.txt": b"x", "moved.txt": b"xx", "a/input": b""}
    assert seen(box, code, files) == Glance(
        (("a/b/new.txt", 5), ("changed.txt", 2), ("here.txt", 2), ("old-times", 0))
    )


def test_only_what_the_patterns_ask_for(box: Box) -> None:
    code = "import os\nos.mkdir('out')\nfor name in ('a.png', 'a.txt', 'out/b'): open(name, 'w')"
    found = seen(box, code, {"in.png": b""}, patterns=["*.png", "out/"])
    assert found == Glance((("a.png", 0), ("in.png", 0), ("out/b", 0)))


def test_nothing_but_regular_files(box: Box) -> None:
    code = (
        "import os, socket\n"
        "os.mkfifo('fifo')\n"
        "os.mkdir('folder')\n"
        "os.symlink('/etc/passwd', 'link')\n"
        "os.symlink('file', 'alias')\n"
        "os.symlink('/usr', 'folder/usr')\n"
        "os.symlink('.', 'folder/again')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\n"
        "open('file', 'w')\n"
        "os.mkdir('shut', 0)"
    )
    assert seen(box, code) == Glance((("file", 0),))
    paths = [path for path, _ in seen(box, code, patterns=["**"]).files]
    assert paths == ["file", "main.py"]


def test_more_than_is_told_is_counted(box: Box) -> None:
    found = seen(box, "for n in range(500): open(f'{n:03}', 'w')")
    assert (len(found.files), found.more) == (FILES, 500 - FILES)
    found = seen(box, "for n in range(150): open(f'{n:03}' + 'x' * 250, 'w')")
    assert 0 < len(found.files) < 150 and len(found.files) + found.more == 150
    assert sum(len(json.dumps(path)) for path, _ in found.files) <= BYTES


def test_names_that_are_no_text_are_told(box: Box) -> None:
    code = "for name in (b'a\\nb', b'\\xff\\xfe', b'\"', b'\\xc3\\xa9'): open(name, 'w')"
    found = {os.fsencode(path) for path, _ in seen(box, code).files}
    assert found == {b"a\nb", b"\xff\xfe", b'"', b"\xc3\xa9"}


@pytest.mark.parametrize("shape", ["flat", "deep"])
def test_a_look_takes_little_of_whatever_there_is(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if shape == "flat":
        for n in range(20_000):
            os.close(os.open(f"{n}", os.O_CREAT))
    else:
        folder = "."
        for n in range(900):
            os.makedirs(f"{folder}/{n}")
            folder = f"{folder}/{n}" if n < 100 else folder
    for patterns in ([], ["**/*a*b*c*d*e*f*.png"] * 100):
        began = time.thread_time()
        glance(patterns, 0)
        assert time.thread_time() - began < 0.1


def test_the_exit_of_a_job_that_is_asked_all_the_while_is_its_own(box: Box) -> None:
    async def run() -> list[tuple[str, int | None]]:
        ends = []
        for number in range(20):
            asked: list[Callable[[OnGlance], None]] = []

            def again(found: Glance, asked: Any = asked) -> None:
                asyncio.get_running_loop().call_soon(asked[0], again)

            def begin(look: Callable[[OnGlance], None], asked: Any = asked) -> None:
                asked.append(look)
                look(again)

            code = f"import os\nfor n in range(50): open(str(n), 'w')\nos._exit({number})"
            ran = await box.apython(code, on_look=begin)
            ends.append((ran.reason, ran.code))
        return ends

    assert box.wait(run()) == [("exit", number) for number in range(20)]


def test_a_job_that_asks_itself_is_told_nothing_and_ends_as_it_likes(box: Box) -> None:
    code = "import os, signal\nfor n in range(2000): os.kill(1, signal.SIGIO)\nos._exit(7)"
    assert box.python(code).code == 7
