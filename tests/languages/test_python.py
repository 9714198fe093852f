"""CPython: the machine's own, and 3.13 where that is older. A program each for threads, processes,
files, children and numbers; both Pythons run the same ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from sandbox.model import MIB, Command, Limits
from sandbox.runtimes import load
from tests.languages import newer_python
from tests.sandbox.box import Box, Ran

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = load()["python3"]
PYTHONS = ("the machine's", newer_python.VERSION)
LIMITS = Limits(memory_bytes=1024 * MIB, disk_bytes=300 * MIB, cpus=2.0, wall_seconds=60.0)


def run(box: Box, python: str, name: str) -> Ran:
    program = (PROGRAMS / name).read_text()
    command = PYTHON.command("main.py", limits=LIMITS)
    if python == "the machine's":
        files = {"main.py": program.encode()}
        return box.wait(box.arun(command, files=files, patterns=["*.png"], **LIMITS._asdict()))
    command = Command(((newer_python.PROGRAM, "main.py"),), command.env)
    try:
        bundle = newer_python.bundle(program, science=name == "science.py")
    except newer_python.Unreachable as reason:
        pytest.skip(str(reason))
    return box.wait(box.arun(command, bundle=bundle, patterns=["*.png"], **LIMITS._asdict()))


def said(ran: Ran) -> list[str]:
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    assert ran.stderr == b""
    return ran.text.splitlines()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    newest = (3, 13) <= own_version()
    if newest and request.param != "the machine's":
        pytest.skip("the machine's own Python is as new")
    return str(request.param)


def own_version() -> tuple[int, int]:
    major, minor = os.path.basename(os.path.realpath("/usr/bin/python3"))[6:].split(".")
    return int(major), int(minor)


def test_threads_wait_for_one_another(box: Box, python: str) -> None:
    assert said(run(box, python, "threads.py")) == ["[0, 1, 4, 9, 16] 42 28 1 True"]


def test_processes_share_memory_and_work(box: Box, python: str) -> None:
    lines = said(run(box, python, "processes.py"))
    version = own_version() if python == "the machine's" else (3, 13)
    assert lines[0] == str(version)
    assert lines[1:4] == [
        f"{method} [0, 1, 4, 9] 200 b'1234' [0, 0, 0]" for method in ("fork", "forkserver", "spawn")
    ]
    assert lines[4:] == ["[0, 1, 4] python", "{'a': 1, 'b': 2}"]


def test_files_are_mapped_locked_and_queried(box: Box, python: str) -> None:
    both = "'pipe+socket'"
    assert said(run(box, python, "files.py")) == [
        f"[('wal',), (1000, 332833500)] b'hello' held True [{both}, {both}, {both}]"
    ]


def test_children_are_started_heard_and_ended(box: Box, python: str) -> None:
    assert said(run(box, python, "children.py")) == [
        "b'THROUGH ASYNCIO' [0, 1, 2, 3] -15 b'OVER A LOCAL SOCKET\\n' 15",
        "True",
        "reversed 3 one",
        "1",
        "timed out",
        "7",
    ]


def test_numbers_tables_and_a_picture(box: Box, python: str) -> None:
    ran = run(box, python, "science.py")
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    assert ran.text.splitlines() == [
        "svd True True",
        "fft True",
        "mapped True",
        "groups {'a': 5, 'b': 7, 'c': 3}",
        "days ['2024-02-29', '2024-03-01'] (9, 3)",
        "drawn",
    ]
    png = ran.files["plot.png"]
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", png[16:24]) == (400, 300) and len(png) > 5000
