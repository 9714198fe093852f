"""The programs of this folder as jobs, run as a client's would be: by the runtime of their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox.model import MIB, Limits
from sandbox.runtimes import load
from tests.sandbox.box import Box, Ran

PROGRAMS = Path(__file__).parent / "programs"
LIMITS = Limits(memory_bytes=1024 * MIB, disk_bytes=300 * MIB, cpus=2.0, wall_seconds=120.0)
RUNTIMES = load()


def run(box: Box, runtime: str, name: str, *more: str, **options: Any) -> Ran:
    """Run the program of that name; `more` are files that it needs beside it."""
    command = RUNTIMES[runtime].command(name, limits=LIMITS)
    files = {path: (PROGRAMS / path).read_bytes() for path in (name, *more)}
    ran = box.wait(box.arun(command, files=files, **LIMITS._asdict(), **options))
    assert isinstance(ran, Ran)
    return ran


def said(ran: Ran) -> list[str]:
    """The lines that it wrote; it must have come to its end without a complaint."""
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.text, ran.stderr)
    assert ran.stderr.decode() == ""
    return ran.text.splitlines()
