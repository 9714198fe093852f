"""Who has too many locks of files, as the kernel tells it: real processes with real locks.
The attack UC-10 tries the same on a whole server."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandbox import locks
from sandbox.model import LAST_UID

JOBS = [LAST_UID - n for n in range(3)]  # the last that a launcher would give away
# As that user takes so many locks and waits; if wanted, by a child that shares the descriptors and
# is no thread, and that has ended by then.
HOLD = """
import ctypes, fcntl, os, signal, sys
uid, count, dead = map(int, sys.argv[1:4])
file = open(sys.argv[4], "r+")
os.setresuid(uid, uid, uid)
pid = ctypes.PyDLL(None).syscall(56 if os.uname().machine == "x86_64" else 220,
                                 0x400 | signal.SIGCHLD, 0, 0, 0, 0) if dead else 0
if pid == 0:
    for n in range(count):
        fcntl.lockf(file, fcntl.LOCK_SH, 1, 2 * n)
    if dead:
        os._exit(0)
else:
    os.waitpid(pid, 0)
print(count, flush=True)
signal.pause()
"""
Hold = Callable[..., None]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    with ExitStack() as stack:

        def hold(uid: int, count: int, dead: bool = False) -> None:
            file = tmp_path / f"{uid}-{dead}"
            file.touch()
            words = [str(uid), str(count), str(int(dead)), str(file)]
            holder = subprocess.Popen([sys.executable, "-c", HOLD, *words], stdout=subprocess.PIPE)
            stack.callback(holder.wait)
            stack.callback(holder.send_signal, signal.SIGKILL)
            assert holder.stdout and holder.stdout.readline() == b"%d\n" % count
            holder.stdout.close()

        yield hold


def test_who_has_more_than_is_granted_is_found_and_nobody_else_is(hold: Hold) -> None:
    for uid, count in zip(JOBS, (10, locks.MOST, locks.MOST + 1), strict=True):
        hold(uid, count)
    hold(0, 2 * locks.MOST)
    assert locks._search(JOBS) == locks.Found({JOBS[2]}, False)
    assert locks._search(JOBS[:2]) == locks.Found(set(), True)


def test_where_reading_would_take_long_more_than_an_equal_share_is_too_many(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uid, count in zip(JOBS, (10, 700, 800), strict=True):
        hold(uid, count)
    assert locks._search(JOBS) == locks.Found(set(), True)
    monkeypatch.setattr(locks, "_LINES", 900)
    found = locks._search(JOBS)
    assert found.hoarders and found.hoarders <= set(JOBS[1:]) and not found.is_all


@pytest.mark.skipif(not os.path.exists(locks._COUNTER), reason="the kernel does not count")
@pytest.mark.parametrize("dead", [False, True], ids=["living", "dead"])
def test_what_dead_processes_hold_does_not_become_the_usual(
    hold: Hold, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(locks, "_MANY", 1000)
    watched = locks.Locks()
    usual = watched._usual
    hold(0, 3 * locks.MOST, dead)
    assert watched.hoarders(JOBS) == set()
    assert (watched._usual > usual) is not dead
