"""Jobs that do their worst: they end for the right reason, the server stays quick, and what they
had written until then is there; two seconds later nothing is left."""

import time

import pytest

from tests.journeys.server import Server, cgroups_of, eventually
from tests.sandbox.box import job_processes

FORK_BOMB = b"""
import os, pathlib
pathlib.Path("before.txt").write_text("kept")
print("started", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
FLOOD = b"""
import sys
block = b"x" * (1 << 20)
for _ in range(10 * 1024):
    sys.stdout.buffer.write(block)
print("end of 10 GB")
"""
FULL_DISK = b"""
import errno
open("before.txt", "w").write("kept")
try:
    with open("big", "wb") as file:
        while True:
            file.write(b"x" * 65536)
except OSError as error:
    print(errno.errorcode[error.errno])
"""
DAEMON = b"""
import os, time
open("before.txt", "w").write("kept")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        while True:
            time.sleep(0.01)
            open("/job/after.txt", "a").write("late")
    os._exit(0)
print("main ends")
"""


@pytest.mark.parametrize(
    ("code", "manifest", "reason", "hit", "said"),
    [
        (FORK_BOMB, {"timeout": 3}, "timeout", {"timeout", "tasks"}, "started"),
        (FLOOD, {"timeout": 120}, None, {"log"}, "end of 10 GB"),
        (FULL_DISK, {}, None, {"disk"}, "ENOSPC"),
        (DAEMON, {}, None, set(), "main ends"),
    ],
    ids=["fork bomb", "10 GB of output", "full disk", "daemon"],
)
def test_a_storm_ends_and_hurts_nobody(
    server: Server,
    code: bytes,
    manifest: dict[str, int],
    reason: str | None,
    hit: set[str],
    said: str,
) -> None:
    job = server.start({"main.py": code}, entrypoint="main.py", **manifest)
    slowest = server.slowest_health(job)
    status = server.finish(job)
    assert status["reason"] == reason, status
    assert set(status["limits_hit"]) == hit, status
    assert said in server.get(f"/logs/{job}")["stdout"]
    if code is not FLOOD:
        assert server.request("GET", f"/download/{job}/before.txt")[1] == b"kept"
    assert slowest < 0.3, f"/health took {slowest:.3f} s"
    assert eventually(lambda: not job_processes(), 2.0)
    assert eventually(lambda: not cgroups_of(server.process.pid), 2.0)


@pytest.mark.parametrize(
    ("code", "manifest", "reason"),
    [
        ("while True: pass", {"timeout": 1}, "timeout"),
        ("x = b'x' * (1 << 30)", {"memory_mb": 64}, "memory"),
        ("while True: pass", {"cpu_seconds": 1}, "cpu"),
    ],
)
def test_a_limit_ends_the_job_within_a_second(
    server: Server, code: str, manifest: dict[str, int], reason: str
) -> None:
    code = "print('before', flush=True)\nopen('f', 'w').write('kept')\n" + code
    started = time.monotonic()
    job = server.start({"main.py": code.encode()}, entrypoint="main.py", **manifest)
    status = server.finish(job)
    took = time.monotonic() - started
    assert (status["status"], status["reason"]) == ("failed", reason), status
    assert reason in status["limits_hit"]
    if reason != "memory":
        assert took < 1 + 1.0, f"took {took:.2f} s for a limit of 1 s"
    assert server.get(f"/logs/{job}")["stdout"] == "before\n"
    assert server.request("GET", f"/download/{job}/f")[1] == b"kept"
