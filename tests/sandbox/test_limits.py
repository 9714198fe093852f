"""How much a job may use, once for each limit and kind of end, on either version of cgroups: what
ends it and with which reason, what is refused while it goes on, what is reported, and how it is
stopped from outside. Whoever tries to get around that is in tests/attacks (RX, LC).

Of user-mode Linux we ask the same facts, but not the same speed.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.model import MIB, Gauge
from tests.sandbox.box import Box, Ran, wait_until

pytestmark = pytest.mark.core

UML = "user mode" in Path("/proc/cpuinfo").read_text().lower()
SECOND = 30.0 if UML else 1.0  # in which an end must come; on a slow kernel so much later
SHORT = 3.0 if UML else 0.5  # a time-out that a program has begun its mischief in
BURN = 1.0 if UML else 0.3  # CPU seconds that stand out of what a program's start costs

PRELUDE = """
import errno, json, mmap, os, resource, signal, subprocess, sys, time
MIB = 1 << 20
def say(value): print(json.dumps(value), flush=True)
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
def name(error): return errno.errorcode[error.errno]
"""


def said(ran: Ran) -> Any:
    """The JSON that a job said; it must have come to its end."""
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    return json.loads(ran.stdout)


def run(box: Box, code: str, **options: Any) -> Ran:
    return box.python(PRELUDE + code, **options)


def wall_seconds(ran: Ran) -> float:
    return ran.result.usage.wall_usec / 1e6


def cpu_seconds(ran: Ran) -> float:
    return ran.result.usage.cpu_usec / 1e6


async def spoken(
    box: Box, code: str, stop: "asyncio.Future[str] | None" = None, **options: Any
) -> "asyncio.Future[Ran]":
    """A job that has said something and runs on: its task."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(stream: str, data: bytes) -> None:
        if not ready.done():
            ready.set_result(None)

    job = asyncio.ensure_future(box.apython(PRELUDE + code, on_output=hear, stop=stop, **options))
    await asyncio.wait([ready, job], return_when=asyncio.FIRST_COMPLETED)
    assert not job.done(), (await job).stderr.decode()
    return job


# --- the limits as the kernel has them -------------------------------------------------------


def _files(box: Box) -> dict[str, str]:
    """Every file of the running job's cgroup that can be read, of all hierarchies."""
    found = {}
    for folder in box.cgroup_folders():
        for file in Path(folder).iterdir():
            try:
                found[file.name] = file.read_text().strip()
            except OSError:
                continue
    return found


def test_the_cgroup_has_the_limits_that_were_asked_for(box: Box) -> None:
    async def look() -> dict[str, str]:
        stop = asyncio.get_running_loop().create_future()
        limits = {"memory_bytes": 96 * MIB, "tasks": 7, "cpus": 0.5}
        job = await spoken(box, "say(1); signal.pause()", stop, **limits)
        files = _files(box)
        stop.set_result("cancelled")
        await job
        return files

    files = box.wait(look())
    assert files["pids.max"] == "8"  # one more: pid 1 is ours
    if "memory.max" in files:
        assert files["memory.max"] == str(96 * MIB)
        assert files["memory.oom.group"] == "1"
        assert files.get("memory.swap.max", "0") == "0"
    else:
        assert files["memory.limit_in_bytes"] == str(96 * MIB)
        assert files.get("memory.memsw.limit_in_bytes", str(96 * MIB)) == str(96 * MIB)
    if "cpu.max" in files:
        assert files["cpu.max"] == "50000 100000"
    else:
        assert (files["cpu.cfs_quota_us"], files["cpu.cfs_period_us"]) == ("50000", "100000")


def test_the_program_has_the_process_limits_that_were_asked_for(box: Box) -> None:
    names = ("CORE", "FSIZE", "NOFILE", "NPROC", "SIGPENDING", "MSGQUEUE", "MEMLOCK", "STACK",
             "RTPRIO", "NICE", "AS")  # fmt: skip
    code = f"say({{n: resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in {names}}})"
    limits = said(run(box, code, disk_bytes=3 * MIB, descriptors=77, tasks=9))
    assert limits == {
        "CORE": [1, 1], "FSIZE": [3 * MIB] * 2, "NOFILE": [77] * 2, "NPROC": [25] * 2,
        "SIGPENDING": [256] * 2, "MSGQUEUE": [0, 0], "MEMLOCK": [65536] * 2,
        "STACK": [8 * MIB, 64 * MIB], "RTPRIO": [0, 0], "NICE": [0, 0], "AS": [-1, -1],
    }  # fmt: skip


# --- time ------------------------------------------------------------------------------------


def test_the_time_out_ends_a_job_within_a_second(box: Box) -> None:
    ran = run(box, "signal.pause()", wall_seconds=SHORT)
    assert (ran.reason, ran.code, ran.result.verdict.signal) == ("timeout", None, 9)
    assert SHORT <= wall_seconds(ran) < SHORT + SECOND
    assert ran.result.limits_hit == ("timeout",)


# --- CPU -------------------------------------------------------------------------------------


def test_the_cpu_limit_ends_a_job_within_a_second(box: Box) -> None:
    ran = run(box, "while True: pass", cpu_seconds=BURN)
    assert (ran.reason, ran.code, ran.result.verdict.signal) == ("cpu", None, 9)
    assert BURN <= cpu_seconds(ran) < BURN + SECOND
    assert ran.result.limits_hit == ("cpu",)


def test_the_cpu_limit_counts_all_processes_together(box: Box) -> None:
    """Each stays below the limit, and none is waited for."""
    code = (
        "for _ in range(8):\n"
        f"    if os.fork() == 0: burn({BURN / 4}); os._exit(0)\n"
        "say(1)\nsignal.pause()"
    )
    ran = run(box, code, cpu_seconds=BURN)
    assert ran.reason == "cpu"


def test_many_spinning_processes_get_no_more_than_their_share(box: Box) -> None:
    code = "for _ in range(4):\n    if os.fork() == 0:\n        while True: pass\nsignal.pause()"
    ran = run(box, code, cpus=0.25, wall_seconds=5 * BURN)
    assert ran.reason == "timeout"
    assert cpu_seconds(ran) < 0.5 * wall_seconds(ran)
    assert cpu_seconds(ran) > 0.1 * wall_seconds(ran)


# --- memory ----------------------------------------------------------------------------------


def test_too_much_memory_ends_a_job_within_a_second(box: Box) -> None:
    ran = run(box, "x = bytearray(256 * MIB); signal.pause()", memory_bytes=64 * MIB)
    assert (ran.reason, ran.code, ran.result.verdict.signal) == ("memory", None, 9)
    assert wall_seconds(ran) < SECOND
    assert ran.result.limits_hit == ("memory",)


def test_files_count_together_with_the_memory_of_processes(box: Box) -> None:
    """Each fits alone."""
    code = (
        "memfd = os.memfd_create('f')\n"
        "for path in ('/job/f', '/tmp/f', '/dev/shm/f', f'/proc/self/fd/{memfd}'):\n"
        "    open(path, 'wb').write(bytes(20 * MIB)); say(path[:5])\n"
        "x = mmap.mmap(-1, 20 * MIB); x.write(b'x' * (20 * MIB))\n"
        "say(1); signal.pause()"
    )
    ran = run(box, code, memory_bytes=64 * MIB)
    assert (ran.reason, ran.stdout[:16]) == ("memory", b'"/job/"\n"/tmp/"\n')


def test_python_starts_in_16_megabytes(box: Box) -> None:
    assert said(run(box, "say('up')", memory_bytes=16 * MIB)) == "up"


# --- tasks -----------------------------------------------------------------------------------


def test_processes_end_at_the_limit_and_the_job_goes_on(box: Box) -> None:
    code = (
        "children, refused = [], None\n"
        "while refused is None and len(children) < 100:\n"
        "    try: child = os.fork()\n"
        "    except OSError as error: refused = name(error); break\n"
        "    if child == 0: signal.pause()\n"
        "    children.append(child)\n"
        "for child in children: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)\n"
        "say([len(children), refused, subprocess.run(['true']).returncode])"
    )
    ran = run(box, code, tasks=12)
    assert said(ran) == [11, "EAGAIN", 0]
    assert ran.result.limits_hit == ("tasks",)


# --- disk, inodes, files, descriptors --------------------------------------------------------


def test_a_full_disk_is_an_error_and_the_job_goes_on(box: Box) -> None:
    code = (
        "size = 0\n"
        "with open('/tmp/full', 'wb', 0) as f:\n"
        "    try:\n"
        "        while True: size += f.write(bytes(65536))\n"
        "    except OSError as error: refused = name(error)\n"
        "say([size, refused])"
    )
    ran = run(box, code, disk_bytes=4 * MIB)
    size, refused = said(ran)
    assert refused == "ENOSPC"
    assert 3 * MIB < size <= 4 * MIB
    assert ran.result.limits_hit == ("disk",)


def test_the_three_writable_folders_share_one_disk(box: Box) -> None:
    code = (
        "def fill(path):\n"
        "    try: open(path, 'wb', 0).write(bytes(2 * MIB)); return os.stat(path).st_size\n"
        "    except OSError as error: return name(error)\n"
        "say([fill('/job/a'), fill('/tmp/a'), fill('/dev/shm/a'), fill('/job/b')])"
    )
    sizes = said(run(box, code, disk_bytes=5 * MIB))
    assert sizes[:2] == [2 * MIB, 2 * MIB]
    assert 0 < sizes[2] < 2 * MIB
    assert sizes[3] == "ENOSPC"


def test_inodes_run_out_as_an_error_and_the_job_goes_on(box: Box) -> None:
    code = (
        "made = 0\n"
        "try:\n"
        "    while made < 1000: os.mkdir(f'/tmp/{made}'); made += 1\n"
        "except OSError as error: say([made, name(error)])"
    )
    ran = run(box, code, inodes=64)
    made, refused = said(ran)
    assert refused == "ENOSPC"
    assert 50 < made < 64
    assert ran.result.limits_hit == ("inodes",)


def test_a_memfd_larger_than_the_disk_is_an_error(box: Box) -> None:
    code = (
        "try: os.truncate(os.memfd_create('x'), 5 * MIB)\nexcept OSError as error: say(name(error))"
    )
    assert said(run(box, code, disk_bytes=4 * MIB)) == "EFBIG"


def test_descriptors_run_out_as_an_error_and_the_job_goes_on(box: Box) -> None:
    code = (
        "held = []\n"
        "try:\n"
        "    while len(held) < 1000: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError as error: say([max(held), len(held), name(error)])"
    )
    assert said(run(box, code, descriptors=40)) == [39, 37, "EMFILE"]


# --- output and input ------------------------------------------------------------------------


def test_the_last_bytes_before_the_end_arrive(box: Box) -> None:
    ran = run(box, "os.write(1, b'x' * 500_000 + b'end'); os._exit(7)")
    assert (ran.code, len(ran.stdout), ran.stdout[-3:]) == (7, 500_003, b"end")


def test_stdin_arrives_and_ends(box: Box) -> None:
    data = bytes(range(256)) * 20_000
    code = (
        "import hashlib\nd = sys.stdin.buffer.read()\nsay([len(d), hashlib.sha256(d).hexdigest()])"
    )
    assert said(run(box, code, stdin=data)) == [len(data), hashlib.sha256(data).hexdigest()]


# --- what stays behind -----------------------------------------------------------------------

DAEMON = (
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        os.chdir('/'); os.closerange(0, 256)\n"
    "        for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
    "        open('/job/alive', 'w').close()\n"
    "        while True: open('/job/late', 'a').write('x')\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "while not os.path.exists('/job/alive'): os.sched_yield()\n"
    "os._exit(5)"
)


def test_a_daemon_does_not_outlive_its_job_nor_delay_its_result(box: Box) -> None:
    ran = run(box, DAEMON)
    assert (ran.reason, ran.code) == ("exit", 5)
    assert wall_seconds(ran) < SECOND
    assert "alive" in ran.files  # it did run; that it is gone, nothing_is_left sees
    assert not box.pids()


# --- being ended from outside ----------------------------------------------------------------


def test_a_stopped_job_ends_within_a_second_as_cancelled(box: Box) -> None:
    async def stop_it() -> tuple[float, Ran]:
        stop = asyncio.get_running_loop().create_future()
        job = await spoken(box, "say(1)\nwhile True: pass", stop)
        begun = time.monotonic()
        stop.set_result("cancelled")
        ran = await job
        return time.monotonic() - begun, ran

    seconds, ran = box.wait(stop_it())
    assert seconds < SECOND
    assert (ran.reason, ran.code, ran.result.verdict.signal) == ("cancelled", None, 9)
    assert ran.result.limits_hit == ()


def test_the_reason_of_a_stop_is_the_one_that_was_given(box: Box) -> None:
    async def stop_it() -> Ran:
        stop = asyncio.get_running_loop().create_future()
        job = await spoken(box, "say(1)\nwhile True: pass", stop)
        stop.set_result("cpu_quota")
        return await job

    assert box.wait(stop_it()).reason == "cpu_quota"


def test_a_stop_that_was_set_before_the_start_ends_the_job(box: Box) -> None:
    async def stop_it() -> Ran:
        stop = asyncio.get_running_loop().create_future()
        stop.set_result("cancelled")
        return await box.apython(PRELUDE + "signal.pause()", stop=stop)

    assert box.wait(stop_it()).reason == "cancelled"


def test_a_cancelled_task_leaves_nothing(box: Box) -> None:
    async def cancel() -> None:
        job = await spoken(box, "say(1)\nwhile True: pass")
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    box.wait(cancel())
    assert wait_until(lambda: not box.pids(), SECOND)


@pytest.mark.parametrize("turns", range(8))
def test_a_task_that_is_cancelled_while_it_starts_leaves_nothing(box: Box, turns: int) -> None:
    """After so many turns of the loop: before, while and after the launcher answers."""

    async def cancel() -> None:
        job = asyncio.ensure_future(box.apython("import signal; signal.pause()"))
        for _ in range(turns):
            await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    box.wait(cancel())
    assert said(run(box, "say(1)")) == 1


def test_a_task_that_is_cancelled_twice_leaves_nothing(box: Box) -> None:
    async def cancel() -> None:
        job = await spoken(box, "say(1)\nwhile True: pass")
        job.cancel()
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    box.wait(cancel())
    assert said(run(box, "say(1)")) == 1


# --- many, and what is reported --------------------------------------------------------------


@pytest.mark.heavy
def test_twenty_jobs_at_once_are_all_right(box: Box) -> None:
    async def twenty() -> list[Ran]:
        return await asyncio.gather(
            *(
                box.apython(
                    PRELUDE + "burn(0.02); sys.exit(int(open('n').read()) + len(sys.stdin.read()))",
                    files={"n": str(n).encode()}, stdin=b"x" * n, memory_bytes=64 * MIB,
                    wall_seconds=30 * SECOND,
                )
                for n in range(20)
            )
        )  # fmt: skip

    assert [(ran.reason, ran.code) for ran in box.wait(twenty())] == [
        ("exit", 2 * n) for n in range(20)
    ]


def test_the_cpu_time_reported_is_what_was_burnt(box: Box) -> None:
    ran = run(box, f"burn({BURN})")
    assert BURN <= cpu_seconds(ran) < 2 * BURN
    assert cpu_seconds(ran) <= 1.2 * wall_seconds(ran)


def test_the_gauge_tells_what_a_running_job_has_used_and_outlives_it(box: Box) -> None:
    gauges: list[Callable[[], Gauge]] = []
    seen: list[float] = []

    def hear(stream: str, data: bytes) -> None:
        if data.strip():  # and not the end of a line alone
            seen.append(gauges[0]().cpu_seconds)

    code = f"say(1); time.sleep(0.2); say(2); burn({BURN}); say(3)"
    ran = run(box, code, on_output=hear, on_gauge=gauges.append)
    first, slept, burnt = seen
    assert 0 < first
    assert slept - first < 0.1  # of the 0.2 that it slept
    assert 0.8 * BURN < burnt - slept < BURN + 0.1  # it burns already while we look
    assert 0 <= cpu_seconds(ran) - burnt < 0.1
    assert gauges[0]().cpu_seconds >= burnt  # nothing more is known once the cgroup is gone


def test_the_gauge_tells_how_much_memory_a_running_job_has_and_had(box: Box) -> None:
    gauges: list[Callable[[], Gauge]] = []
    seen: list[Gauge] = []

    def hear(stream: str, data: bytes) -> None:
        if data.strip():
            seen.append(gauges[0]())

    held = f"held = bytearray(b'x') * {64 * MIB}"
    wait = "time.sleep(1)"  # for us to have looked
    ran = run(
        box,
        f"say(1); {held}; say(2); {wait}; del held; say(3)",
        on_output=hear,
        on_gauge=gauges.append,
    )
    before, full, after = seen
    assert before.memory_bytes < 32 * MIB
    assert 64 * MIB < full.memory_bytes < 96 * MIB
    assert after.memory_bytes < 32 * MIB and after.memory_peak_bytes > 64 * MIB
    assert ran.result.usage.memory_peak_bytes >= after.memory_peak_bytes


def test_the_cpu_time_of_children_that_nobody_waited_for_is_reported(box: Box) -> None:
    """rusage would miss it: the child is alive when the program ends."""
    code = (
        "read, write = os.pipe()\n"
        f"if os.fork() == 0: burn({BURN}); os.write(write, b'x'); signal.pause()\n"
        "os.read(read, 1)"
    )
    ran = run(box, code)
    assert ran.reason == "exit"
    assert cpu_seconds(ran) >= BURN


def test_the_memory_peak_reported_is_what_was_touched(box: Box) -> None:
    ran = run(box, "x = bytearray(50 * MIB); del x")
    assert 50 * MIB <= ran.result.usage.memory_peak_bytes < 80 * MIB


def test_the_wall_time_reported_is_what_passed(box: Box) -> None:
    begun = time.monotonic()
    ran = run(box, "time.sleep(0.2)")
    passed = time.monotonic() - begun
    assert 0.2 <= wall_seconds(ran) <= passed
