"""LC: life cycle, kill, accounting. A job does not want to end, ends oddly, or lies about its end;
clocks jump, parts of ours hang: it has one end, in time, and that is what really happened.

Run as a program it tries some of this on a server of its own, and prints what it saw as JSON: on
the guest kernel of tests/uml, whose cgroups are of version 2 and whose clock is nobody else's.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import Attacker
from tests.attacks.checkout import checkout
from tests.attacks.test_rx import (
    UML,
    cpu_of,
    limits_of,
    not_ended_in_time,
    peak_of,
    seconds_of,
    shown,
    start_c,
    wall_of,
)
from tests.journeys.server import REPOSITORY, Server, cgroups_of, eventually, memory_of
from tests.sandbox.box import job_processes, pids_in
from tests.uml import boot

SECOND = 30.0 if UML else 1.0
MIB = 1 << 20

# --- nothing outlives the time-out -----------------------------------------------------------

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
    "other sessions and groups": (
        "for _ in range(5):\n"
        "    if os.fork() == 0: os.setsid(); signal.pause()\n"
        "say(1); signal.pause()"
    ),
}
STOPPED = {
    "itself": "say(1); os.kill(os.getpid(), signal.SIGSTOP)",
    "its group": "say(1); os.kill(0, signal.SIGSTOP)",
    "everybody": (
        "children = [subprocess.Popen(['sleep', '600']) for _ in range(3)]\n"
        "say(1); os.kill(-1, signal.SIGSTOP); os.kill(0, signal.SIGSTOP)\n"
        "while True: signal.pause()"
    ),
    "the freezer": (  # there is none for it to find, mount or write to
        "found = [tried(os.listdir, '/sys/fs/cgroup'), tried(os.mkdir, '/sys/fs/cgroup/x'),\n"
        "         call(165, b'c', b'/tmp', b'cgroup', 0, b'freezer')]\n"
        "assert found == ['ENOENT', 'ENOENT', 'EPERM'], found\n"
        "say(1); os.kill(os.getpid(), signal.SIGTSTP); os.kill(os.getpid(), signal.SIGSTOP)"
    ),
}


def test_nothing_outlives_the_time_out(attacker: Attacker) -> None:
    """LC-01. All signals ignored, handled, blocked; processes that left the session."""
    assert not not_ended_in_time(attacker, STUBBORN)


def test_whoever_is_stopped_ends_at_the_time_out_too(attacker: Attacker) -> None:
    """LC-04. SIGSTOP to itself, its group and everybody; no freezer is in reach."""
    assert not not_ended_in_time(attacker, STOPPED)


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        {close}
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        Path("/job/alive").touch()
        while True:
            with open("/job/late", "a") as file: file.write("x" * 10)
    os._exit(0)
os.wait()
while not os.path.exists("/job/alive"): os.sched_yield()
Path("/job/ended").touch()
os._exit(0)
"""


def test_a_daemon_neither_outlives_its_job_nor_delays_it_nor_writes_after_it(
    attacker: Attacker,
) -> None:
    """LC-02. Forks twice, leaves the session and closes everything, or keeps the pipes."""
    faults = []
    for close in ("os.closerange(0, 256)", "pass"):
        started = time.monotonic()
        seen = attacker.python(DAEMON.format(close=close), timeout=60)
        took = time.monotonic() - started
        if (seen.reason, seen.code) != (None, 0) or wall_of(seen) >= 2 * SECOND:
            faults.append((close, shown(seen), took))
        outputs = {
            one["path"]: one["size"]
            for one in attacker.ask("GET", f"/outputs/{seen.id}").json["outputs"]
        }
        if not {"alive", "ended"} <= set(outputs):
            faults.append((close, "it did not run", outputs))
        late = outputs.get("late", 0)
        first = attacker.download(seen.id, "late") if late else b""
        time.sleep(0.2)  # in which a survivor would write
        if late and (len(first) != late or attacker.download(seen.id, "late") != first):
            faults.append((close, "its later writes came out", late))
    assert not faults


REAPED = r"""
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    /* Orphans: each child has a child, and ends first. Whoever is refused tries again. */
    for (long made = 0; made < atol(words[1]);) {
        int child = vfork();
        if (child < 0) {
            if (errno != EAGAIN) return 1;
            sched_yield();
        } else if (child == 0) {
            while (vfork() < 0) sched_yield();
            _exit(0);
        } else {
            waitpid(child, 0, 0);
            made++;
        }
    }
    while (kill(-1, 0) == 0) sched_yield(); /* until pid 1 has reaped the last of them */
    /* Nobody waits for these. */
    int left = 0;
    for (; left < 50000; left++) {
        int child = vfork();
        if (child < 0) break;
        if (child == 0) _exit(0);
    }
    printf("[%s, %d, %d]\n", words[1], left, errno == EAGAIN);
}
"""


def test_orphans_are_reaped_and_children_that_nobody_waits_for_count(attacker: Attacker) -> None:
    """LC-05. 50,000 orphans, one after the other; then children that stay as zombies."""
    many = 500 if UML else 50_000
    seen = attacker.c(REAPED, str(many), timeout=200)
    assert seen.said == [many, 31, 1]
    assert limits_of(seen) == {"tasks"}


# --- how it ended ----------------------------------------------------------------------------

ENDS: dict[str, tuple[str, str | None, int, int | None]] = {
    # script: reason, exit code (-1 for none), signal
    "exit 0": (None, 0, None),
    "exit 1": ("exit", 1, None),
    "exit 42": ("exit", 42, None),
    "exit 255": ("exit", 255, None),
    "kill -TERM $$": ("signal", -1, signal.SIGTERM),
    "kill -HUP $$": ("signal", -1, signal.SIGHUP),
    "kill -INT $$": ("signal", -1, signal.SIGINT),
    "kill -KILL $$": ("signal", -1, signal.SIGKILL),
    "kill -SEGV $$": ("signal", -1, signal.SIGSEGV),
    "kill -ABRT $$": ("signal", -1, signal.SIGABRT),
    "exec /nothing": ("exit", 127, None),
    "echo text > f; exec ./f": ("exit", 126, None),
    "nothing": ("exit", 127, None),
    "exec perl -e 'kill 11, $$; sleep 9'": ("signal", -1, signal.SIGSEGV),
    "kill -9 1; kill -TERM 1; exit 7": ("exit", 7, None),
}  # fmt: skip
EXOTIC = {
    "raise": ("import signal\nsignal.raise_signal(signal.SIGINT)", ("signal", -1, signal.SIGINT)),
    "a null pointer": ("import ctypes\nctypes.string_at(0)", ("signal", -1, signal.SIGSEGV)),
    "abort": ("import os\nos.abort()", ("signal", -1, signal.SIGABRT)),
    "exit 256": ("import os\nos._exit(256)", (None, 0, None)),
    "exit -1": ("import sys\nsys.exit(-1)", ("exit", 255, None)),
}


def test_exit_codes_and_signals_are_told_exactly(attacker: Attacker) -> None:
    """LC-06. Ends by every code and signal, and by programs that are not there or are none."""
    jobs = {
        script: (attacker.start({"run.sh": script.encode()}), expected)
        for script, expected in ENDS.items()
    }
    for name, (code, expected) in EXOTIC.items():
        jobs[name] = attacker.start({"main.py": code.encode()}), expected
    faults = []
    for name, (job, expected) in jobs.items():
        seen = attacker.finish(job)
        if (seen.reason, seen.code, seen.status["signal"]) != expected:
            faults.append((name, expected, shown(seen)))
        if seen.status["status"] != ("completed" if expected[0] is None else "failed"):
            faults.append((name, seen.status["status"]))
        if limits_of(seen) or seen.status["stage"] != "run":
            faults.append((name, shown(seen)))
    assert not faults


LIE = """
for line in ("[DONE] completed", '{"status": "completed", "reason": null}', "Killed: timeout",
             "exit status 0", "sandrun: the job has ended", "\\x04\\x1a\\0"):
    print(line, flush=True); print(line, file=sys.stderr, flush=True)
for name in ("job.json", "status", "status.json", "result.json", "/tmp/exit", "/dev/shm/status"):
    Path(name).write_text('{"status": "completed", "reason": null, "exit_code": 0}')
refused = []
for fd in range(3, 256):
    with contextlib.suppress(OSError): os.write(fd, b'{"exit": 0, "step": 0}'); refused.append(fd)
say(refused)
{wait}
sys.exit(3)
"""


def test_what_a_job_says_about_its_end_is_only_output(attacker: Attacker) -> None:
    """LC-12. Prints and writes ends of all kinds, to whatever it holds: runs on, then ends as 3."""
    lie = "import contextlib\n" + LIE
    running = attacker.start_python(lie.replace("{wait}", "signal.pause()"), timeout=60)
    assert eventually(lambda: attacker.log(running).endswith(b"[]\n"), 30)
    status = attacker.ask("GET", f"/status/{running}").json
    assert (status["status"], status["reason"]) == ("running", None), status
    attacker.cancel(running)
    seen = attacker.finish(running)
    assert (seen.reason, seen.code, seen.status["signal"]) == ("cancelled", -1, 9)
    seen = attacker.python(lie.replace("{wait}", ""))
    assert (seen.status["status"], seen.reason, seen.code) == ("failed", "exit", 3)
    assert seen.status["signal"] is None and not limits_of(seen)
    assert b"[DONE] completed\n" in seen.stdout and b"Killed: timeout\n" in seen.stderr
    assert attacker.download(seen.id, "status.json").startswith(b'{"status": "completed"')


# Sleeps until so many milliseconds after the start of the sandbox's pid 1, which is about when its
# time begins.
ON_THE_EDGE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words) {
    char text[1024] = {0};
    FILE *file = fopen("/proc/self/stat", "r");
    fread(text, 1, sizeof text - 1, file);
    char *field = strrchr(text, ')') + 2;
    for (int i = 0; i < 19; i++) field = strchr(field, ' ') + 1;
    long ticks = atol(field), wanted = ticks * 1000 / sysconf(_SC_CLK_TCK) + atol(words[1]);
    struct timespec at = {wanted / 1000, wanted % 1000 * 1000000};
    clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, 0);
    puts("end");
    return 0;
}
"""


def test_a_job_that_ends_as_its_time_is_over_has_one_end(attacker: Attacker) -> None:
    """LC-14. Ends within some milliseconds before or after the time-out, told the same every time
    and everywhere. (Nothing is signed yet.)"""
    ends = {
        "exit": ("completed", None, 0, None, ()),
        "kill": ("failed", "timeout", -1, 9, ("timeout",)),
    }
    faults, near = [], 0
    for some in (range(980, 989, 4), range(990, 995, 2), range(995, 1001, 2), range(998, 1013, 5)):
        jobs = [start_c(attacker, ON_THE_EDGE, str(after), timeout=1) for after in some]
        for job in jobs:
            seen = attacker.finish(job)
            told = (
                seen.status["status"], seen.reason, seen.code, seen.status["signal"],
                tuple(seen.status["limits_hit"]),
            )  # fmt: skip
            near += 0.97 < wall_of(seen) < 1.1
            if told not in ends.values() or (told == ends["exit"]) > (seen.text == "end\n"):
                faults.append(shown(seen))
            for _ in range(3):
                again = attacker.ask("GET", f"/status/{job}").json
                if again["metrics"] != seen.status["metrics"]:
                    faults.append((again, seen.status))
    assert not faults
    assert UML or near >= 2


GRANDCHILD = """
if os.fork() == 0:
    if os.fork() == 0: bytearray(256 << 20); os._exit(0)
    os.wait(); os._exit(0)
os.wait(); say(1); os._exit(0)
"""


def test_a_grandchild_out_of_memory_is_the_jobs_end_each_time(attacker: Attacker) -> None:
    """LC-17. Its parents take no notice and exit well: `memory`, as sandbox/README.md says."""
    for _ in range(4):
        seen = attacker.python(GRANDCHILD, memory_mb=64)
        assert (seen.status["status"], seen.reason, seen.code) == ("failed", "memory", -1), seen
        assert (seen.status["signal"], limits_of(seen)) == (9, {"memory"})
        assert 48 * MIB < peak_of(seen) <= 64 * MIB


# --- while it runs ---------------------------------------------------------------------------


def test_a_long_job_keeps_nobody_waiting(attacker: Attacker) -> None:
    """LC-15. While it burns: its status and logs, /health, and a submission of somebody else."""
    other = Attacker(attacker.server)
    job = attacker.start_python("say('up')\nwhile True: pass", timeout=120)
    assert eventually(lambda: attacker.log(job) == b'"up"\n', 30)

    def submit() -> None:
        other.start({"run.sh": b"true"}, canary=False)

    questions = {
        "status": lambda: other.ask("GET", f"/status/{job}"),
        "logs": lambda: other.ask("GET", f"/logs/{job}"),
        "health": lambda: other.ask("GET", "/health"),
        "submit": submit,
    }
    try:
        slow = dict(questions)
        for _ in range(6):  # others use this machine; a job that holds a lock holds it all the time
            slow = {name: ask for name, ask in slow.items() if _slowest(ask, 10) >= 0.3}
            if not slow:
                break
        assert UML or not slow, f"above 0.3 s each time: {sorted(slow)}"
        assert not attacker.is_over(job)
        for token in list(other.tokens):
            other.finish(token)
    finally:
        attacker.cancel(job)
        other.leave()


def _slowest(ask: Any, times: int) -> float:
    slowest = 0.0
    for _ in range(times):
        started = time.monotonic()
        ask()
        slowest = max(slowest, time.monotonic() - started)
    return slowest


def test_a_server_that_is_terminated_takes_jobs_and_data_along(attacker: Attacker) -> None:
    """LC-10. SIGTERM, while jobs run, wait, and hold what they made."""
    server = Server("--no-quotas", env={"SANDRUN_SLOTS": 2})
    client = Attacker(server)
    seen = client.sh("head -c 20000000 /dev/urandom > out; cat out >&2")
    assert memory_of(server.pids()["web"]).memfds > 19_000_000
    main = "os.system('(trap \"\" TERM; sleep 600) &')\nsay('up')\nsignal.pause()"
    jobs = [client.start_python(main) for _ in range(4)]
    assert eventually(lambda: sum(client.log(job) == b'"up"\n' for job in jobs) == 2, 30)
    assert (seen.reason, client.ask("GET", "/stats").json["system"]["queue_length"]) == (None, 2)
    pids = server.pids()
    assert set(pids) == {"keeper", "launcher", "web"}
    started = time.monotonic()
    assert server.end(signal.SIGTERM) == 0, server.banner
    assert time.monotonic() - started < 10
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    assert not cgroups_of(pids["keeper"])
    assert eventually(lambda: not _of_keeper(pids["keeper"]), 2)


def _of_keeper(keeper: int) -> list[int]:
    """Jobs' processes in cgroups that this keeper made."""
    found = []
    for pid in job_processes():
        with suppress(OSError):
            if f"/sandrun-{keeper}-" in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return found


# --- faults of ours --------------------------------------------------------------------------


def test_a_cgroup_that_cannot_be_removed_holds_up_nobody(attacker: Attacker) -> None:
    """LC-16. Something else is in the job's cgroups when it ends (the kernel's EBUSY): the job has
    its end, others go on, nobody tries without a pause, and once it is gone so are they. Nothing is
    ever unmounted here, so that umount cannot be busy."""
    launcher = attacker.server.pids()["launcher"]
    with attacker.held() as job:
        folders = [
            path
            for path in cgroups_of(attacker.server.process.pid)
            if job.program.pid in pids_in(path)
        ]
        assert folders
        stuck = [Path(folder, "stuck") for folder in folders]
        for folder in stuck:
            folder.mkdir()
    try:
        assert attacker.finish(job.id).reason == "cancelled"
        burnt = seconds_of(launcher)
        for _ in range(3):
            assert attacker.sh("echo fine").text == "fine\n"
        time.sleep(0.5)
        assert all(folder.exists() for folder in stuck)
        assert seconds_of(launcher) - burnt < 0.4, "it tries and tries"
    finally:
        for folder in stuck:
            folder.rmdir()
    assert eventually(lambda: not any(map(os.path.exists, folders)), 2)


def test_a_pid_1_that_hangs_is_ended_like_any_other(attacker: Attacker) -> None:
    """LC-16. Pid 1 of the sandbox is stopped by the machine, and so never tells how it went."""
    with attacker.held() as job:
        os.kill(job.init.pid, signal.SIGSTOP)
        os.kill(job.program.pid, signal.SIGKILL)
        assert attacker.sh("echo fine").text == "fine\n"
    seen = attacker.finish(job.id)
    assert (seen.reason, seen.code, seen.status["signal"]) == ("cancelled", -1, 9), seen


# What is broken in a copy of the product: file, what stands there, what is put there.
HANGS = [
    # A collector that has been told to sleeps, and it is given a second, not 15.
    (
        "sandbox/inside.py",
        "_print(collect.collect(",
        '"hang" in orders["patterns"] and signal.pause()\n    _print(collect.collect(',
    ),
    ("sandbox/launcher.py", "128, 1.0, 0.0, 15.0)", "128, 1.0, 0.0, 1.0)"),
    # No kill reaches a job with 77 MB, as if it were stuck in the kernel.
    (
        "sandbox/launcher.py",
        "        self.cgroup.kill()\n        try:",
        "        if self.limits.memory_bytes == 77 * MIB and cause != 'shutdown':\n"
        "            return\n"
        "        self.cgroup.kill()\n        try:",
    ),
]


def test_what_hangs_in_our_own_parts_keeps_its_slot_and_nothing_else(attacker: Attacker) -> None:
    """LC-16. A collector that hangs: the job has its end, and says what is missing. A job that no
    kill reaches keeps its slot; the other goes on, and the launcher does not spin."""
    with checkout() as path:
        for file, old, new in HANGS:
            text = (path / file).read_text()
            assert text.count(old) == 1, (file, old)
            (path / file).write_text(text.replace(old, new))
        server = Server("--no-quotas", repository=path, env={"SANDRUN_SLOTS": 2})
        try:
            client = Attacker(server)
            seen = client.sh("echo x > hang; exit 3", outputs=["hang"])
            assert (seen.reason, seen.code) == ("exit", 3)
            assert seen.status["warnings"] == ["outputs could not be collected: timeout"]
            assert client.ask("GET", f"/outputs/{seen.id}").json["truncated"]

            stuck = client.start({"run.sh": b"echo up; sleep 600"}, memory_mb=77, timeout=1)
            assert eventually(lambda: client.log(stuck) == b"up\n", 30)
            time.sleep(1.2)  # past its time-out
            for _ in range(3):
                assert client.sh("echo fine").text == "fine\n"
            assert client.ask("GET", f"/status/{stuck}").json["status"] == "running"
            launcher = server.pids()["launcher"]
            before = _turns(launcher)
            time.sleep(1)
            assert _turns(launcher) - before < 100, "it looks at it without a pause"
            assert server.get("/health")["status"] == "healthy"
        finally:
            assert server.end() == 0, server.banner
        assert eventually(lambda: not cgroups_of(server.process.pid), 2)


def _turns(pid: int) -> int:
    """How often a process has slept."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


# --- another clock, other cgroups ------------------------------------------------------------


def verdicts(attacker: Attacker) -> dict[str, list[Any]]:
    """How each of some jobs ends: status, reason, code, signal, limits, and whether memory and CPU
    time were counted as they must be."""
    jobs: dict[str, Any] = {
        "exit 0": (0, 0, lambda: attacker.sh("true")),
        "exit 3": (0, 0, lambda: attacker.sh("exit 3")),
        "signal": (0, 0, lambda: attacker.sh("kill -TERM $$")),
        "memory": (48, 0, lambda: attacker.python("x = bytearray(256 << 20)", memory_mb=64)),
        "grandchild": (48, 0, lambda: attacker.python(GRANDCHILD, memory_mb=64)),
        "peak": (40, 0, lambda: attacker.python("x = bytearray(40 << 20)", memory_mb=128)),
        "cpu": (0, 0.9, lambda: attacker.sh("while :; do :; done", cpu_seconds=1, timeout=100)),
        "timeout": (0, 0, lambda: attacker.sh("sleep 600", timeout=1)),
        "tasks": (0, 0, lambda: attacker.sh("for i in $(seq 50); do sleep 9 & done")),
        "disk": (90, 0, lambda: attacker.sh(FULL, outputs=["none"])),
    }  # fmt: skip
    told = {}
    for name, (megabytes, seconds, run) in jobs.items():
        seen = run()
        counted = [peak_of(seen) > megabytes * MIB, cpu_of(seen) >= seconds]
        fields = ("status", "reason", "signal", "limits_hit", "stage")
        told[name] = [*(seen.status[field] for field in fields), seen.code, *counted]
    return told


FULL = "for i in 1 2; do head -c 60000000 /dev/zero > $i || echo full; done"


def stepped(attacker: Attacker) -> dict[str, Any]:
    """What becomes of two jobs while the clock of the machine jumps: one that is over before its
    time, one that is not. Begun again with more time when so much had passed by then that nothing
    could be told from it."""
    for seconds in (6, 12, 24, 48):
        began = time.monotonic()
        scripts = {"late": "echo up; sleep 600", "early": f"echo up; sleep {seconds // 2}"}
        limits = {"late": {"timeout": seconds}, "early": {}}
        jobs = {  # with little memory, or one would wait for the other
            name: attacker.start({"run.sh": text.encode()}, memory_mb=64, **limits[name])
            for name, text in scripts.items()
        }
        while not all(
            attacker.log(job) == b"up\n" or attacker.is_over(job) for job in jobs.values()
        ):
            time.sleep(0.02)
        over = []
        for step in (3600, -7200):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
            time.sleep(0.3)  # several times as long as the launcher looks away from its clock
            over.append([step, any(map(attacker.is_over, jobs.values()))])
        passed = time.monotonic() - began
        seen = {name: attacker.finish(job) for name, job in jobs.items()}
        if passed < seconds / 2:
            break
    ends = {name: [one.reason, wall_of(one)] for name, one in seen.items()}
    return {"over": over, "seconds": seconds, "took": time.monotonic() - began, **ends}


@pytest.mark.skipif(UML, reason="is itself on the guest kernel")
def test_on_a_v2_kernel_verdicts_are_the_same_and_steps_of_its_clock_change_none(
    attacker: Attacker,
) -> None:
    """LC-07, LC-18. A server of its own on the guest kernel: its clock is stepped by an hour
    forwards and two back while jobs run; and the same jobs end there as here. (script/test-v2 runs
    this whole suite there.)"""
    assert boot.installed(), "needs linux.uml (Debian package user-mode-linux)"
    code, output = boot.run(
        [sys.executable, "-m", "tests.attacks.test_lc"],
        cwd=REPOSITORY, readable=[Path(sys.prefix)], memory="1024M", timeout=300,
    )  # fmt: skip
    assert code == 0, output
    there = json.loads(output.splitlines()[-1])
    assert there["controllers"] == {"memory": "v2", "pids": "v2", "cpu": "v2"}
    assert there["verdicts"] == verdicts(attacker)
    clock = there["stepped"]
    seconds, took = clock["seconds"], clock["took"]
    assert clock["over"] == [[3600, False], [-7200, False]]
    assert clock["late"][0] == "timeout" and seconds <= clock["late"][1] < took
    assert clock["early"][0] is None and seconds // 2 <= clock["early"][1] < took


def main() -> None:
    server = Server("--no-quotas")
    attacker = Attacker(server)
    try:
        seen = {
            "controllers": server.get("/health")["sandbox"]["cgroup"],
            "verdicts": verdicts(attacker),
            "stepped": stepped(attacker),
        }
        print(json.dumps(seen), flush=True)
    finally:
        server.end()


if __name__ == "__main__":
    main()
