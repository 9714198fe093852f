"""AE: accounting escapes. CPU time and memory that are used and counted for nobody, or too late."""

import gzip
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.attacks.arena import Attacker
from tests.attacks.invariants import ALONE
from tests.attacks.wire import Entry, packed, refused, swollen, tar_of
from tests.journeys.server import Server, eventually

OUT = Entry("../out", b"x")
LIMIT = 8  # CPU-seconds a minute


@contextmanager
def counting(limit: float = LIMIT) -> Iterator[Attacker]:
    """A client of a server that grants few CPU-seconds a minute, so that what was used shows."""
    server = Server(
        prefix=ALONE,
        env={
            "SANDRUN_CPU_SECONDS_PER_MINUTE": limit,
            "SANDRUN_CONCURRENT_JOBS": 100,
            "SANDRUN_JOBS_PER_HOUR": 1000,
        },
    )
    try:
        attacker = Attacker(server, "AE")
        yield attacker
        attacker.leave()
    finally:
        assert server.end() == 0, server.banner


def used(attacker: Attacker) -> float:
    return float(attacker.ask("GET", "/stats").json["your_quota"]["used"])


def has_said(client: Attacker, job: str) -> bool:
    return client.log(job) == b"1\n"


BURN = "while time.process_time() < {}: pass\n"


def test_many_short_jobs_are_counted_as_one_long(attacker: Attacker) -> None:
    """AE-05. Bursts between two looks: nine jobs that succeed, fail and are cancelled, with
    children that nobody waits for. The client's account is their sum."""
    with counting() as client:
        began, before = time.monotonic(), used(client)
        total = 0.0
        for number in range(6):
            code = BURN.format(0.15) + f"sys.exit({number % 2})"
            total += client.python(code).status["cpu_seconds"]
        children = f"for _ in range(3):\n    if os.fork() == 0:\n        {BURN.format(0.15)}"
        total += client.python(children + "        os._exit(0)\nos.wait()").status["cpu_seconds"]
        for _ in range(2):
            job = client.start_python(BURN.format(0.2) + "say(1)\nsignal.pause()")
            assert eventually(partial(has_said, client, job), 30)
            client.cancel(job)
            total += client.finish(job).status["cpu_seconds"]
        now, seconds = used(client), time.monotonic() - began
    assert total > 1.3, total
    assert before == 0
    back = seconds * LIMIT / 60  # what has come back meanwhile
    assert total * 0.95 - back - 0.1 <= now <= total * 1.05 + 0.1, (now, total, back)


def test_the_cpu_limit_ends_32_processes_as_it_ends_one(attacker: Attacker) -> None:
    """AE-05. A limit of one second, spent by many at once: ended within one more of CPU time."""
    code = "for _ in range(28):\n    if os.fork() == 0: break\nwhile True: pass"
    seen = attacker.python(code, cpu_seconds=1, timeout=60)
    assert (seen.reason, seen.code) == ("cpu", -1), seen
    assert 0.95 <= seen.status["cpu_seconds"] <= 2, seen.status


STORM = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
static long used(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L
        + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}
int main(int argc, char **argv) {
    long *sum = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc > 2) return 0;                                  /* executed by the storm of execs */
    signal(SIGCHLD, SIG_IGN);                                /* nobody waits for them */
    if (argv[1][0] == 'b')
        for (int i = 0; i < 20; i++) {
            if (fork() == 0) {
                if (fork()) _exit(0);                        /* orphans, whom pid 1 gets */
                while (used(RUSAGE_SELF) < 30000);
                __sync_fetch_and_add(sum, used(RUSAGE_SELF));
                __sync_fetch_and_add(sum + 1, 1);
                _exit(0);
            }
            if (i % 4 == 3) while (*(volatile long *)(sum + 1) < i - 2) usleep(1000);
        }
    signal(SIGCHLD, SIG_DFL);
    if (argv[1][0] == 'v')
        for (int i = 0; i < 1500; i++) {
            pid_t pid = vfork();
            if (pid == 0) _exit(0);
            waitpid(pid, 0, 0);
        }
    if (argv[1][0] == 'e')
        for (int i = 0; i < 150; i++) {
            pid_t pid = vfork();
            if (pid == 0) { execl("/proc/self/exe", "probe", "e", "again", NULL); _exit(1); }
            waitpid(pid, 0, 0);
        }
    if (argv[1][0] == 'm')
        for (int i = 0; i < 10; i++) {
            char *room = mmap(0, 40 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memset(room, 1, 40 << 20);
            munmap(room, 40 << 20);
        }
    if (argv[1][0] == 'b') while (*(volatile long *)(sum + 1) < 20) usleep(1000);
    printf("%ld\n", *sum + used(RUSAGE_SELF) + used(RUSAGE_CHILDREN));
    return 0;
}
"""


def test_no_storm_of_processes_costs_more_than_is_counted(attacker: Attacker) -> None:
    """AE-06. Twenty orphans that burn and are never waited for; fifteen hundred forks; many
    execs; much memory taken and given back: counted is at least what they had themselves."""
    faults, counted = [], {}
    for storm in "bvem":
        seen = attacker.c(STORM, storm, memory_mb=256)
        assert (seen.reason, seen.code) == (None, 0), (storm, seen)
        own, job = int(seen.text) / 1e6, seen.status["cpu_seconds"]
        counted[storm] = own
        if job < 0.9 * own - 0.02:
            faults.append(f"{storm}: {job} s are counted of {own} s")
    assert counted["b"] > 0.55 and min(counted.values()) > 0.005, counted
    assert not faults, faults


TABLES = {
    "zero page": (
        "libc.mmap.restype = ctypes.c_void_p; libc.madvise.argtypes = [ctypes.c_void_p,\n"
        "    ctypes.c_size_t, ctypes.c_int]\n"
        "size = 100_000 << 21\n"
        "at = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, 0)\n"
        "assert at != ctypes.c_void_p(-1).value\n"
        "libc.madvise(at, size, 15)\n"
        "say('mapped')\n"
        "read = ctypes.c_char.from_address\n"
        "for n in range(100_000): read(at + (n << 21)).value\n"
    ),
    "own page": (
        "fd = os.memfd_create('page'); os.ftruncate(fd, 4096)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "say('mapped'); base = 0x10_0000_0000\n"
        "for n in range(60_000):\n"
        "    at = libc.mmap(ctypes.c_void_p(base + (n << 21)), ctypes.c_size_t(4096), 1,\n"
        "                   0x100001, fd, 0)\n"
        "    ctypes.c_char.from_address(at).value\n"
    ),
    "page of /usr": (
        "fd = os.open('/usr/bin/env', os.O_RDONLY)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "say('mapped'); base = 0x10_0000_0000\n"
        "for n in range(60_000):\n"
        "    at = libc.mmap(ctypes.c_void_p(base + (n << 21)), ctypes.c_size_t(4096), 1,\n"
        "                   0x100002, fd, 0)\n"
        "    ctypes.c_char.from_address(at).value\n"
    ),
}


def test_the_tables_of_address_space_are_memory_of_the_job(attacker: Attacker) -> None:
    """AE-09. Three ways to hold a hundred megabytes of page tables and next to no page: the job's
    memory limit ends them."""
    faults: list[object] = []
    for way, code in TABLES.items():
        seen = attacker.python(code + "say('all')", memory_mb=64, timeout=60)
        if (seen.reason, seen.text) != ("memory", '"mapped"\n'):
            faults.append((way, seen.reason, seen.text, seen.stderr[-300:]))
        peak = seen.status["execution_metadata"]["memory_peak_bytes"]
        if not 40 << 20 < peak <= 66 << 20:
            faults.append((way, peak))
    assert not faults, faults


GAMES = {
    "a child gives itself up": (
        "if os.fork() == 0:\n"
        "    Path('/proc/self/oom_score_adj').write_text('1000')\n"
        "    held = []\n"
        "    while True: held.append(b'x' * (1 << 20))\n"
        "while True: print('on', flush=True); time.sleep(0.01)"
    ),
    "many share it": (
        "for _ in range(15):\n"
        "    if os.fork() == 0: break\n"
        "held = [os.urandom(1 << 16) for _ in range(60 << 4)]\n"
        "signal.pause()"
    ),
    "a thread and a file": (
        "fd = os.memfd_create('m')\n"
        "threading.Thread(target=lambda: [bytes(1 << 20) for _ in iter(int, 1)], daemon=True)"
        ".start()\n"
        "while True: os.write(fd, b'x' * (1 << 16))"
    ),
}
# Takes so much and ends at once, or keeps it while pid 1 has to tell the end.
BRIM = """
held = mmap.mmap(-1, 64 << 20)
fd = os.memfd_create('rest')
for n in range(int(sys.argv[1])): held[n << 12] = 1
os._exit(0)
"""


def test_out_of_memory_has_one_verdict_whoever_is_killed(attacker: Attacker) -> None:
    """AE-12. A child that offers itself, sixteen that share it, memory and files together: each
    time the whole job ends, for memory. Filled to the brim, so that pid 1 has none left to tell
    the end: a known end, and never a fault of ours."""
    faults: list[object] = []
    for game, code in GAMES.items():
        for _ in range(2):
            seen = attacker.python(code, memory_mb=32, timeout=30)
            ended_early = seen.status["execution_metadata"]["wall_time_ms"] < 20_000
            if (seen.reason, seen.code, ended_early) != ("memory", -1, True):
                faults.append((game, seen.status))
    ends = []
    for pages in range(4000, 8400, 800):
        seen = attacker.python(BRIM, str(pages), memory_mb=32, timeout=20)
        ends.append((seen.reason, seen.code))
        if ends[-1] not in ((None, 0), ("memory", -1)):
            faults.append((pages, seen.status))
    assert not faults, faults
    assert {(None, 0), ("memory", -1)} == set(ends), ends


def test_what_is_refused_after_long_reading_is_paid(attacker: Attacker) -> None:
    """AE-15. Archives of 90 MB of nothing, whose last member leads out: each takes less than half
    a CPU-second and is refused. What they take is drawn, until the account is empty and the next
    one is not even read; no job is counted."""
    raw = packed("tar.gz", swollen(tarfile.REGTYPE, 90) + gzip.compress(tar_of([OUT])))
    with counting(1.5) as client:
        refused(client.exchange(raw), word="leads out")
        assert used(client) > 0.03, "for 90 MB"
        for _ in range(100):
            answer = client.answer(raw)
            if answer.status == 429:
                break
            assert answer.status == 400, answer
        assert answer.json["reason"] == "cpu_quota", answer
        quota = client.ask("GET", "/stats").json["your_quota"]
        assert quota["active_jobs"] == 0, quota
        assert quota["jobs_left_this_hour"] == 1000, quota
