"""Worlds: the same verdicts whichever cgroup version counts, and what is left where none does.

The table runs on this machine's version and, by tests/uml, on version 2: the figures that it
expects are the same (LC-18). The second half takes the cgroups away from a real launcher.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox import cgroups
from sandbox.model import MIB, Gauge
from tests.sandbox.box import LAUNCHER, REPOSITORY, Box, Ran

CAP_SYS_RESOURCE = 24
CONTROLLERS = (*cgroups.CONTROLLERS, "cpuacct")


class Expected(NamedTuple):
    """What must come out, in every world."""

    reason: str
    exit_code: int | None
    signal: int | None
    limits_hit: tuple[str, ...] = ()
    cpu_usec: tuple[float, float] = (0, 60e6)
    peak_mib: tuple[float, float] = (0.1, 96)


SPIN = """
import time
end = time.process_time() + {seconds}
while time.process_time() < end:
    pass
"""
FORKS = """
import os, time
made = 0
try:
    for _ in range(50):
        if not os.fork():
            time.sleep(30)
        made += 1
except OSError as error:
    print(made, error.errno)
"""
GRANDCHILD = """
import os
if not os.fork():
    block = b"x" * (200 << 20)
os.wait()
print("lives on")
"""
WORLD: dict[str, tuple[str, dict[str, Any], Expected]] = {
    "ends well": ("print(1)", {}, Expected("exit", 0, None)),
    "exits with a code": ("raise SystemExit(7)", {}, Expected("exit", 7, None)),
    "kills itself": ("import os; os.kill(os.getpid(), 11)", {}, Expected("signal", None, 11)),
    "uses CPU time": (
        SPIN.format(seconds=0.5), {},
        Expected("exit", 0, None, cpu_usec=(0.45e6, 2e6)),
    ),
    "uses too much CPU time": (
        SPIN.format(seconds=60), {"cpu_seconds": 0.5},
        Expected("cpu", None, 9, ("cpu",), cpu_usec=(0.45e6, 3e6)),
    ),
    "leaves its CPU time to children that nobody waits for": (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "child = os.fork()\nif not child:\n"
        + SPIN.format(seconds=0.5).replace("\n", "\n    ")
        + "\n    os._exit(0)\n"
        "try:\n    os.waitpid(child, 0)\nexcept ChildProcessError:\n    pass",
        {}, Expected("exit", 0, None, cpu_usec=(0.4e6, 2e6)),
    ),
    "takes too long": (
        "import time; time.sleep(60)", {"wall_seconds": 1.0},
        Expected("timeout", None, 9, ("timeout",)),
    ),
    "keeps memory within the limit": (
        "block = b'x' * (40 << 20)", {}, Expected("exit", 0, None, peak_mib=(40, 96)),
    ),
    "takes too much memory": (
        "block = b'x' * (200 << 20)", {},
        Expected("memory", None, 9, ("memory",), peak_mib=(90, 96.1)),
    ),
    "has a grandchild that takes too much memory": (
        GRANDCHILD, {}, Expected("memory", None, 9, ("memory",), peak_mib=(90, 96.1)),
    ),
    "fills its memory with files": (
        "open('full', 'wb').write(b'x' * (120 << 20))", {"disk_bytes": 200 * MIB},
        Expected("memory", None, 9, ("memory",), peak_mib=(90, 96.1)),
    ),
    "forks without end": (FORKS, {"tasks": 8}, Expected("timeout", None, 9, ("timeout", "tasks"))),
}  # fmt: skip


@pytest.mark.core
@pytest.mark.parametrize("program", WORLD)
def test_every_world_gives_the_same_verdict_and_figures(box: Box, program: str) -> None:
    """LC-18."""
    code, limits, expected = WORLD[program]
    limits = {"memory_bytes": 96 * MIB, "wall_seconds": 30.0, **limits}
    if "forks" in program:  # its children outlive its last word: time ends them
        code, limits["wall_seconds"] = code + "time.sleep(30)", 3.0
    ran = box.python(code, **limits)
    verdict, usage = ran.result.verdict, ran.result.usage
    if "forks" in program:
        assert ran.text == "7 11\n", "the program is the eighth task"
    seen = (verdict.reason, verdict.exit_code, verdict.signal, ran.result.limits_hit)
    assert seen == (expected.reason, expected.exit_code, expected.signal, expected.limits_hit), ran
    assert expected.cpu_usec[0] <= usage.cpu_usec <= expected.cpu_usec[1], ran
    assert expected.peak_mib[0] <= usage.memory_peak_bytes / MIB <= expected.peak_mib[1], ran


# --- without cgroups -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Iterator[Box]:
    box = Box(without=CONTROLLERS).start()
    try:
        yield box
    finally:
        box.close()


def test_what_is_missing_is_said(bare: Box) -> None:
    walls = bare.sandbox.walls
    assert walls["cgroup"] == {"memory": "none", "pids": "none", "cpu": "none"}
    assert bare.sandbox.missing == ("cgroup-memory", "cgroup-pids", "cgroup-cpu")


def test_where_nothing_is_missing_nothing_is_said(box: Box) -> None:
    assert "missing" not in box.sandbox.walls and box.sandbox.missing == ()


def test_without_cgroups_a_job_is_in_none_that_was_made_for_it(bare: Box) -> None:
    bare.sh("true")
    assert not bare.cgroup_folders()
    assert bare.sh("cat /proc/self/cgroup").text.replace("0::/\n", "").count("sandrun") == 0


def test_without_cgroups_a_fork_bomb_ends_at_the_limit_of_its_uid(bare: Box) -> None:
    ran = bare.python(FORKS + "time.sleep(30)", tasks=8, wall_seconds=3.0)
    assert (ran.text, ran.reason) == ("7 11\n", "timeout"), ran
    assert ran.result.limits_hit == ("timeout",), "nobody counted what was refused"


def test_without_cgroups_the_limit_of_one_job_is_not_used_up_by_another(bare: Box) -> None:
    async def both() -> list[Ran]:
        code = FORKS + "time.sleep(1)\nos.kill(-1, 9)"
        return await asyncio.gather(*(bare.apython(code, tasks=8) for _ in range(2)))

    assert [ran.text for ran in bare.wait(both())] == ["7 11\n", "7 11\n"]


def test_without_cgroups_one_process_is_refused_more_than_twice_the_memory(bare: Box) -> None:
    ran = bare.python("b'x' * (300 << 20)", memory_bytes=64 * MIB)
    assert (ran.reason, ran.code) == ("exit", 1) and b"MemoryError" in ran.stderr, ran


MANY = """
import os, time
for _ in range(6):
    if not os.fork():
        block = b"x" * (30 << 20)
        time.sleep(30)
time.sleep(30)
"""
SHARED = """
import mmap, time
block = mmap.mmap(-1, 150 << 20)
for at in range(0, 150 << 20, 4096):
    block[at] = 1
time.sleep(30)
"""
FILES = """
import time
open("full", "wb").write(b"x" * (90 << 20))
time.sleep(30)
"""


@pytest.mark.parametrize("code", [MANY, SHARED, FILES], ids=["processes", "shared memory", "files"])
def test_without_cgroups_memory_is_seen_and_ends_the_job(bare: Box, code: str) -> None:
    ran = bare.python(code, memory_bytes=64 * MIB)
    assert (ran.reason, ran.result.limits_hit) == ("memory", ("memory",)), ran
    assert ran.result.usage.memory_peak_bytes > 64 * MIB
    assert ran.result.usage.wall_usec < 15e6


@pytest.mark.core
def test_without_cgroups_memory_is_seen_with_the_rights_of_the_systemd_unit() -> None:
    """The kernel may refuse to say which pages are shared: then they count for each."""
    unit = (REPOSITORY / "integrations/systemd/sandrun.service").read_text()
    [line] = re.findall(r"CapabilityBoundingSet=.*", unit)
    rights = re.findall(r"CAP_(\w+)", line)
    kept = ",".join(["-all", *(f"+{right.lower()}" for right in rights)])
    box = Box(["setpriv", "--bounding-set", kept, *LAUNCHER], without=CONTROLLERS).start()
    try:
        status = Path(f"/proc/{box.process.pid}/status").read_text()
        [effective] = re.findall(r"CapEff:\s*(\w+)", status)
        assert int(effective, 16).bit_count() == len(rights)
        ran = box.python(MANY, memory_bytes=64 * MIB)
        assert (ran.reason, ran.result.limits_hit) == ("memory", ("memory",)), ran
        assert box.sh("echo on").text == "on\n", "the launcher has ended"
    finally:
        box.close()


def test_without_cgroups_pages_that_processes_share_count_once(bare: Box) -> None:
    code = """
import os, time
block = b"x" * (30 << 20)
for _ in range(8):
    os.fork() or (time.sleep(1), os._exit(0))
time.sleep(1)
"""
    ran = bare.python(code, memory_bytes=128 * MIB)
    assert (ran.reason, ran.code) == ("exit", 0), ran
    assert ran.result.usage.memory_peak_bytes > 30 * MIB


def test_without_cgroups_cpu_time_is_seen_while_it_runs_and_ends_the_job(bare: Box) -> None:
    seen = [0.0]

    async def watched() -> Ran:
        gauges: list[Callable[[], Gauge]] = []
        code = SPIN.format(seconds=60)
        job = asyncio.create_task(bare.apython(code, cpu_seconds=0.5, on_gauge=gauges.append))
        while not job.done():
            await asyncio.wait([job], timeout=0.05)
            seen.extend(gauge().cpu_seconds for gauge in gauges)
        return await job

    ran = bare.wait(watched())
    assert (ran.reason, ran.result.limits_hit) == ("cpu", ("cpu",)), ran
    assert 0.45e6 < ran.result.usage.cpu_usec < 3e6
    assert 0.1 < max(seen) < 3, "what the quota of the client is charged with meanwhile"
    assert seen == sorted(seen)


def test_without_cgroups_the_processes_are_looked_at_no_more_often_when_web_talks(
    bare: Box,
) -> None:
    """One look reads a file of every process of the machine."""
    words, launcher = 300, bare.process.pid

    async def talking() -> float:
        started = asyncio.Event()
        job = asyncio.create_task(
            bare.apython(
                "import time\nprint(1, flush=True)\ntime.sleep(60)",
                on_output=lambda *_: started.set(), stop=(stop := asyncio.Future()),
            )
        )  # fmt: skip
        await started.wait()
        before, began = _reads(launcher), time.monotonic()
        for _ in range(words):
            bare.sandbox._say(op="kill", id=1 << 40, cause="nobody")
            await asyncio.sleep(0.002)
        looks = (_reads(launcher) - before) / sum(name.isdigit() for name in os.listdir("/proc"))
        elapsed = time.monotonic() - began
        stop.set_result("cancelled")
        await job
        return looks / (10 * elapsed + 10)

    assert bare.wait(talking()) < 2, "each reads a bit more of the job's own processes"


def _reads(pid: int) -> int:
    """How many times it has read anything."""
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(io["syscr"])


@pytest.mark.parametrize("name", ["uses CPU time", "leaves its CPU time to children that nobody"])
def test_without_cgroups_cpu_time_is_charged_at_the_end(bare: Box, name: str) -> None:
    code = next(code for key, (code, _, _) in WORLD.items() if key.startswith(name))
    usage = bare.python(code).result.usage
    assert 0.3e6 < usage.cpu_usec < 2e6, usage


def test_without_cgroups_the_cpu_time_of_processes_that_nobody_saw_is_charged(bare: Box) -> None:
    code = f"""
import os
for _ in range(150):
    child = os.fork()
    if not child:
        {SPIN.format(seconds=0.004).replace(chr(10), chr(10) + " " * 8)}
        os._exit(0)
    os.waitpid(child, 0)
"""
    usage = bare.python(code).result.usage
    assert usage.cpu_usec > 0.5e6, usage


def test_without_cgroups_the_kernel_takes_from_the_job_first(bare: Box) -> None:
    code = """
import os
score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
print(os.read(score, 9).decode(), end="")
print(os.getpriority(os.PRIO_PROCESS, 0))
for attempt in (
    lambda: os.setpriority(os.PRIO_PROCESS, 0, 9),
    lambda: os.pwrite(score, b"0", 0),
):
    try:
        attempt()
        print("done")
    except PermissionError:
        print("refused")
"""
    score, nice, nicer, less = bare.python(code).text.split()
    assert (score, nice, nicer) == ("1000", "10", "refused")
    ours = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    if ours and int(ours[1], 16) >> CAP_SYS_RESOURCE & 1:
        assert less == "refused"


def test_without_cgroups_an_archive_is_inspected_and_outputs_are_collected(bare: Box) -> None:
    ran = bare.sh("echo out >out.txt")
    assert ran.files == {"out.txt": b"out\n"} and not ran.result.notes


def test_where_one_controller_is_missing_the_others_hold() -> None:
    box = Box(without=("memory",)).start()
    try:
        assert box.sandbox.missing == ("cgroup-memory",)
        ran = box.python(FORKS + "time.sleep(30)", tasks=8, wall_seconds=3.0)
        assert ran.result.limits_hit == ("timeout", "tasks"), ran
        ran = box.python(MANY, memory_bytes=64 * MIB)
        assert ran.reason == "memory", ran
        assert box.sh("nice").text == "0\n", "its cgroup holds it back already"
    finally:
        box.close()
