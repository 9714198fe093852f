"""Runs whole test files on the cgroup v2 kernel, one guest a file and one guest a CPU at a time.

    python -m tests.uml.suite [PATH...] [OPTION...]

Paths are files or directories (default: everything about the sandbox), everything else goes to
pytest. A file has a guest of its own: what one leaves behind, or breaks, is not the next one's.
Prints what each test said as it ends, then a line a file. Exit code 0 only if no test failed and
some passed.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.uml import boot

REPOSITORY = Path(__file__).resolve().parents[2]
EVERYTHING = ("tests/sandbox", "tests/attacks", "tests/journeys/test_worlds.py")
PYTEST = (sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider")
MEMORY = "4096M"  # a server has budgets, and some archives in the tests are a gigabyte
SECONDS = 5400  # of one file
NOTHING_SELECTED = 5  # pytest's exit code, when -k or -m leaves nothing of a file


class Outcome(NamedTuple):
    """How one file went."""

    file: str
    code: int
    summary: str  # pytest's last line, or why there is none
    seconds: float


def main() -> int:
    """Run what the arguments name; the exit code."""
    if not boot.installed():
        print("needs linux.uml (Debian package user-mode-linux)", file=sys.stderr)
        return 2
    paths = [word for word in sys.argv[1:] if Path(word.split("::")[0]).exists()]
    options = [word for word in sys.argv[1:] if word not in paths]
    files: queue.SimpleQueue[str] = queue.SimpleQueue()
    for file in _files(paths or [path for path in EVERYTHING if Path(path).exists()]):
        files.put(file)
    outcomes: list[Outcome] = []
    lanes = [
        threading.Thread(target=_work, args=(files, options, cpu, outcomes), daemon=True)
        for cpu in os.sched_getaffinity(0)
    ]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    print(f"\ncgroup v2, {os.path.basename(boot.KERNEL)}:")
    for outcome in sorted(outcomes):
        word = "ok" if outcome.code in (0, NOTHING_SELECTED) else "FAILED"
        print(f"{word:6} {outcome.seconds:5.0f} s  {outcome.file}: {outcome.summary}")
    held = all(outcome.code in (0, NOTHING_SELECTED) for outcome in outcomes)
    return 0 if held and any(outcome.code == 0 for outcome in outcomes) else 1


def _files(paths: list[str]) -> list[str]:
    """Test files, the largest first: the last ones to run should be short."""
    found: list[str] = []
    for path in paths:
        inside = map(str, Path(path).rglob("test_*.py")) if Path(path).is_dir() else [path]
        found += [file for file in inside if file not in found]
    return sorted(found, key=lambda file: -Path(file.split("::")[0]).stat().st_size)


def _work(
    files: queue.SimpleQueue[str], options: list[str], cpu: int, outcomes: list[Outcome]
) -> None:
    while True:
        try:
            file = files.get_nowait()
        except queue.Empty:
            return
        outcomes.append(_run(file, options, cpu))


def _run(file: str, options: list[str], cpu: int) -> Outcome:
    started = time.monotonic()
    try:
        code, output = boot.run(
            [*PYTEST, *options, file],
            cwd=REPOSITORY,
            readable=[Path(sys.prefix), Path(file.split("::")[0]).resolve().parent],
            memory=MEMORY,
            timeout=SECONDS,
            cpu=cpu,
            on_line=lambda line: print(line, flush=True),
        )
        last = output.strip().rpartition("\n")[2]
        summary = re.sub(r"^=+ | in [\d.]+s.*", "", last)
    except boot.GuestError as error:
        code, summary = 1, str(error)
    return Outcome(file, code, summary, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
