"""RX: resource exhaustion. A job takes all that it can get, of one thing after the other: it gets
its share, and neither the machine, nor the server, nor the neighbour misses anything.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.attacks.arena import Attacker, Seen, compiled, look
from tests.journeys import test_crowd
from tests.journeys.server import Server, cgroups_of, eventually, meanwhile, memory_of, watching
from tests.sandbox.box import job_processes

MIB = 1 << 20
TASKS = 32
CAP = 10 * MIB  # of what is kept of a stream
# A slow guest kernel, where the same is true but takes 50 times as long.
UML = "user mode" in Path("/proc/cpuinfo").read_text().lower()
SECOND = 30.0 if UML else 1.0


def start_c(attacker: Attacker, source: str, *args: str, **options: Any) -> str:
    """As Attacker.c, without waiting for its end."""
    files = {"run.sh": b'chmod +x probe && exec ./probe "$@"\n', "probe": compiled(source)}
    return attacker.start(files, interpreter="sh", entrypoint="run.sh", args=[*args], **options)


def limits_of(seen: Seen) -> set[str]:
    return set(seen.status["limits_hit"])


def peak_of(seen: Seen) -> int:
    return int(seen.status["execution_metadata"]["memory_peak_bytes"])


def wall_of(seen: Seen) -> float:
    return float(seen.status["wall_time"]) / 1000


def cpu_of(seen: Seen) -> float:
    return float(seen.status["cpu_seconds"])


def shown(seen: Seen) -> tuple[object, ...]:
    """A job in a line, for whoever reads what went wrong."""
    status = seen.status
    return (
        seen.reason, seen.code, status["signal"], status["limits_hit"], status["stage"],
        status["metrics"], seen.stdout[:200], seen.stderr[-200:],
    )  # fmt: skip


def is_within_its_share(seen: Seen) -> bool:
    """It burnt, and no more than the one CPU that it has; one period of its quota more or less."""
    return 0.02 < cpu_of(seen) < 1.15 * wall_of(seen) + 0.2


def not_ended_in_time(attacker: Attacker, ways: dict[str, str]) -> list[object]:
    """Those jobs that say 1, and that the time-out does not end as it must; three at once. Whoever
    had not even begun, or was late to go, on a busy machine, is given twice as long."""
    faults: list[object] = []
    seconds, left = (8 if UML else 2), list(ways)
    while left and seconds < 20:
        again = []
        for some in (left[at : at + 3] for at in range(0, len(left), 3)):
            jobs = {name: attacker.start_python(ways[name], timeout=seconds) for name in some}
            for name, job in jobs.items():
                seen = attacker.finish(job)
                end = (seen.reason, seen.code, seen.status["signal"], limits_of(seen))
                if end != ("timeout", -1, signal.SIGKILL, {"timeout"}):
                    faults.append((name, shown(seen)))
                elif seen.text != "1\n" or not seconds <= wall_of(seen) < seconds + SECOND:
                    again.append(name)
        seconds, left = 2 * seconds, again
    return [*faults, *left]


def seconds_of(pid: int) -> float:
    """CPU time of a process of the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- processes and threads -------------------------------------------------------------------

BOMB = """
from contextlib import suppress
Path("before").write_text("kept")
while True:
    try:
        os.fork()
    except OSError as error:
        with suppress(FileExistsError):
            os.mkdir("/tmp/refused")
            say(errno.errorcode[error.errno])
"""


def test_a_fork_bomb_ends_at_the_process_limit_and_then_at_the_time_out(
    attacker: Attacker,
) -> None:
    """RX-01. The shell's, and one that takes no refusal for an answer; how many there are, as the
    machine counts them. What refused forks leave to be freed is the job's memory too: on a busy
    machine the second may come to that limit before its time is over."""
    shell = {"run.sh": b"echo -n kept > before; echo up; b() { b | b & }; b; sleep 600"}
    said = {"shell": "up\n", "python": '"EAGAIN"\n'}
    bombs: dict[str, Callable[[int], str]] = {
        "shell": lambda seconds: attacker.start(shell, timeout=seconds),
        "python": lambda seconds: attacker.start_python(BOMB, timeout=seconds),
    }
    faults = []
    for name, start in bombs.items():
        for seconds in (2, 10):  # a busy machine needs its time to come to the limit
            job, most = start(seconds), 0
            while not attacker.is_over(job):
                most = max([most, *_numbers(attacker.server, "pids.current")])
            seen = attacker.finish(job)
            # pid 1 is ours; and a fork that is refused was counted for a moment
            assert most <= TASKS + 1 + (os.cpu_count() or 1)
            if most > TASKS and wall_of(seen) < seconds + SECOND:
                break
        ends = {"timeout", "memory"} if name == "python" else {"timeout"}
        if (
            seen.reason not in ends
            or seen.status["signal"] != signal.SIGKILL
            or limits_of(seen) - {"log"} != {seen.reason, "tasks"}
            or seen.text != said[name]
            or most < TASKS + 1
            or not (seen.reason == "memory" or seconds <= wall_of(seen))
            or not wall_of(seen) < seconds + SECOND
            or attacker.download(job, "before") != b"kept"
        ):
            faults.append((name, most, shown(seen)))
    assert not faults


def _numbers(server: Server, *files: str) -> Iterator[int]:
    """What the cgroups of all running jobs say in these files, where there are such."""
    for folder in cgroups_of(server.process.pid):
        for file in files:
            with suppress(OSError):
                yield int(Path(folder, file).read_text())


THREADS = r"""
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *stay(void *nothing) { pause(); return nothing; }

int main(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    int made = 0, error = 0;
    for (pthread_t thread; made < 10000; made++)
        if ((error = pthread_create(&thread, &small, stay, 0))) break;
    printf("[%d, \"%s\"]\n", made, strerrorname_np(error));
}
"""


def test_threads_count_as_processes_do(attacker: Attacker) -> None:
    """RX-03. 10,000 threads with the smallest of stacks."""
    seen = attacker.c(THREADS)
    assert seen.said == [TASKS - 1, "EAGAIN"]
    assert limits_of(seen) == {"tasks"}


# --- memory ----------------------------------------------------------------------------------


def test_more_memory_than_allowed_ends_the_job_and_the_server_stays_as_it_is(
    attacker: Attacker,
) -> None:
    """RX-04. Four times the limit, touched."""
    pids = attacker.server.pids()
    with watching(pids["web"]) as web, watching(pids["launcher"]) as launcher:
        before = {name: memory_of(pids[name]).total for name in ("web", "launcher")}
        seen = attacker.python(
            "say('begun'); Path('before').write_text('kept'); bytearray(256 << 20); say(0)",
            memory_mb=64,
        )
    assert (seen.status["status"], seen.reason, seen.code) == ("failed", "memory", -1)
    assert (seen.status["signal"], limits_of(seen)) == (signal.SIGKILL, {"memory"})
    assert seen.text == '"begun"\n'
    assert 56 * MIB < peak_of(seen) <= 64 * MIB
    assert attacker.download(seen.id, "before") == b"kept"
    grown = {"web": web.total - before["web"], "launcher": launcher.total - before["launcher"]}
    assert max(grown.values()) < 16 * MIB, grown


def test_the_memory_of_many_children_is_one_sum_and_they_die_together(attacker: Attacker) -> None:
    """RX-05. Eight, each of half the limit; whoever is left would wait for ever."""
    code = (
        "say('begun')\n"  # first: the children may end it all before their parent says a word
        "for _ in range(8):\n"
        "    if os.fork() == 0: x = bytearray(32 << 20); signal.pause()\n"
        "while True: signal.pause()"
    )
    seen = attacker.python(code, memory_mb=64)
    assert (seen.reason, seen.status["signal"], seen.text) == ("memory", 9, '"begun"\n')
    assert peak_of(seen) > 48 * MIB
    assert wall_of(seen) < 4 * SECOND


PARTS = """
memfd = os.memfd_create("part")
for path in ("/job/part", "/tmp/part", "/dev/shm/part", f"/proc/self/fd/{memfd}"):
    with open(path, "wb") as file:
        for _ in range(20): file.write(b"x" * (1 << 20))
part = mmap.mmap(-1, 20 << 20)
for at in range(0, 20 << 20, 4096): part[at] = 1
say("all")
"""


def test_files_and_processes_share_one_limit_and_nobody_else_pays_for_them(
    attacker: Attacker,
) -> None:
    """RX-06. Five places, 20 MB each; then an archive that unpacks to 60 MB."""
    web = attacker.server.pids()["web"]
    for _attempt in range(4):  # others use this machine
        before, free = memory_of(web).total, _available()
        with attacker.held(PARTS, memory_mb=128) as job:
            assert job.said == "all"
            assert 100 * MIB <= _most_charged(attacker.server) <= 128 * MIB
            assert memory_of(web).total - before < 16 * MIB
            fallen = free - _available()
        if fallen <= (128 + 64) * MIB:
            break
    assert fallen <= (128 + 64) * MIB

    over = attacker.python(PARTS, memory_mb=64)
    assert (over.reason, over.text) == ("memory", "")

    zeros = {"zeros": bytes(60 * MIB), "main.py": b"print('begun')"}
    over = attacker.finish(attacker.start_archive(zeros, memory_mb=32))
    assert (over.reason, over.text) == ("memory", ""), over
    main = b"import signal; print(1, flush=True); signal.pause()"
    before = memory_of(web).total
    job_id = attacker.start_archive({**zeros, "main.py": main}, memory_mb=96)
    assert eventually(lambda: attacker.log(job_id) == b"1\n", 30)
    assert _most_charged(attacker.server) >= 60 * MIB
    assert memory_of(web).total - before < 16 * MIB
    attacker.cancel(job_id)


def _available() -> int:
    """Bytes that could be had at once, by the machine's own reckoning."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found
    return int(found[1]) * 1024


def _most_charged(server: Server) -> int:
    """Bytes that the largest running job is charged with."""
    return max(_numbers(server, "memory.usage_in_bytes", "memory.current"))


@contextmanager
def rising() -> Iterator[list[int]]:
    """One number: by how much the kernel's own memory rose at most in the block."""
    rise, before = [0], _of_the_kernel()

    def look() -> None:
        rise[0] = max(rise[0], _of_the_kernel() - before)

    with meanwhile(look, 0.01):
        yield rise


def _of_the_kernel() -> int:
    """Bytes in use that are no program's and no file's: objects, tables, buffers."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kb = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    known = ("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "SReclaimable")
    return (kb["MemTotal"] - sum(kb[name] for name in known)) * 1024


VECTORS = Path(__file__).with_name("vectors.c").read_text
# What each comes to: the end of the job, or a refusal after so many at most.
REFUSED: dict[str, tuple[set[str], int]] = {
    "in_flight": ({"ETOOMANYREFS"}, 300),
    "shared": ({"ENOSYS"}, 0),
    "names": ({"ENOSPC"}, 32768),
    "timers": ({"EAGAIN"}, 256),
    "signals": ({"EAGAIN"}, 256),
    "filters": ({"ENOSYS"}, 0),
    "socket_filters": ({"ENOSYS"}, 0),
    "xattrs": ({"EOPNOTSUPP"}, 0),
    "watches": ({"ENOSPC", "EMFILE"}, 512),
    "timer_files": ({"EMFILE"}, 256 * TASKS),
    "network": ({"ENETUNREACH"}, 0),
    "dentries": ({""}, 150_000),  # never refused: the oldest are forgotten, within the limit
}
CHARGED = ("pipes unix_buffers epoll_items memfds page_tables symlinks areas stacks").split()


def test_no_object_of_the_kernel_lets_a_job_have_more_than_its_memory(attacker: Attacker) -> None:
    """RX-08. A job for each kind, of 30 processes: it dies of it, or is refused. What it is charged
    with stays within its limit; what the kernel uses does not rise by more than that and 64 MB."""
    limit = 48 * MIB
    faults = []
    for vector in [*CHARGED, *REFUSED]:
        for _attempt in range(5):  # others use this machine
            with rising() as rise:
                seen = attacker.c(VECTORS(), vector, "30", memory_mb=48, timeout=300)
            if rise[0] <= limit + 64 * MIB:
                break
        else:
            faults.append((vector, f"{rise[0] / MIB:.0f} MB are gone"))
        if peak_of(seen) > limit:
            faults.append((vector, f"{peak_of(seen)} bytes were charged"))
        if vector in CHARGED:
            if (seen.reason, limits_of(seen)) != ("memory", {"memory"}):
                faults.append((vector, shown(seen)))
        else:
            words, most = REFUSED[vector]
            made, refused = json.loads(seen.text or "[-1, 0]")
            # Less than half of what there is says that something else went wrong.
            if refused not in words or not most // 2 <= made <= most:
                faults.append((vector, shown(seen)))
    assert not faults


def test_locks_of_files_are_no_way_around_the_limit(attacker: Attacker) -> None:
    """RX-08. A million and a half: most kernels charge them to nobody."""
    before = _of_the_kernel()
    job = start_c(attacker, VECTORS(), "locks", "30", "hold", memory_mb=48, timeout=300)
    assert eventually(lambda: attacker.log(job) != b"" or attacker.is_over(job), 300)
    risen = [_of_the_kernel() - before]
    while risen[-1] > (48 + 64) * MIB and len(risen) < 10:  # others use this machine
        time.sleep(0.2)
        risen.append(_of_the_kernel() - before)
    attacker.cancel(job)
    seen = attacker.finish(job)
    assert seen.reason == "memory" or json.loads(seen.text)[0] > 0, shown(seen)
    assert min(risen) <= (48 + 64) * MIB, (f"{min(risen) / MIB:.0f} MB more", shown(seen))


# --- files and descriptors -------------------------------------------------------------------

SPARSE = """
far, made = [], 0
f = os.open("/tmp/far", os.O_CREAT | os.O_RDWR)
os.lseek(f, 1 << 50, os.SEEK_SET)
answers = [
    tried(os.truncate, f, 1 << 50), tried(os.write, f, b"x"), tried(os.pwrite, f, b"x", 1 << 40),
    tried(os.posix_fallocate, f, 0, 1 << 40), tried(os.posix_fallocate, f, 0, 101 << 20),
    tried(os.truncate, f, 100 << 20), os.stat(f).st_blocks,
]
try:
    while made < 100_000:
        f = os.open(f"/job/sparse-{made}", os.O_CREAT | os.O_WRONLY)
        os.truncate(f, 100 << 20)
        os.close(f)
        made += 1
except OSError as error:
    answers.append(errno.errorcode[error.errno])
say([answers, made])
"""


def test_files_larger_than_the_disk_and_too_many_are_refused(attacker: Attacker) -> None:
    """RX-10. A petabyte, a terabyte, far beyond the end; 100,000 files with 100 MB of nothing, of
    which whoever collects them takes no more than the disk's size."""
    seen = attacker.python(SPARSE)
    answers, made = seen.said
    assert answers[:3] == ["EFBIG"] * 3
    assert set(answers[3:5]) <= {"EFBIG", "ENOSPC"}
    assert answers[5:] == ["ok", 0, "ENOSPC"]
    assert 30_000 < made < 32768
    assert limits_of(seen) == {"inodes"}
    assert wall_of(seen) < 20 * SECOND
    outputs = attacker.ask("GET", f"/outputs/{seen.id}").json
    assert outputs["truncated"]
    assert sum(file["size"] for file in outputs["outputs"]) <= 100 * MIB


DESCRIPTORS = """
read, write = os.pipe()
for _ in range(30):
    if os.fork() == 0:
        try:
            while True: highest = os.open("/dev/null", os.O_RDONLY)
        except OSError as error:
            os.write(write, f"{errno.errorcode[error.errno]} {highest}\\n".encode())
        while True: signal.pause()
os.close(write)
heard = b""
while heard.count(b"\\n") < 30: heard += os.read(read, 4096)
say(sorted(set(heard.decode().split("\\n"))))
"""


def test_descriptors_run_out_for_the_job_and_not_for_the_machine(attacker: Attacker) -> None:
    """RX-13. 30 processes open until they are refused, and keep what they have."""
    before, most = _open_files()
    with attacker.held(DESCRIPTORS) as job:
        assert job.said == ["", "EMFILE 255"]
        held = [len(os.listdir(f"/proc/{pid}/fd")) for pid in job.pids()]
        assert sorted(held)[-30:] == [256] * 30
        now, _ = _open_files()
        assert 5000 < now - before < 12_000
        assert now < most / 2


def _open_files() -> tuple[int, int]:
    allocated, _, most = Path("/proc/sys/fs/file-nr").read_text().split()
    return int(allocated), int(most)


# --- output ----------------------------------------------------------------------------------


def test_ten_gigabytes_of_output_cost_the_server_no_more_than_what_is_kept(
    attacker: Attacker,
) -> None:
    """RX-14. yes(1), until the time is over; then 5 GB on each stream."""
    seen = attacker.sh("yes", timeout=1)
    assert (seen.reason, limits_of(seen)) == ("timeout", {"timeout", "log"})
    assert (len(seen.stdout), seen.stdout[:4]) == (CAP, b"y\ny\n")

    megabytes = 40 if UML else 5120
    web = attacker.server.pids()["web"]
    before, burnt = memory_of(web).total, seconds_of(web)
    code = f"x = b'x' * (1 << 20)\nfor _ in range({megabytes}): os.write(1, x); os.write(2, x)"
    with watching(web) as watch:
        job = attacker.start_python(code, timeout=240)
        assert eventually(lambda: attacker.ask("GET", f"/status/{job}?wait=60").json["reason"]
                          is not None or attacker.is_over(job), 240)  # fmt: skip
        burnt = seconds_of(web) - burnt
    grown = watch.total - before
    seen = attacker.finish(job)
    assert (seen.reason, limits_of(seen)) == (None, {"log"})
    assert (len(seen.stdout), len(seen.stderr)) == (CAP, CAP)
    logs = attacker.ask("GET", f"/logs/{job}", headers={"Accept": "application/json"}).json
    assert logs["truncated"]
    for stream in ("stdout", "stderr"):
        assert logs[f"{stream}_bytes"] == megabytes * MIB
        assert logs[f"{stream}_dropped_bytes"] == megabytes * MIB - CAP
    assert grown < 2 * CAP + 16 * MIB, f"{grown / MIB:.0f} MB"
    assert UML or burnt < 15, f"{burnt} s of CPU time for 10 GB"
    assert peak_of(seen) < 64 * MIB  # nothing is held inside


WRITES = r"""
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words) {
    for (long i = 0; i < atol(words[1]); i++) write(1 + (i & 1), "x", 1);
}
"""


def test_many_small_writes_and_very_long_lines_delay_nobody(attacker: Attacker) -> None:
    """RX-15. 10 million single bytes by turns, 10 million newlines, a line of 100 MB, all at once;
    how long the API takes meanwhile."""
    writes, lines, long = (200_000, 2 * MIB, 20 * MIB) if UML else (10**7, 10**7, 10**8)
    web = attacker.server.pids()["web"]
    burnt = seconds_of(web)
    jobs = [
        start_c(attacker, WRITES, str(writes), timeout=200),
        attacker.start_python(f"os.write(1, b'\\n' * {lines})", timeout=200),
        attacker.start_python(f"sys.stdout.write('x' * {long})", timeout=200),
    ]
    totals = [{"stdout": writes // 2, "stderr": writes // 2}, {"stdout": lines}, {"stdout": long}]
    times: list[float] = []
    while len(times) < 120 or not all(map(attacker.is_over, jobs)):
        for path in ("/health", *(f"/status/{job}" for job in jobs)):
            started = time.monotonic()
            assert attacker.ask("GET", path).status == 200
            times.append(time.monotonic() - started)
        if len(times) % 40 == 0:  # large, and so their time is their own
            for job in jobs:
                assert attacker.ask("GET", f"/logs/{job}").status == 200
    burnt = seconds_of(web) - burnt
    assert UML or sorted(times)[len(times) * 99 // 100] < 1, sorted(times)[-5:]
    for job, total in zip(jobs, totals, strict=True):
        seen = attacker.finish(job)
        assert seen.reason is None, seen
        logs = attacker.ask("GET", f"/logs/{job}").json
        assert {name: logs[f"{name}_bytes"] for name in total} == total
    assert UML or burnt < 30 + len(times) * 0.05, f"{burnt} s of CPU time"


def test_both_streams_are_drained_in_any_order_and_past_their_caps(attacker: Attacker) -> None:
    """RX-16. 1 MB on stderr, then on stdout, with nobody between; then on and on."""
    code = (
        "def write(fd, data):\n"
        "    while data: data = data[os.write(fd, data):]\n"
        "for fd, size in ((2, 1), (1, 1), (2, 30), (1, 30)): write(fd, b'x' * (size << 20))\n"
        "write(1, b'end')"
    )
    seen = attacker.python(code)
    assert (seen.reason, limits_of(seen)) == (None, {"log"})
    logs = attacker.ask("GET", f"/logs/{seen.id}").json
    assert (logs["stdout_bytes"], logs["stderr_bytes"]) == (31 * MIB + 3, 31 * MIB)
    assert seen.stdout[-4:] == b"xend"


# --- CPU and time ----------------------------------------------------------------------------

SPIN = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long rung;
static void ring(int number) { rung++; }
static void *spin(void *nothing) { for (;;) rung++; return nothing; }

int main(int count, char **words) {
    long made = 0;
    signal(SIGALRM, ring);
    if (!strcmp(words[1], "threads"))
        for (pthread_t thread; made < 64 && !pthread_create(&thread, 0, spin, 0);) made++;
    if (!strcmp(words[1], "processes"))
        for (; made < 64; made++) {
            int child = fork();
            if (child < 0) break;
            if (child == 0) spin(0);
        }
    if (!strcmp(words[1], "yields"))
        for (; made < 25; made++)
            if (fork() == 0) for (;;) syscall(SYS_sched_yield);
    static int timers[100000];
    if (!strcmp(words[1], "timers")) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
        for (; made < 100000; made++)
            if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, timers + made)) break;
    }
    printf("%ld\n", made);
    fflush(stdout);
    /* From here on nothing else may be done: handlers are all that it comes to. */
    struct itimerspec often = {{0, 1000}, {0, 1000}};
    struct itimerval as_often = {{0, 1}, {0, 1}};
    if (!strcmp(words[1], "timers"))
        for (long i = 0; i < made; i++)
            if (syscall(SYS_timer_settime, timers[i], 0, &often, 0)) return 1;
    if (!strcmp(words[1], "alarms") && setitimer(ITIMER_REAL, &as_often, 0)) return 1;
    for (;;) syscall(SYS_sched_yield);
}
"""


def _spinning(attacker: Attacker, kinds: dict[str, range]) -> list[object]:
    """Whatever is wrong with jobs that spin so, all at once, until their time is over."""
    jobs = {kind: start_c(attacker, SPIN, kind, timeout=2) for kind in kinds}
    faults: list[object] = []
    for kind, job in jobs.items():
        seen = attacker.finish(job)
        if (
            (seen.reason, limits_of(seen) - {"tasks"}) != ("timeout", {"timeout"})
            or not seen.text.strip().isdigit()
            or int(seen.text) not in kinds[kind]
            or not is_within_its_share(seen)
        ):
            faults.append((kind, shown(seen)))
    return faults


# Two jobs at once would not get more of two processors than one each, were there no limit at all.
def test_each_job_has_a_quota_of_one_cpu(attacker: Attacker) -> None:
    """RX-17. As its cgroup has it, whatever others leave it of the machine."""
    quotas = set()
    with attacker.held():
        for folder in map(Path, cgroups_of(attacker.server.pids()["keeper"])):
            with suppress(FileNotFoundError):  # version 2 has the first
                quotas.add((folder / "cpu.max").read_text())
            with suppress(FileNotFoundError):
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                quotas.add(f"{quota} {(folder / 'cpu.cfs_period_us').read_text()}")
    assert quotas == {"100000 100000\n"}


def test_64_spinning_threads_or_processes_get_one_cpu(attacker: Attacker) -> None:
    """RX-17. The fixture's neighbour and /health tell whether they are felt."""
    spinners = range(TASKS - 1, TASKS)  # of 64
    assert not _spinning(attacker, {"threads": spinners, "processes": spinners})


def test_storms_of_timers_and_yields_cost_the_job_its_own_share(attacker: Attacker) -> None:
    """RX-21. An alarm every microsecond, 100,000 timers that do the same, and yields."""
    kinds = {"alarms": range(1), "timers": range(200, 257), "yields": range(25, 26)}
    assert not _spinning(attacker, kinds)


def test_a_job_is_charged_for_itself_only(attacker: Attacker) -> None:
    """RX-19. A job after one that burnt: both at once count with nobody waited for."""
    code = "end = time.process_time() + 2\nwhile time.process_time() < end: pass"
    heavy = attacker.python(code)
    light = attacker.sh("true")
    assert (heavy.reason, light.reason) == (None, None)
    assert 2 <= cpu_of(heavy) < 4
    assert 0 < cpu_of(light) < 0.5
    assert peak_of(light) < peak_of(heavy)


def test_whoever_waits_for_ever_is_ended_in_time(attacker: Attacker) -> None:
    """RX-20. Asleep, before a FIFO, at a lock; and stdin, which is at its end."""
    wait = {
        "asleep": "say(1); time.sleep(1e6)",
        "FIFO": "os.mkfifo('f'); say(1); open('f')",
        "futex": "say(1); lock = threading.Lock(); lock.acquire(); lock.acquire()",
    }
    assert not not_ended_in_time(attacker, wait)
    assert attacker.python("say([sys.stdin.read(), os.read(0, 1).decode()])").said == ["", ""]


# --- files of the machine --------------------------------------------------------------------

READER = """
end, size, files = time.monotonic() + 1.5, 0, []
while time.monotonic() < end and size < 400 << 20:
    for folder, _, names in os.walk("/usr/lib"):
        for name in names:
            try:
                with open(f"{folder}/{name}", "rb", 0) as file:
                    while piece := file.read(1 << 20): size += len(piece)
            except OSError: pass
        if time.monotonic() > end or size > 400 << 20: break
mine = os.open("/tmp/mine", os.O_CREAT | os.O_RDWR)
theirs = os.open(sys.executable, os.O_RDONLY)
started = time.monotonic()
for _ in range(20_000): os.write(mine, b"x"); os.fsync(mine); os.fdatasync(mine); os.fsync(theirs)
say([size, call(162), call(306, theirs), tried(open, "/proc/sys/vm/drop_caches", "w"),
     tried(os.posix_fadvise, theirs, 0, 0, os.POSIX_FADV_DONTNEED)])
"""


def test_reading_the_whole_of_usr_is_the_jobs_own_memory_and_throws_nobodys_out(
    attacker: Attacker,
) -> None:
    """RX-23. Reads it in a loop, flushes in a storm, and asks for the page cache to be dropped."""
    seen = attacker.python(READER, memory_mb=48)
    size, *answers = seen.said
    assert size > (2 if UML else 50) * MIB
    assert answers == ["ENOSYS", "ENOSYS", "ENOENT", "ENOSYS"]
    assert peak_of(seen) <= 48 * MIB


WRITABLE = """
class Statfs(ctypes.Structure):
    _fields_ = [("type", ctypes.c_long), ("rest", ctypes.c_char * 256)]

def kind(path):
    found = Statfs()
    assert libc.statfs(path.encode(), ctypes.byref(found)) == 0
    return found.type

def writes(folder):
    path = f"{folder}/written"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    os.unlink(path)
    return True

tops, folders, looked = set(), set(), 0
for folder, names, _ in os.walk("/"):
    looked += 1
    if writes(folder): folders.add((os.stat(folder).st_dev, kind(folder))); tops.add(folder)
own = os.stat("/job").st_dev
say([looked, sorted(tops), [[device == own, hex(kind)] for device, kind in folders]])
"""


def test_all_that_can_be_written_to_is_one_tmpfs(attacker: Attacker) -> None:
    """RX-24. Tries every folder that there is; and the mounts as the machine has them."""
    looked, tops, found = attacker.python(WRITABLE).said
    assert looked > 500
    assert tops == ["/dev/shm", "/job", "/tmp"]
    assert found == [[True, "0x1021994"]]
    with attacker.held() as job:
        for fields in job.program.mounts:
            options, kind = fields[5].split(","), fields[fields.index("-") + 1]
            is_read_only = "ro" in options
            assert is_read_only or kind == "tmpfs" or (kind == "proc" and fields[4] == "/proc"), (
                fields
            )


# --- many at once ----------------------------------------------------------------------------


def test_a_flood_of_uploads_meets_the_budget(attacker: Attacker) -> None:
    """RX-27. 300 addresses, two jobs each of 90 MB, on a server with a small budget: 503 with
    Retry-After, memory within bounds, the jobs of before unharmed."""
    test_crowd.flood_with_600_uploads_of_90_mb()


def test_what_runs_asks_for_no_more_memory_than_there_is_and_the_line_is_short(
    attacker: Attacker,
) -> None:
    """RX-28, RX-27. Slots for four jobs, memory for two, a line for two."""
    settings = {
        "SANDRUN_SLOTS": 4, "SANDRUN_RUNNING_MEMORY_MB": 512, "SANDRUN_QUEUE_LENGTH": 2,
        "SANDRUN_CONCURRENT_JOBS": 10,
    }  # fmt: skip
    server = Server(env=settings)
    try:
        client = Attacker(server)
        sleeper = {"main.py": b"import signal; print(1, flush=True); signal.pause()"}
        jobs = [client.start(sleeper, canary=False, memory_mb=256) for _ in range(4)]
        assert eventually(lambda: _states(client, jobs).count("running") == 2, 10)
        assert all(eventually(lambda job=job: client.log(job) == b"1\n", 30) for job in jobs[:2])
        assert _states(client, jobs) == ["running", "running", "queued", "queued"]
        refused = client.submit(sleeper, memory_mb=16)
        assert (refused.status, refused.json["reason"]) == (503, "queue_full"), refused
        assert int(refused.headers["retry-after"]) > 0
        client.cancel(jobs[0])
        assert eventually(lambda: _states(client, jobs)[2] == "running", 10)
        assert _states(client, jobs) == ["failed", "running", "running", "queued"]
        client.leave()
    finally:
        assert server.end() == 0, server.banner


def _states(client: Attacker, jobs: list[str]) -> list[str]:
    return [client.ask("GET", f"/status/{job}").json["status"] for job in jobs]


def test_too_many_or_too_long_arguments_are_a_rejection_and_the_most_of_them_runs(
    attacker: Attacker,
) -> None:
    """RX-30. 2 MB of one, 100,000 of them, and about as much as there may be."""
    main = "import sys; print(len(sys.argv), sum(map(len, sys.argv[1:])))"

    def submit(args: list[str], **manifest: Any) -> Any:
        body = {"files": {"main.py": main}, "manifest": {"args": args, **manifest}}
        kind = {"Content-Type": "application/json"}
        return attacker.accepted(attacker.ask("POST", "/submit", json.dumps(body).encode(), kind))

    for args in (["x" * 2_000_000], ["x"] * 100_000, ["x"] * 1001, ["x" * (128 << 10)]):
        answer = submit(args)
        assert (answer.status, answer.json["reason"]) == (400, "invalid_manifest"), answer
    for args in (["x" * 120_000], ["x" * 120] * 1000):
        answer = submit(args)
        assert answer.status == 200, answer
        seen = attacker.finish(answer.json["job_id"])
        assert seen.text == f"{len(args) + 1} {sum(map(len, args))}\n", seen


MACROS = "".join(f"#define A{n + 1} {f'A{n} ' * 8}\n" for n in range(12))
COMPILE_BOMBS: dict[str, tuple[str, str]] = {
    "a negative size": ("main.c", "main[-1u]={1};"),
    "zeros for ever": ("main.c", '#include "/dev/zero"\nint main(){}'),
    "noise for ever": ("main.c", '#include "/dev/urandom"\nint main(){}'),
    "a gigabyte": ("main.c", "int x[1<<28]={1};int main(){}"),
    "a tower of macros": ("main.c", f"#define A0 __DATE__\n{MACROS}int main(){{ char *s = A12; }}"),
    "itself": ("main.c", '#include "main.c"\n#include "main.c"'),
    "templates in templates": (
        "main.cpp", "template<int N> struct A { A<N+1> a; }; int main(){ A<0> a; }"
    ),
    "a tree of templates": (
        "main.cpp",
        "template<int N, int M> struct F { static const int v = F<N-1, M>::v + "
        "F<N-1, M+(1<<N)>::v; }; template<int M> struct F<0, M> { static const int v = 1; };"
        "int main(){ return F<24, 0>::v; }",
    ),
}  # fmt: skip


def test_a_bomb_for_the_compiler_ends_its_job_behind_the_same_walls(attacker: Attacker) -> None:
    """RX-31. Sources that compile to gigabytes, or never; what the compilers look like from
    outside; and one that includes its stdin."""
    compilers: set[tuple[str, ...]] = set()
    jobs = {
        name: attacker.start(
            {file: text.encode()}, entrypoint=file, memory_mb=128, timeout=30 if UML else 3
        )
        for name, (file, text) in COMPILE_BOMBS.items()
    }
    while not all(map(attacker.is_over, jobs.values())):
        compilers |= set(_compilers())
    faults = []
    for name, job in jobs.items():
        seen = attacker.finish(job)
        if (
            seen.reason not in ("exit", "memory", "timeout")
            or seen.status["stage"] != "compile"
            or seen.stdout
            or (seen.reason == "exit" and not (seen.code == 1 and b"rror" in seen.stderr))
        ):
            faults.append((name, shown(seen)))
    assert not faults
    assert {words[0] for words in compilers} >= {"cc1", "cc1plus"}
    assert {words[1:] for words in compilers} == {("2", "1", "0" * 16, "True")}

    text = b"#include <stdio.h>\n#include </dev/stdin>\nint main(){ puts(said); }"
    seen = attacker.run({"main.c": text}, stdin='const char *said = "by stdin";')
    assert (seen.reason, seen.text) == (None, "by stdin\n"), seen


def _compilers() -> Iterator[tuple[str, ...]]:
    """Those that run in jobs now: name, filter, no new privileges, capabilities, and whether it is
    in a pid namespace of its own."""
    for pid in job_processes():
        with suppress(OSError):
            status = look(pid).status
            if status["Name"].startswith("cc1"):
                names = ("Name", "Seccomp", "NoNewPrivs", "CapBnd")
                is_own = len(status["NSpid"].split()) > 1
                yield (*(status[name] for name in names), str(is_own))


# --- limits of a process ---------------------------------------------------------------------

RAISE = """
Path("before").write_text("kept")
answers = {}
for name in ("FSIZE", "STACK", "CORE", "NPROC", "NOFILE", "MEMLOCK", "SIGPENDING", "MSGQUEUE",
             "NICE", "RTPRIO"):
    number = getattr(resource, f"RLIMIT_{name}", {"SIGPENDING": 11, "MSGQUEUE": 12}.get(name))
    hard = resource.getrlimit(number)[1]
    assert hard != resource.RLIM_INFINITY, name
    answers[name] = [
        call(302, 0, number, struct.pack("QQ", hard, most), 0) for most in (hard + 1, 2**64 - 1)
    ] + [call(302, 1, number, struct.pack("QQ", hard, hard), 0)]
for number in (signal.SIGXCPU, signal.SIGXFSZ, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
file = os.open("/tmp/big", os.O_CREAT | os.O_WRONLY)
read, write = os.pipe()
os.close(read)
say([answers, tried(os.pwrite, file, b"x", 100 << 20), tried(os.write, write, b"x")])
while True: pass
"""


def test_limits_hold_for_whoever_ignores_their_signals_or_tries_to_raise_them(
    attacker: Attacker,
) -> None:
    """RX-32. Raises each limit by one, and to the most; ignores what they send; then burns."""
    seen = attacker.python(RAISE, cpu_seconds=1)
    answers, file, pipe = json.loads(seen.text)
    assert len(answers) == 10
    refused = ["EPERM", "EPERM", "ENOSYS"]
    assert not {name: tries for name, tries in answers.items() if tries != refused}
    assert (file, pipe) == ("EFBIG", "EPIPE")
    assert (seen.reason, limits_of(seen)) == ("cpu", {"cpu"})
    assert 1 <= cpu_of(seen) < 1 + SECOND
    assert attacker.download(seen.id, "before") == b"kept"
    again = attacker.sh("yes | head -c 4; dd if=/dev/zero of=big bs=1M count=101 2>&1 | tail -1")
    assert again.reason is None and again.text.startswith("y\ny\n"), again


HUGE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static const char *tried(long answer) { return answer == -1 ? strerrorname_np(errno) : "ok"; }
static void *map(size_t size, int flags, int protection) {
    return mmap(0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

int main(void) {
    enum { BOTH = PROT_READ | PROT_WRITE, MIB = 1 << 20 };
    struct rlimit stack = {8L << 30, 8L << 30}, locked = {1L << 30, 1L << 30};
    printf("[\"%s\", ", tried((long)map(2 * MIB, MAP_HUGETLB, BOTH)));
    printf("\"%s\", ", tried((long)map(2 * MIB, MAP_HUGETLB | (21 << 26), BOTH)));
    printf("\"%s\", ", tried(memfd_create("huge", MFD_HUGETLB)));
    char *area = map(8 * MIB, 0, BOTH);
    printf("\"%s\", ", tried(mlock(area, 8 * MIB)));
    printf("\"%s\", ", tried((long)map(8 * MIB, MAP_LOCKED, BOTH)));
    printf("\"%s\", ", tried(mlockall(MCL_CURRENT | MCL_FUTURE)));
    printf("\"%s\", ", tried(setrlimit(RLIMIT_STACK, &stack)));
    printf("\"%s\", ", tried(setrlimit(RLIMIT_MEMLOCK, &locked)));
    printf("\"%s\"]\n", tried(madvise(area, 8 * MIB, MADV_HUGEPAGE)));
    fflush(stdout);
    long areas = 0;
    while (areas < 1000000 && map(4096, 0, areas % 2 * PROT_READ) != MAP_FAILED) areas++;
    printf("[\"%s\", %ld]\n", tried(-1), areas);
}
"""
DEEP = r"""
static long deep(volatile char *above) {
    volatile char pages[65536];
    pages[0] = above[0] + 1;
    return deep(pages) + pages[0];
}
int main(void) { char start = 0; return deep(&start); }
"""
TRANSPARENT = """
area = mmap.mmap(-1, 128 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
tried(area.madvise, mmap.MADV_HUGEPAGE)  # a kernel without them says EINVAL
say("begun")
for at in range(0, 128 << 20, 4096): area[at] = 1
"""


def test_huge_pages_locked_pages_and_large_stacks_are_not_to_be_had(attacker: Attacker) -> None:
    """RX-33. And a million mappings; huge pages that come by themselves are counted as others."""
    before = _huge_pages()
    seen = attacker.c(HUGE, memory_mb=100)
    answers, *mapped = map(json.loads, seen.text.splitlines())
    assert answers[:3] == ["ENOMEM"] * 3
    assert answers[3] == "ENOMEM" and answers[4] in ("EAGAIN", "ENOMEM") and answers[5] == "ENOMEM"
    assert answers[6:8] == ["EPERM"] * 2
    assert answers[8] in ("ok", "EINVAL")  # a kernel without them
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    if mapped:
        assert mapped[0][0] == "ENOMEM" and 1000 < mapped[0][1] <= most
    else:  # a machine that allows so many that the job dies of them
        assert seen.reason == "memory" and most > 100_000
    deep = attacker.c(DEEP, flags="-O0", before="ulimit -s unlimited; ulimit -s 65536")
    assert (deep.reason, deep.status["signal"]) == ("signal", signal.SIGSEGV)
    assert b"not permitted" in deep.stderr
    assert peak_of(deep) < 80 * MIB
    seen = attacker.python(TRANSPARENT, memory_mb=48)
    assert (seen.reason, seen.text) == ("memory", '"begun"\n')
    assert _huge_pages() == before


def _huge_pages() -> list[str]:
    return re.findall(r"HugePages_\w+:.*", Path("/proc/meminfo").read_text())


LARGE = {
    "python3": (
        "main.py",
        "import mmap\nx = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n"
        "x[0] = 7; y = bytearray(300 << 20); print(len(x) + x[0] - len(y) // len(y))",
    ),
    "node": (
        "index.js",
        "const a = new WebAssembly.Memory({initial: 1, maximum: 65536}); "
        "console.log(8 * 2**30 + 6 + 0 * a.buffer.byteLength)",
    ),
    "java": (
        "Main.java",
        "class Main { public static void main(String[] a) { byte[] b = new byte[200 << 20];"
        "System.out.println((8L << 30) + 6 + b[7]); } }",
    ),
    "go": ("main.go", "package main\nfunc main() { b := make([]byte, 200 << 20); b[5] = 6;"
           "println(); print(8<<30 + int(b[5])) }"),
}  # fmt: skip


def test_address_space_is_no_memory(attacker: Attacker) -> None:
    """RX-34. Runtimes that reserve much and touch little, with the most memory that there is."""
    environments = attacker.ask("GET", "/environments").json["environments"]
    offered = {environment["name"] for environment in environments}
    tried = [name for name in LARGE if name in offered]
    assert {"python3", "node"} <= set(tried), offered
    faults = []
    for name in tried:
        file, code = LARGE[name]
        seen = attacker.run({file: code.encode()}, interpreter=name, memory_mb=512, timeout=60)
        said = seen.text + seen.stderr.decode()  # Go's print goes there
        if (seen.reason, said.split()) != (None, [str((8 << 30) + 6)]):
            faults.append((name, shown(seen)))
    assert not faults
