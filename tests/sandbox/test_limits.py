"""How much a job may use: what ends it and with which reason, what is refused while it goes on,
what is reported, and that nothing keeps a job alive or leaves a part of it behind.

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

from sandbox.model import MIB
from tests.sandbox.box import Box, Ran, wait_until

pytestmark = pytest.mark.core

UML = "user mode" in Path("/proc/cpuinfo").read_text().lower()
SECOND = 30.0 if UML else 1.0  # in which an end must come; on a slow kernel so much later
SHORT = 3.0 if UML else 0.5  # a time-out that a program has begun its mischief in
BURN = 1.0 if UML else 0.3  # CPU seconds that stand out of what a program's start costs

PRELUDE = """
import contextlib, errno, json, mmap, os, resource, signal, socket, subprocess, sys, threading, time
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


def test_what_was_said_before_the_time_out_is_kept(box: Box) -> None:
    ran = run(box, "say('begun'); signal.pause()", wall_seconds=SHORT)
    assert (ran.reason, ran.stdout) == ("timeout", b'"begun"\n')


STUBBORN = {
    "all signals ignored": (
        "for s in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(s, signal.SIG_IGN)\n"
        "say(1)\nwhile True: signal.pause()"
    ),
    "all signals handled, busy": (
        "for s in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(s, lambda *_: None)\n"
        "say(1)\nwhile True: pass"
    ),
    "all signals blocked": (
        "signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65)); say(1)\nsignal.sigwait([1])"
    ),
    "everybody stopped": (
        "children = [subprocess.Popen(['sleep', '600']) for _ in range(3)]\n"
        "say(1); os.kill(-1, signal.SIGSTOP); os.kill(0, signal.SIGSTOP)\n"
        "while True: signal.pause()"
    ),
    "a FIFO without a writer": "os.mkfifo('f'); say(1); open('f')",
    "other sessions and groups": (
        "for _ in range(5):\n"
        "    if os.fork() == 0: os.setsid(); signal.pause()\n"
        "say(1); signal.pause()"
    ),
    "a lock that nobody frees": "say(1); lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a storm of timers": (
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4); say(1)\nwhile True: signal.pause()"
    ),
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("way", STUBBORN)
def test_nothing_outlives_the_time_out(box: Box, way: str) -> None:
    ran = run(box, STUBBORN[way], wall_seconds=SHORT)
    assert (ran.reason, ran.stdout) == ("timeout", b"1\n"), ran.stderr
    assert wall_seconds(ran) < SHORT + SECOND


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


def test_a_job_uses_what_it_was_given(box: Box) -> None:
    assert said(run(box, "x = bytearray(40 * MIB); say(len(x))", memory_bytes=64 * MIB)) == 40 * MIB


def test_the_memory_of_many_children_is_summed_up(box: Box) -> None:
    """Each is far below the limit: a limit by process would let them pass."""
    code = (
        "for _ in range(8):\n"
        "    if os.fork() == 0: x = bytearray(16 * MIB); signal.pause()\n"
        "signal.pause()"
    )
    ran = run(box, code, memory_bytes=64 * MIB)
    assert ran.reason == "memory"
    assert ran.result.usage.memory_peak_bytes > 48 * MIB


PARTS = {
    "job": "open('/job/f', 'wb').write(bytes(20 * MIB))",
    "tmp": "open('/tmp/f', 'wb').write(bytes(20 * MIB))",
    "shm": "open('/dev/shm/f', 'wb').write(bytes(20 * MIB))",
    "memfd": "os.write(os.memfd_create('f'), bytes(20 * MIB))",
    "anonymous": "x = mmap.mmap(-1, 20 * MIB); x.write(b'x' * (20 * MIB))",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fits_the_memory_alone_does_no_harm(box: Box, part: str) -> None:
    assert said(run(box, f"{PARTS[part]}; say(1)", memory_bytes=64 * MIB)) == 1


def test_files_count_together_with_the_memory_of_processes(box: Box) -> None:
    ran = run(box, "\n".join(PARTS.values()) + "\nsay(1); signal.pause()", memory_bytes=64 * MIB)
    assert (ran.reason, ran.stdout) == ("memory", b"")


def test_files_alone_end_a_job_when_they_are_larger_than_its_memory(box: Box) -> None:
    code = "open('/dev/shm/f', 'wb').write(bytes(20 * MIB))\nwith open('/tmp/f', 'wb') as f:\n" \
           "    for _ in range(60): f.write(bytes(MIB))\nsay(1)"  # fmt: skip
    ran = run(box, code, memory_bytes=48 * MIB)
    assert (ran.reason, ran.stdout) == ("memory", b"")


@pytest.mark.parametrize("attempt", range(5))
def test_a_grandchild_out_of_memory_is_the_jobs_end_each_time(box: Box, attempt: int) -> None:
    """Whatever the program makes of it: it catches the death, and exits well."""
    code = (
        "if (child := os.fork()) == 0:\n"
        "    if os.fork() == 0: x = bytearray(256 * MIB); os._exit(0)\n"
        "    os.wait(); os._exit(0)\n"
        "os.wait(); os._exit(0)"
    )
    ran = run(box, code, memory_bytes=64 * MIB)
    assert (ran.reason, ran.result.verdict.signal, ran.code) == ("memory", 9, None)


def test_python_starts_in_16_megabytes(box: Box) -> None:
    assert said(run(box, "say('up')", memory_bytes=16 * MIB)) == "up"


def test_address_space_is_no_memory(box: Box) -> None:
    """Java and Go reserve much and touch little."""
    code = (
        "MAP_NORESERVE = 0x4000\n"
        "x = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)\n"
        "x[0] = 7; say([len(x), x[0]])"
    )
    assert said(run(box, code)) == [8 << 30, 7]


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


def test_threads_count_as_processes_do(box: Box) -> None:
    code = (
        "end, threads, refused = threading.Event(), [], False\n"
        "while not refused and len(threads) < 100:\n"
        "    thread = threading.Thread(target=end.wait)\n"
        "    try: thread.start()\n"
        "    except RuntimeError: refused = True\n"
        "    else: threads.append(thread)\n"
        "end.set()\nfor thread in threads: thread.join()\n"
        "say([len(threads), refused])"
    )
    ran = run(box, code, tasks=12)
    assert said(ran) == [11, True]
    assert ran.result.limits_hit == ("tasks",)


def test_a_fork_bomb_is_held_at_the_limit_until_the_time_out(box: Box) -> None:
    async def bomb() -> tuple[int, Ran]:
        # A child speaks once forks are refused, so that the count is taken with all of them there.
        code = (
            "while True:\n    try: os.fork()\n"
            "    except OSError as error:\n"
            "        with contextlib.suppress(FileExistsError):\n"
            "            os.close(os.open('/tmp/once', os.O_CREAT | os.O_EXCL)); say(name(error))"
        )
        job = await spoken(box, code, tasks=16, wall_seconds=SHORT)
        return len(box.pids()), await job

    count, ran = box.wait(bomb())
    assert 2 < count <= 17
    assert (ran.reason, ran.stdout) == ("timeout", b'"EAGAIN"\n')
    assert wall_seconds(ran) < SHORT + SECOND
    assert ran.result.limits_hit == ("timeout", "tasks")


def test_the_shells_fork_bomb_does_no_more_harm(box: Box) -> None:
    ran = box.sh("b() { b | b & }; b; sleep 600", tasks=16, wall_seconds=SHORT)
    assert ran.reason == "timeout"
    assert "tasks" in ran.result.limits_hit


def test_children_that_nobody_waits_for_count_as_tasks(box: Box) -> None:
    code = (
        "made = 0\n"
        "try:\n"
        "    while made < 100:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        made += 1\n"
        "except OSError as error: say([made, name(error)])"
    )
    assert said(run(box, code, tasks=12)) == [11, "EAGAIN"]


@pytest.mark.heavy
def test_orphans_by_the_thousand_are_reaped(box: Box) -> None:
    """Pid 1 reaps them: otherwise the twelfth would be the last. It may lag behind a little."""
    code = (
        "def fork():\n"
        "    while True:\n"
        "        try: return os.fork()\n"
        "        except BlockingIOError: os.sched_yield()\n"
        f"for _ in range({200 if UML else 1000}):\n"
        "    if fork() == 0:\n"
        "        fork(); os._exit(0)\n"
        "    os.wait()\n"
        "say('done')"
    )
    assert said(run(box, code, tasks=12, wall_seconds=20 + SECOND)) == "done"


def test_a_job_that_hits_nothing_has_no_limit_in_its_list(box: Box) -> None:
    assert box.sh("true").result.limits_hit == ()


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


def test_a_file_larger_than_the_disk_is_an_error_and_no_death(box: Box) -> None:
    code = (
        "f = open('/tmp/f', 'w+b', 0)\n"
        "def tried(do, *args):\n"
        "    try: return do(*args)\n"
        "    except OSError as error: return name(error)\n"
        "f.seek(1 << 50)\n"
        "say([tried(f.write, b'x'), tried(os.truncate, f.fileno(), 4 * MIB + 1),\n"
        "     tried(os.posix_fallocate, f.fileno(), 0, 1 << 40),\n"
        "     tried(os.truncate, f.fileno(), 4 * MIB), os.stat('/tmp/f').st_size])"
    )
    answers = said(run(box, code, disk_bytes=4 * MIB))
    assert answers[:2] == ["EFBIG", "EFBIG"]
    assert answers[2] in {"EFBIG", "ENOSPC"}
    assert answers[3:] == [None, 4 * MIB]


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


def test_a_gigabyte_of_output_is_drained_and_the_job_ends_by_itself(box: Box) -> None:
    megabytes = 64 if UML else 1024
    heard = {"stdout": 0, "stderr": 0}

    def count(stream: str, data: bytes) -> None:
        heard[stream] += len(data)

    code = f"piece = b'x' * MIB\nfor _ in range({megabytes}): os.write(1, piece)"
    ran = run(box, code, on_output=count, cap=MIB, wall_seconds=60 * SECOND)
    assert (ran.reason, ran.code) == ("exit", 0)
    assert heard == {"stdout": megabytes * MIB, "stderr": 0}
    assert ran.result.usage.memory_peak_bytes < 64 * MIB  # nothing is held inside


def test_both_pipes_are_drained_whichever_is_written_first(box: Box) -> None:
    code = (
        "def write(fd, data):\n"
        "    while data: data = data[os.write(fd, data):]\n"
        "for fd in (2, 1, 2): write(fd, bytes([48 + fd]) * (4 * MIB))"
    )
    ran = run(box, code)
    assert ran.code == 0
    assert ran.stdout == b"1" * (4 * MIB)
    assert ran.stderr == b"2" * (8 * MIB)


def test_the_last_bytes_before_the_end_arrive(box: Box) -> None:
    ran = run(box, "os.write(1, b'x' * 500_000 + b'end'); os._exit(7)")
    assert (ran.code, len(ran.stdout), ran.stdout[-3:]) == (7, 500_003, b"end")


def test_stdin_arrives_and_ends(box: Box) -> None:
    data = bytes(range(256)) * 20_000
    code = (
        "import hashlib\nd = sys.stdin.buffer.read()\nsay([len(d), hashlib.sha256(d).hexdigest()])"
    )
    assert said(run(box, code, stdin=data)) == [len(data), hashlib.sha256(data).hexdigest()]


def test_an_empty_stdin_is_at_its_end(box: Box) -> None:
    assert said(run(box, "say([sys.stdin.read(), os.read(0, 1).decode()])")) == ["", ""]


# --- what stays behind -----------------------------------------------------------------------

DAEMON = (
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        os.chdir('/'); {close}\n"
    "        for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
    "        open('/job/alive', 'w').close()\n"
    "        while True: open('/job/late', 'a').write('x')\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "while not os.path.exists('/job/alive'): os.sched_yield()\n"
    "os._exit(5)"
)


@pytest.mark.parametrize("close", ["os.closerange(0, 256)", "pass"])
def test_a_daemon_does_not_outlive_its_job_nor_delay_its_result(box: Box, close: str) -> None:
    ran = run(box, DAEMON.format(close=close))
    assert (ran.reason, ran.code) == ("exit", 5)
    assert wall_seconds(ran) < SECOND
    assert "alive" in ran.files  # it did run; that it is gone, nothing_is_left sees
    assert not box.pids()


def test_a_job_after_a_heavy_one_reports_its_own_usage_only(box: Box) -> None:
    heavy = run(box, f"x = bytearray(100 * MIB); burn({2 * BURN})")
    light = box.sh("true")
    assert heavy.code == light.code == 0
    assert cpu_seconds(light) < 0.5 * cpu_seconds(heavy)
    assert light.result.usage.memory_peak_bytes < 0.3 * heavy.result.usage.memory_peak_bytes


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


def test_the_cpu_clock_tells_what_a_running_job_has_used_and_outlives_it(box: Box) -> None:
    clocks: list[Callable[[], float]] = []
    seen: list[float] = []

    def hear(stream: str, data: bytes) -> None:
        if data.strip():  # and not the end of a line alone
            seen.append(clocks[0]())

    code = f"say(1); time.sleep(0.2); say(2); burn({BURN}); say(3)"
    ran = run(box, code, on_output=hear, on_clock=clocks.append)
    first, slept, burnt = seen
    assert 0 < first < 0.1 * BURN + 0.1
    assert slept - first < 0.05
    assert 0.8 * BURN < burnt - slept < BURN + 0.1  # it burns already while we look
    assert 0 <= cpu_seconds(ran) - burnt < 0.1
    assert clocks[0]() >= burnt  # nothing more is known once the cgroup is gone


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
