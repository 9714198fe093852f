"""FD: what a program holds when it starts (its three descriptors, nothing else), the channels
beside it, and signals. A descriptor that is shared with us is the shortest way to the outside; and
whatever comes out of a sandbox may be a lie."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import MIB, Command, Glance, Limits
from sandbox.runtimes import BASE_ENV
from tests.attacks.arena import Attacker, descriptors
from tests.attacks.wire import Entry, archive, sent
from tests.journeys.server import Server, eventually
from tests.sandbox.box import Box, Ran, loose

REASONS = ("exit", "signal", "timeout", "memory", "cpu", "cancelled")
TEXT = "what the client sent\n" * 300

# A ring of local sockets that hold each other, and the log's write ends with them: the kernel takes
# it apart when some local socket of the machine is closed, and that may be long after the death.
IN_FLIGHT = """
import array, fcntl, os, socket, sys, time
def send(via, *what):
    what = [w if isinstance(w, int) else w.fileno() for w in what]
    via.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", what))])
"""
DAEMON = """
said, say = os.pipe()
if os.fork() == 0:
    a, b = socket.socketpair()
    send(a, a, b, 1, 2)
    send(b, a, b)
    os.write(say, b"x")
    time.sleep(100)
os.read(said, 1)
print("main ends", flush=True)
os._exit(0)
"""


# --- sandboxes without a server: what must be seen on our side of the pipes and the socket ------


# Launchers with something changed, as programs: {} is Python that changes it.
_CHANGED = """
import json, os, socket, sys, time
from sandbox import channel, inside, launcher
{}
launcher.main()
"""


@contextmanager
def box(changed: str = "") -> Iterator[Box]:
    """A launcher of our own, and ours is web's part."""
    code = _CHANGED.replace("{}", changed)
    made = Box([sys.executable, "-I", "-c", code])
    try:
        yield made.start()
    finally:
        made.close()


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


class Lag:
    """The longest that a loop was busy with one thing."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.worst = max(self.worst, time.monotonic() - before)


async def timed(doing: Any) -> tuple[Any, float, float]:
    """(result or exception, seconds, longest stall of the loop)."""
    lag = Lag()
    watch = asyncio.ensure_future(lag.watch())
    started = time.monotonic()
    try:
        result: Any = await asyncio.wait_for(doing, 30)
    except Exception as error:  # any kind: which one, is what the test is about
        result = error
    seconds = time.monotonic() - started
    watch.cancel()
    return result, seconds, lag.worst


KEEPS_THE_ENDS = """
ends, kept = launcher._ends, []
def leaking(*args):
    ours, theirs = ends(*args)
    kept.extend(os.dup(fd) for fd in theirs[1:])
    return ours, theirs
launcher._ends = leaking
"""


def test_a_log_that_somebody_still_holds_ends_with_the_job() -> None:
    """FD-01. The write ends of every pipe stay open outside, for good: as after a ring of sockets
    that the kernel has not yet taken apart, only that here it never does."""
    lines = "".join(f"{n:07}\n" for n in range(120_000))  # nearly a full pipe, at the last moment
    before = fds()
    with box(KEEPS_THE_ENDS) as ours:
        code = "import sys; sys.stdout.write(''.join(f'{n:07}\\n' for n in range(120_000)))"
        ran, seconds, _ = ours.wait(timed(ours.apython(code, wall_seconds=10)))
        assert isinstance(ran, Ran), ran
        assert (ran.reason, ran.code, seconds < 5) == ("exit", 0, True), (ran.result, seconds)
        assert ran.text == lines, len(ran.text)
        assert seconds < ran.result.usage.wall_usec / 1e6 + 2, (seconds, ran.result.usage)
        slow = ours.apython("import time; print('up', flush=True); time.sleep(60)", wall_seconds=1)
        ran, seconds, _ = ours.wait(timed(slow))
        assert isinstance(ran, Ran), ran
        assert (ran.reason, ran.text) == ("timeout", "up\n"), ran.result
        assert seconds < 1 + 2, seconds
        held = [link for link in descriptors(ours.process.pid).values() if "pipe:" in link]
        assert len(held) >= 8, held  # it is true: run and collect, twice, are still held
    assert eventually(lambda: fds() <= before, 2), (fds(), before)


def test_a_ring_of_sockets_holds_no_job_beyond_its_end(attacker: Attacker) -> None:
    """FD-01. The same for real: a daemon puts the log's ends into a ring, and main ends; another
    never ends; a third is cancelled."""
    started = time.monotonic()
    seen = attacker.python(IN_FLIGHT + DAEMON, timeout=10)
    assert (seen.reason, seen.text) == (None, "main ends\n"), seen
    assert time.monotonic() - started < seen.status["execution_metadata"]["wall_time_ms"] / 1000 + 5
    started = time.monotonic()
    seen = attacker.python(IN_FLIGHT + DAEMON.replace("os._exit(0)", "time.sleep(100)"), timeout=1)
    assert (seen.reason, seen.text) == ("timeout", "main ends\n"), seen
    assert time.monotonic() - started < 1 + 2 + 2, "beyond its limit"
    job = attacker.start_python(IN_FLIGHT + DAEMON.replace("os._exit(0)", "time.sleep(100)"))
    assert eventually(lambda: b"main ends" in attacker.log(job), 20)
    attacker.cancel(job)
    assert eventually(lambda: attacker.is_over(job), 2)
    assert attacker.finish(job).reason == "cancelled"


BYTES = """
import fcntl, json, os, sys, time
how = sys.argv[1]
asked = "ok"
fds = [1]
try:
    if how == "fcntl":
        fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)
    if how == "open":
        fds = [os.open("/proc/self/fd/1", os.O_WRONLY | os.O_DIRECT)]
    if how == "dup":
        r, w = os.pipe2(os.O_DIRECT)
        os.dup2(os.open("/proc/self/fd/%d" % w, os.O_WRONLY), w)
except OSError as error:
    asked = str(error.errno)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for _ in range(200):
        os.write(fds[0], b"x")
os.write(2, json.dumps([asked, bool(fcntl.fcntl(fds[0], fcntl.F_GETFL) & os.O_DIRECT)]).encode())
"""


@pytest.mark.parametrize("how", ["plain", "fcntl", "open"])
@pytest.mark.parametrize("processors", ["all", "one"])
def test_a_byte_at_a_time_costs_us_no_more_than_the_job(how: str, processors: str) -> None:
    """FD-02. Output in single bytes, and as single packets of one byte, by fcntl() and by opening
    the pipe anew: our thread, which reads them, uses no more time than the job is charged. Nor
    where both share one processor, and each byte could have us interrupt the job."""
    all_of_them = os.sched_getaffinity(0)
    with ExitStack() as stack:
        if processors == "one":
            os.sched_setaffinity(0, {min(all_of_them)})
            stack.callback(os.sched_setaffinity, 0, all_of_them)
        ours = stack.enter_context(box())
        ours.sh("true")
        before = time.thread_time()
        ran = ours.python(BYTES, how)
        used = time.thread_time() - before
        assert (ran.reason, ran.code) == ("exit", 0), (ran.result, ran.stderr)
        asked, _ = json.loads(ran.stderr)
        assert asked in ("ok", "1", "22", "38"), asked
        assert len(ran.stdout) > 5000, len(ran.stdout)
        paid = ran.result.usage.cpu_usec / 1e6
        assert used <= paid * 1.2 + 0.1, (used, paid, json.loads(ran.stderr))


def test_nobody_waits_for_eight_programs_that_write_packets(attacker: Attacker) -> None:
    """FD-02. Eight at once on both streams; HI1 and HI6 say what the others notice."""
    code = """
import fcntl
for fd in (1, 2):
    tried(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_DIRECT)
end = time.monotonic() + 1.5
children = [os.fork() for _ in range(3)]
os.fork(), os.fork()
while time.monotonic() < end:
    os.write(1, b"x"), os.write(2, b"y")
"""
    seen = attacker.python(code)
    assert (seen.reason, seen.code) == (None, 0), seen.status
    assert set(seen.stdout) == set(b"x") and len(seen.stdout) > 1000, len(seen.stdout)


# What a pid 1 that is not ours any more says, instead of running the program.
LIES = {
    "a flood": "while True: say({'x': 1})",
    "a flood of many": "os.fork(), os.fork()\nwhile True: control.send(b'{}')",
    "a flood of beginnings": "while True: say({'started': True})",
    "a step that is no number": "say({'exit': 0, 'step': 'x'})",
    "a status beyond all": "say({'exit': 10**30, 'step': 0})",
    "a status below all": "say({'exit': -1, 'step': 0})",
    "a status that is a truth": "say({'exit': True, 'step': 0})",
    "a status that is broken": "say({'exit': 0.5, 'step': 0})",
    "a status that is a list": "say({'exit': [0], 'step': 0})",
    "no step": "say({'exit': 0})",
    "a step beyond all": "say({'exit': 0, 'step': 99})",
    "a step below all": "say({'exit': 0, 'step': -1})",
    "a step that is endless": "raw(b'{\"exit\": 0, \"step\": Infinity}')",
    "a stopped one": "say({'exit': 0x137f, 'step': 0})",
    "a packet of 64 KiB": "raw(b'{\"x\": \"' + b'y' * 65527 + b'\"}')",
    "more than a packet": "raw(b'{\"x\": \"' + b'y' * 70000 + b'\"}')",
    "a list": "raw(b'[1]')",
    "nothing at all": "raw(b'')",
    "no JSON": "raw(b'\\xff\\xfe')",
    "a deep one": "raw(b'[' * 60000)",
    "a long number": "raw(b'{\"exit\": ' + b'9' * 60000 + b'}')",
    "four descriptors": "socket.send_fds(control, [b'{\"x\": 1}'], [0, 1, 2, 0])",
    "a failure without words": "say({'failed': None, 'errno': [], 'detail': {}})",
    "a failure of many words": "say({'failed': 'x' * 9999, 'errno': 10**40, 'detail': 'y' * 9999})",
    "a refusal without words": "say({'refused': None})",
    "a refusal with escapes": "say({'refused': '\\x1b[31m\\r\\n' * 1000})",
}  # fmt: skip

LIAR = """
LIES = __LIES__
def lie(control, start):
    orders, _ = inside._orders(control, 2)
    _, name, started = orders["steps"][0]
    say = lambda message: channel.send(control, message)
    raw = lambda packet: control.sendmsg([packet])
    if started:
        say({"started": True})
    try:
        exec(LIES[name])
    except OSError:
        pass  # too long a packet is not even sent
    if not started:
        time.sleep(60)
inside.TASKS["run"] = lie
"""


def test_whatever_a_hostile_pid_1_says_ends_in_a_verdict_or_an_error() -> None:
    """FD-03. In place of ours, a pid 1 that lies: each job ends in time, as our error, as a
    refusal, or with one of the known verdicts; the loop is free all the while; no descriptor is
    left. Before the program was begun, and after; then to stay, or to end."""
    faults = []
    before = fds()
    with box(LIAR.replace("__LIES__", repr(LIES))) as ours:
        for name in LIES:
            for started in ("started", ""):
                lie = Command((("lie", name, started),), BASE_ENV)
                doing = ours.arun(lie, wall_seconds=0.5)
                result, seconds, lag = ours.wait(timed(doing))
                if isinstance(result, Ran):
                    verdict = result.result.verdict
                    fine = verdict.reason in REASONS and verdict.step == 0
                    fine &= verdict.exit_code is None or 0 <= verdict.exit_code <= 255
                else:
                    fine = isinstance(result, SandboxError | BundleRefused)
                    fine &= len(str(result)) < 70_000
                if not fine or seconds > 0.5 + 2 or lag > 1:
                    said = result.result if isinstance(result, Ran) else repr(result)[:300]
                    faults.append(f"{name}, {started}: {said} after {seconds:.1f} s, lag {lag:.2f}")
    if not eventually(lambda: fds() <= before, 2):
        faults.append(f"{fds() - before} descriptors are left")
    assert not faults, "\n".join(faults)


GLANCES: dict[str, Any] = {
    "no rows": 1,
    "rows that are none": {"x": 1},
    "a row that is none": ["xxx"],
    "a row of three": [["x", 1, 1]],
    "a size that is no number": [["x", "1"]],
    "a size that is a truth": [["x", True]],
    "a size that is broken": [["x", 0.5]],
    "a size below none": [["x", -1]],
    "a size beyond all": [["x", 1 << 63]],
    "a path that climbs": [["../x", 1]],
    "a path from the root": [["/x", 1]],
    "a path with a nul": [["a\0b", 1]],
    "no path": [["", 1]],
    "a path that is a number": [[1, 1]],
    "too many rows": [[f"{n}", 1] for n in range(201)],
    "a count that is none": [],
}
# It says on the job's stdout when it is asked.
FALSE_GLANCE = """
from sandbox import glance
LIES = __LIES__
def lie(patterns, began_ns):
    name = patterns[0]
    os.write(1, b"asked\\n")
    return {"files": LIES[name], "more": None if name == "a count that is none" else 0}
glance.glance = lie
"""


def test_no_lie_about_the_files_of_a_running_job_is_told() -> None:
    """FD-23. In place of ours, a pid 1 that lies when it is asked for the files: none of it is
    told, nobody asks again, and the job ends as it would have. What could be true is told."""
    changed = FALSE_GLANCE.replace("__LIES__", repr(GLANCES | {"true": [["x\udcff", 1]]}))
    before = fds()
    faults = []

    async def asked_twice(ours: Box, name: str) -> tuple[Ran, list[Glance]]:
        told: list[Glance] = []
        looks: list[Callable[[Callable[[Glance], None]], None]] = []

        def begin(look: Callable[[Callable[[Glance], None]], None]) -> None:
            looks.append(look)
            look(told.append)

        def again(stream: str, data: bytes) -> None:
            asyncio.get_running_loop().call_later(0.2, looks[0], told.append)

        ran = await ours.apython(
            "import time; time.sleep(0.6); exit(7)", patterns=[name], on_look=begin,
            on_output=again,
        )  # fmt: skip
        return ran, told

    with box(changed) as ours:
        for name in GLANCES:
            ran, told = ours.wait(asked_twice(ours, name))
            if (ran.reason, ran.code, told, ran.text) != ("exit", 7, [], "asked\n"):
                faults.append(f"{name}: {ran.result} {told} {ran.text}")
        ran, told = ours.wait(asked_twice(ours, "true"))
        assert (ran.code, set(told)) == (7, {Glance((("x\udcff", 1),))}), (ran, told)
        assert len(told) > 1  # whoever tells the truth is asked again
    if not eventually(lambda: fds() <= before, 2):
        faults.append(f"{fds() - before} descriptors are left")
    assert not faults, "\n".join(faults)


FLIPS = """
import itertools
os.mkdir("d")
for n in range(3000):
    open(f"d/{n:04}" + "x" * 200, "w").close()
os.mkfifo("pipe")
os.symlink("/etc/passwd", "link")
print("made", flush=True)
for n in itertools.count():  # what it is changes all the while
    os.symlink("/usr/bin", "a")
    os.rename("a", "d/0000" + "x" * 200)
    os.mkdir("b")
    os.rmdir("b")
    os.rename("d", "e")
    os.rename("e", "d")
    os.kill(1, signal.SIGIO)
"""


def test_looking_at_hostile_files_is_cheap_and_holds_nobody_up(
    attacker: Attacker, server: Server
) -> None:
    """FD-23. Thousands of long names, links and folders that change places all the while, and a job
    that sends pid 1 its signal without end: frames are few and small, hold no link, pipe or folder,
    the job ends by its limit, and web works for it less than it does."""
    web = server.pids()["web"]
    job = attacker.start_python(FLIPS, timeout=6)
    assert eventually(lambda: b"made" in attacker.log(job), 20)
    before = cpu_seconds(web)
    path = f"/logs/{job}?follow=1&format=ndjson"
    frames = [json.loads(line) for line in attacker.ask("GET", path).body.splitlines()]
    told = [frame for frame in frames if frame["type"] == "files"]
    assert 1 <= len(told) <= 7, len(told)
    for frame in told:
        paths = [file["path"] for file in frame["files"]]
        assert len(json.dumps(frame)) < 20_000 and len(paths) <= 200
        assert frame["advisory"] and not {"pipe", "link", "d", "b"} & set(paths), paths
    end = frames[-1]["result"]
    assert (end["reason"], frames[-1]["type"]) == ("timeout", "end"), end
    assert cpu_seconds(web) - before < end["cpu_seconds"] * 1.2


def cpu_seconds(pid: int) -> float:
    """That a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# What a collector that is not ours any more says of a store with ten bytes.
GOOD_ROW = ["x", 0, 5, "a" * 64, 0o644]
LISTINGS: dict[str, Any] = {
    "an offset that is no number": [["x", "0", 5, "a" * 64, 0o644]],
    "an offset that is broken": [["x", 0.5, 5, "a" * 64, 0o644]],
    "an offset that is a truth": [["x", True, 5, "a" * 64, 0o644]],
    "a row of four": [["x", 0, 5, "a" * 64]],
    "a row of six": [[*GOOD_ROW, 1]],
    "a row that is none": ["xxxxx"],
    "rows that are none": {"x": 1},
    "a path that climbs": [["../../x", *GOOD_ROW[1:]]],
    "a path that climbs later": [["a/../../x", *GOOD_ROW[1:]]],
    "a path from the root": [["/x", *GOOD_ROW[1:]]],
    "a path with a nul": [["a\0b", *GOOD_ROW[1:]]],
    "no path": [["", *GOOD_ROW[1:]]],
    "a dot": [[".", *GOOD_ROW[1:]]],
    "a doubled slash": [["a//b", *GOOD_ROW[1:]]],
    "a path that is a number": [[1, *GOOD_ROW[1:]]],
    "one path twice": [GOOD_ROW, GOOD_ROW],
    "a file that is a folder": [GOOD_ROW, ["x/y", *GOOD_ROW[1:]]],
    "a size beyond all": [["x", 0, 2**63, "a" * 64, 0o644]],
    "a size below none": [["x", 5, -5, "a" * 64, 0o644]],
    "beyond the store": [["x", 6, 5, "a" * 64, 0o644]],
    "a hash that is none": [["x", 0, 5, "a\r\nX: y", 0o644]],
    "a hash that is a number": [["x", 0, 5, 1, 0o644]],
    "a mode that is set-uid": [["x", 0, 5, "a" * 64, 0o4755]],
    "a mode that is a word": [["x", 0, 5, "a" * 64, "0644"]],
    "a store that is not sealed": [GOOD_ROW],
}  # fmt: skip

TEXTS = {
    "a list": "[]",
    "nothing of it": "{}",
    "no rows": '{"files": 1, "truncated": false}',
    "a number": "1",
    "no JSON": "{",
    "an endless number": '{"files": [["x", 0, NaN, "a", 420]], "truncated": false}',
}

FALSE_COLLECTOR = """
LISTINGS = __LISTINGS__
TEXTS = __TEXTS__
def lie(control, start):
    orders, (store,) = inside._orders(control, 1)
    os.write(store, b"0123456789")
    channel.send(control, {"started": True})
    name = orders["patterns"][0]
    if name != "a store that is not sealed":
        channel.seal(store)
    if name == "nothing but brackets":
        text = "[" * (15 << 20)
    elif name == "ten thousand rows":
        row = ["0" * 64, 0o644]
        text = json.dumps({"files": [[f"{n}", 0, 5, *row] for n in range(10_001)],
                           "truncated": False})
    elif name in TEXTS:
        text = TEXTS[name]
    else:
        text = json.dumps({"files": LISTINGS[name], "truncated": False})
    data = memoryview(text.encode())
    while data:
        data = data[os.write(1, data):]
inside.TASKS["collect"] = lie
"""


def test_no_lie_of_the_collector_is_served() -> None:
    """FD-04. The store is sealed, but what is said about it is a lie, or nonsense, or 15 MB of
    brackets: our error or a note, never a row that is served, and the loop is free meanwhile. What
    could be true is served."""
    faults = []
    before = fds()
    changed = FALSE_COLLECTOR.replace("__LISTINGS__", repr(LISTINGS | {"true": [GOOD_ROW]}))
    with box(changed.replace("__TEXTS__", repr(TEXTS))) as ours:
        for name in [*LISTINGS, *TEXTS, "ten thousand rows", "nothing but brackets"]:
            result, seconds, lag = ours.wait(timed(served(ours, name)))
            failed = isinstance(result, SandboxError)
            nothing = not isinstance(result, Exception) and not result.files
            if not (failed or nothing) or seconds > 20 or lag > 1:
                faults.append(f"{name}: {result!r:.300} after {seconds:.1f} s, lag {lag:.2f}")
        outputs = ours.wait(served(ours, "true"))
        assert [file.path for file in outputs.files] == ["x"], outputs
    if not eventually(lambda: fds() <= before, 2):
        faults.append(f"{fds() - before} descriptors are left")
    assert not faults, "\n".join(faults)


async def served(ours: Box, name: str) -> Any:
    """The Outputs of a run; their memory is closed."""
    bundle = loose({})
    try:
        result = await ours.sandbox.run(
            Command((("true",),), BASE_ENV), bundle, Limits(), patterns=[name],
            on_output=lambda *_: None,
        )  # fmt: skip
    finally:
        os.close(bundle.fd)
    if result.outputs.fd >= 0:
        os.close(result.outputs.fd)
    return result.outputs


# --- the three descriptors ----------------------------------------------------------------------


STDIN = """
import fcntl
ADD_SEALS, GET_SEALS = 1033, 1034
def mapped(fd):
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE) as view:
        view[0] = 0
again = os.open("/proc/self/fd/0", os.O_RDWR)
say({
    "seals": fcntl.fcntl(0, GET_SEALS) & 15,
    "answers": [
        answer
        for fd in (0, again)
        for answer in (
            tried(os.write, fd, b"mine"),
            tried(os.pwrite, fd, b"mine", 0),
            tried(os.ftruncate, fd, 10),
            tried(os.ftruncate, fd, 1 << 20),
            tried(os.posix_fallocate, fd, 0, 1 << 20),
            tried(mapped, fd),
            tried(os.fchmod, fd, 0o777),
            tried(os.fchown, fd, 1000, 1000),
            tried(fcntl.fcntl, fd, ADD_SEALS, 0),
            tried(fcntl.fcntl, fd, ADD_SEALS, 16),
        )
    ],
    "truncating": tried(os.open, "/proc/self/fd/0", os.O_WRONLY | os.O_TRUNC),
    "executed": subprocess.run(["sh", "-c", "exec /proc/self/fd/0"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True).stdout,
    "whole": os.pread(0, 1 << 20, 0).decode(),
})
"""


def test_stdin_is_read_and_never_written(attacker: Attacker) -> None:
    """FD-05. Every way to change the memory that its stdin is, by the descriptor and by opening it
    anew: refused. Executed, it stands before the same walls. The next job has its own."""
    script = "#!/bin/sh\ngrep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\n'\n"
    seen = attacker.python(STDIN, stdin=script)
    said = seen.said
    assert said["seals"] == 15, said
    assert said["answers"] == ["EPERM"] * 20, said["answers"]
    assert said["truncating"] == "EPERM", said
    assert said["whole"] == script, said
    assert said["executed"] in ("", "CapEff:\t0000000000000000NoNewPrivs:\t1Seccomp:\t2"), said
    assert attacker.python(STDIN, stdin=script).status["job_hash"] == seen.status["job_hash"]
    said = attacker.python("say([sys.stdin.read(), os.path.getsize('/proc/self/fd/0')])").said
    assert said == ["", 0], said
    assert attacker.python("say(sys.stdin.read())", stdin=TEXT).said == TEXT


def test_a_compiler_leaves_the_program_its_stdin(attacker: Attacker) -> None:
    """FD-06. Stdin is one for all steps: a compiler reads none of it, unless the client's own code
    makes it; then what it took is gone for the program, and nothing else happens."""
    main = "#include <stdio.h>\nint main(){int c; while((c=getchar())!=EOF) putchar(c);}"
    seen = attacker.run({"main.c": main.encode()}, interpreter="c", stdin=TEXT)
    assert (seen.reason, seen.text) == (None, TEXT), seen
    thief = Entry("d/cc1", b"#!/bin/sh\nexec cat >/dev/null\n", mode=0o755)
    given = {"interpreter": "c", "entrypoint": "main.c", "stdin": TEXT}
    env = {"COMPILER_PATH": "/job/d"}
    raw = archive("tar.gz", Entry("main.c", main.encode()), thief, manifest={**given, "env": env})
    answer = sent(attacker, raw).json
    assert (answer["status"], answer["reason"]) == ("failed", "exit"), answer
    assert attacker.run({"main.c": main.encode()}, interpreter="c", stdin=TEXT).text == TEXT


LIVE_STDIN = (
    """
import fcntl
SETPIPE_SZ, SETSIG = 1031, 10
def reopened(flags):
    os.close(os.open("/proc/self/fd/0", flags))
answers = {
    "written": [tried(os.write, 0, b"mine"), tried(reopened, os.O_WRONLY),
                tried(reopened, os.O_RDWR)],
    "moved": [call(275, 0, 0, 1, 0, 4096, 0), call(276, 0, 1, 4096, 0),
              call(278, 0, b"x" * 16, 1, 0)],
    "changed": [tried(os.fchmod, 0, 0o777), tried(os.fchown, 0, 1000, 1000), tried(os.utime, 0)],
    "sized": [tried(fcntl.fcntl, 0, SETPIPE_SZ, 4096 << more) for more in (8, 0, 9, 8)],
}
for pid in (1, *map(int, sys.argv[1:4])):
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGIO):
        tried(fcntl.fcntl, 0, SETSIG, number)
        tried(fcntl.fcntl, 0, fcntl.F_SETOWN, pid)
        tried(fcntl.fcntl, 0, fcntl.F_SETFL, os.O_ASYNC)
say(answers)
os.read(0, 1)  # what makes the kernel send them, if it does
tried(fcntl.fcntl, 0, fcntl.F_SETFL, 0)
readers = [os.open("/proc/self/fd/0", os.O_RDONLY) for _ in range(8)]
taken = 0
while taken < 3_000_000:
    taken += sum(len(os.read(fd, 1)) + len(os.read(fd, 65536)) for fd in readers)
"""
    + IN_FLIGHT
    + """
a, b = socket.socketpair()
send(a, a, b, 0, *readers)
send(b, a, b)
print(taken, flush=True)
"""
)


def test_live_stdin_is_read_and_nothing_else(attacker: Attacker, server: Server) -> None:
    """FD-22. The read end of a stdin that goes on: not written, not opened for it, nothing moved
    out of it, no mode changed, no signal sent by it; widened, narrowed, opened eight times, read by
    single bytes, and left in a ring of sockets, it holds nobody up and leaves web nothing open."""
    pids = server.pids()
    before = {name: pending(pid) for name, pid in pids.items()}
    # The neighbour's own come and go: the fewest that there are is what may not grow.
    idle = min(_a_second_of(lambda: len(descriptors(pids["web"]))))
    job = attacker.start_python(LIVE_STDIN, *map(str, pids.values()), stdin_live=True, timeout=60)
    assert eventually(lambda: b"\n" in attacker.log(job) or attacker.is_over(job), 30)
    path, bearer = f"/jobs/{job}/stdin", attacker.bearer(job)
    statuses = []
    while not attacker.is_over(job):
        statuses.append(attacker.ask("POST", path, b"x" * 65536, bearer).status)
    assert set(statuses) <= {200, 409, 503} and statuses.count(200) > 40, statuses
    seen = attacker.finish(job)
    said, taken = seen.text.splitlines()
    answers = json.loads(said)
    assert answers["written"] == ["EBADF", "EACCES", "EACCES"], answers
    assert answers["moved"] == ["ENOSYS"] * 3, answers
    assert answers["changed"] == ["EPERM", "EPERM", "EACCES"], answers
    assert answers["sized"][1:3] == ["ok", "EPERM"], answers
    assert (seen.reason, seen.code) == (None, 0) and int(taken) >= 3_000_000, seen
    assert attacker.ask("POST", path, b"x", bearer).status == 409
    assert eventually(lambda: len(descriptors(pids["web"])) <= idle, 10), descriptors(pids["web"])
    assert server.pids() == pids
    assert {name: pending(pid) for name, pid in pids.items()} == before
    assert attacker.python("say(sys.stdin.read())", stdin=TEXT).said == TEXT


def _a_second_of(look: Callable[[], int]) -> Iterator[int]:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        yield look()
        time.sleep(0.01)


OWN_LOG = """
import fcntl, termios
taken = mmap.mmap(-1, 4096)  # shared by both: how much was stolen
reader = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
writer = os.fork()
if writer == 0:
    n = 0
    while n < 2000 or (not any(taken[:8]) and n < 9000):
        os.write(1, b"%999d\\n" % n)
        n += 1
    taken[8:16] = struct.pack("q", n)
    os._exit(0)
stolen, over = 0, False
while True:
    over = over or os.waitpid(writer, os.WNOHANG)[0] != 0
    select.select([reader], [], [], 0.02)
    try:
        stolen += len(os.read(reader, 3000))
        taken[:8] = struct.pack("q", stolen)
    except BlockingIOError:
        if over:
            break
os.close(1)
late = os.open("/proc/self/fd/%d" % reader, os.O_WRONLY)
os.write(late, b"late\\n")
os.dup2(late, 1)
os.write(2, json.dumps([stolen, *struct.unpack("q", taken[8:16])]).encode())
os._exit(0)
"""


def test_a_job_that_reads_its_own_log_back_takes_from_itself_only(attacker: Attacker) -> None:
    """FD-07. The pipe belongs to the job, so it may open the other end and compete with us: what it
    takes is missing in its log, nothing else is; and when it has closed every writing end, the log
    goes on with what it writes later."""
    seen = attacker.python(OWN_LOG)
    assert (seen.reason, seen.code) == (None, 0), seen
    stolen, lines = json.loads(seen.stderr)
    assert 0 < stolen <= lines * 1000, stolen
    assert len(seen.stdout) + stolen == lines * 1000 + len("late\n"), (len(seen.stdout), stolen)
    assert seen.text.endswith("late\n"), seen.text[-100:]


PIPES = """
import fcntl
SET, GET = 1031, 1032
def size(fd, bytes):
    return tried(fcntl.fcntl, fd, SET, bytes)
more = int(Path("/proc/sys/fs/pipe-max-size").read_text()) * 2 if os.path.exists(
    "/proc/sys/fs/pipe-max-size") else 1 << 26
found = {
    "before": [fcntl.fcntl(fd, GET) for fd in (1, 2)],
    "up": [size(fd, bytes) for fd in (1, 2) for bytes in (more, 1 << 31)],
    "down": [size(fd, 4096) for fd in (1, 2)],
    "after": [fcntl.fcntl(fd, GET) for fd in (1, 2)],
    "mode": [tried(os.fchmod, fd, 0) for fd in (1, 2)],
}
say(found)
block = b"z" * 99_999 + b"\\n"
for _ in range(30):
    sys.stdout.buffer.write(block)
    sys.stderr.buffer.write(block)
"""


def test_a_job_may_only_narrow_its_own_pipes(attacker: Attacker) -> None:
    """FD-08. Larger: refused, since they count as root's; smaller, and without permissions: its own
    loss, and its log is whole all the same."""
    seen = attacker.python(PIPES)
    assert (seen.reason, seen.code) == (None, 0), seen
    first, _, rest = seen.text.partition("\n")
    said = json.loads(first)
    assert said["up"] == ["EPERM"] * 4 or set(said["up"]) <= {"EPERM", "EINVAL", "EBUSY"}, said
    assert said["down"] == ["ok", "ok"], said
    assert max(said["before"]) <= MIB and said["after"] == [4096, 4096], said
    assert rest == seen.stderr.decode() == ("z" * 99_999 + "\n") * 30, (len(rest), len(seen.stderr))


SIGNALLED = """
import fcntl
outside = [int(word) for word in sys.argv[1:]]
SETOWN_EX, SETSIG = 15, 10
got = []
signal.signal(signal.SIGIO, lambda *_: got.append(1))
own = os.pipe()
answers = {}
for owner in (-1, 1, 2**31 - 1, *outside):
    for number in (9, 19, 29):
        for fd in (1, 2, *own):
            answers[f"{owner} {number} {fd}"] = [
                tried(fcntl.fcntl, fd, SETSIG, number),
                tried(fcntl.fcntl, fd, fcntl.F_SETOWN, owner),
                *(tried(fcntl.fcntl, fd, SETOWN_EX, struct.pack("ii", kind, owner))
                  for kind in (0, 1, 2)),
            ]
            if owner == -1:
                continue  # our own group, so ourselves
            tried(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_ASYNC)
        os.write(own[1], b"x"), os.read(own[0], 1)
        os.write(2, b"." * 65536)
        for fd in (1, 2, *own):
            fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
for fd in own:
    fcntl.fcntl(fd, SETSIG, 0)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
os.write(own[1], b"x"), os.read(own[0], 1)
os.write(own[1], b"x"), os.read(own[0], 1)
time.sleep(0)
say({"tried": len(answers), "answers": sorted({a for many in answers.values() for a in many}),
     "got": len(got)})
"""


def test_no_descriptor_sends_a_signal_out_of_the_job(attacker: Attacker, server: Server) -> None:
    """FD-09. Owners of every kind for its pipes, with SIGKILL, SIGSTOP and SIGIO to be sent: nobody
    outside gets one, pid 1 lives, and the job's own SIGIO comes."""
    pids = server.pids()
    before = {name: pending(pid) for name, pid in pids.items()}
    seen = attacker.python(SIGNALLED, *map(str, pids.values()))
    said = seen.said
    assert said["tried"] == (3 + len(pids)) * 3 * 4, said
    assert "ok" in said["answers"], said
    assert set(said["answers"]) <= {"ok", "ESRCH", "EINVAL", "EPERM", "ENOSYS"}, said
    assert said["got"] >= 1, said
    assert len(seen.stderr) == 65536 * (3 + len(pids)) * 3, len(seen.stderr)
    assert server.pids() == pids
    assert {name: pending(pid) for name, pid in pids.items()} == before


def pending(pid: int) -> list[str]:
    """Signals that wait for it, and whether it is stopped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    waiting = [line for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    stopped = [line for line in lines if line.startswith("State") and "T" in line.split()[1]]
    return [*waiting, *stopped]


def test_nobody_is_held_up_or_watched_by_leases_and_notices(attacker: Attacker) -> None:
    """FD-10. F_SETLEASE on stdin, a program of /usr and a file of its own, F_NOTIFY on /usr: not
    there; F_GETFL is, as a control."""
    code = """
import fcntl
opened = [0, *(os.open(p, os.O_RDONLY) for p in ("/usr/bin/env", "/usr", "/job", __file__))]
say([[tried(fcntl.fcntl, fd, cmd, value) for cmd, value in
      ((1024, 0), (1024, 1), (1025, 0), (1026, 0x80000001), (1026, 0x8000003F))] for fd in opened]
    + [tried(fcntl.fcntl, fd, fcntl.F_GETFL) for fd in opened])
"""
    said = attacker.python(code).said
    refused = {"ENOSYS", "EACCES", "EPERM", "EINVAL", "ENOTDIR"}
    assert len(said) == 10 and said[5:] == ["ok"] * 5, said
    assert all(len(row) == 5 and set(row) <= refused for row in said[:5]), said


# What a program finds open: number, kind, socket type, whether one can go there.
OPEN = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static char **args;
static void *again(void *unused) { args[1] = 0; execv("/proc/self/exe", args); return 0; }
int main(int argc, char **argv) {
    if (argc > 1) {
        pthread_t t; args = argv;
        pthread_create(&t, 0, again, 0); pthread_join(t, 0);
        return 9;
    }
    for (int fd = 0; fd < 5000; fd++) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        int type = 0; socklen_t size = sizeof type; char link[300] = "", name[40];
        sprintf(name, "/proc/self/fd/%d", fd);
        readlink(name, link, 299);
        link[strcspn(link, ":")] = 0;
        int socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
        printf("%d %s %s %s\n", fd, link, socket < 0 ? "no-socket" : "socket",
               fchdir(fd) < 0 && errno == ENOTDIR ? "no-folder" : "FOLDER");
    }
}
"""
THREE = "0 /memfd no-socket no-folder\n1 pipe no-socket no-folder\n2 pipe no-socket no-folder\n"


# All that the launcher holds closes when the program is executed: a program cannot show it.
def test_pid_1_holds_nothing_of_the_launchers(attacker: Attacker) -> None:
    """FD-11, FD-12. While the program runs, as the machine shows it: the log's two pipes, and its
    own end to web; the program's stdin it has let go of."""
    with attacker.held() as job:
        held = {number: link.split(":")[0] for number, link in job.init.descriptors.items()}
    assert sorted(held.values()) == ["pipe", "pipe", "socket"], held
    assert held[1] == held[2] == "pipe", held


def test_a_program_finds_three_descriptors_and_no_more(attacker: Attacker) -> None:
    """FD-11. All numbers are tried: by the program, by one that a shell starts, by one that a
    thread executes, by a compiler's part in the first of two steps, and by the program of the
    second."""
    assert attacker.c(OPEN).text == THREE
    assert attacker.c(OPEN, before="chmod +x probe; sh -c './probe; ./probe'").text == THREE * 3
    assert attacker.c(OPEN, "thread").text == THREE
    seen = attacker.run({"main.c": OPEN.encode()}, interpreter="c", env={"CFLAGS": "-pthread"})
    assert seen.text == THREE, seen
    spy = Entry("d/cc1", b"#!/usr/bin/python3\n" + FOUND.encode(), mode=0o755)
    manifest = {"interpreter": "c", "entrypoint": "main.c", "env": {"COMPILER_PATH": "/job/d"}}
    answer = sent(attacker, archive("tar.gz", Entry("main.c"), spy, manifest=manifest)).json
    found = json.loads(answer["logs"]["stderr"].splitlines()[0])
    assert sorted(found) == ["0", "1", "2"], answer
    assert found["0"].startswith("/memfd"), found
    assert all(found[fd].startswith("pipe:") for fd in "12"), found


FOUND = """
import fcntl, json, os, sys
found = {}
for fd in range(5000):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        continue
    found[fd] = os.readlink("/proc/self/fd/%d" % fd)
print(json.dumps(found), file=sys.stderr)
sys.exit(1)
"""


PID_1 = """
names = '''fd mem maps environ cmdline exe cwd root task task/1 task/1/mem task/1/fd/3 syscall stack
io ns ns/mnt ns/net ns/user mountinfo mounts limits status stat comm auxv pagemap smaps fdinfo
oom_score_adj timerslack_ns coredump_filter map_files net attr/current setgroups uid_map gid_map
cgroup personality wchan clear_refs autogroup projid_map'''.split()
def read(path):
    with open(path, "rb") as file:
        file.read(1)
def written(path):
    with open(path, "wb", buffering=0) as file:
        file.write(b"1")
roots = ("/proc/1", "/proc/self/../1", "/proc/self/task/../../1", "/proc/thread-self/../../../1")
answers = {tried(do, f"{root}/{name}") for root in roots for name in names
           for do in (read, written, os.readlink, os.listdir, os.stat)}
pidfd = os.pidfd_open(1)
say({
    "answers": sorted(answers),
    "listed": [name for name in os.listdir("/proc") if name.isdigit()],
    "own": tried(read, "/proc/self/cmdline"),
    "me": os.getpid(),
    "getfd": [call(438, pidfd, fd, 0) for fd in range(8)],
    "wait": tried(os.waitid, os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG),
    "setns": call(308, pidfd, 0x20000),
    "vm": call(310, 1, 0, 0, 0, 0, 0),
    "ptrace": [call(101, request, 1, 0, 0) for request in (16, 0x4206)],
    "kcmp": call(312, 1, os.getpid(), 2, 0, 0),
})
"""


def test_nothing_of_pid_1_can_be_seen_or_taken(attacker: Attacker) -> None:
    """FD-12. Every file of /proc/1 by four ways, its descriptors by pidfd_getfd(), its namespaces
    and its memory: pid 1 is ours, and knows the launcher's words."""
    said = attacker.python(PID_1).said
    assert said["answers"] == ["ENOENT"], said
    assert said["own"] == "ok" and str(said["me"]) in said["listed"], said
    assert "1" not in said["listed"], said
    assert said["getfd"] == ["ENOSYS"] * 8, said
    assert said["wait"] == "ECHILD", said
    assert (said["setns"], said["vm"], said["kcmp"]) == ("EPERM", "EPERM", "ENOSYS"), said
    assert said["ptrace"] == ["EPERM", "EPERM"], said


SIGNALS = """
answers = [tried(os.kill, 1, number) for number in range(1, 65)]
answers += [call(234, 1, 1, number) for number in (9, 11, 19)]
pidfd = os.pidfd_open(1)
answers += [tried(signal.pidfd_send_signal, pidfd, number) for number in (9, 19, 15)]
info = struct.pack("iii4xiI", 9, 0, -1, 0, 0).ljust(128, b"\\0")
answers += [call(129, 1, number, info) for number in (9, 19, 40)]
for value in (0, 1, 2):
    answers.append(call(157, 4, value, 0, 0, 0))
    own = [tried(lambda: open(f"/proc/self/{name}", "rb").read(1)) for name in ("mem", "environ")]
say([answers, own, os.getppid()])
sys.exit(7)
"""


def test_pid_1_outlives_every_signal(attacker: Attacker) -> None:
    """FD-13. All 64 signals by four calls: pid 1 lives and tells how the program ended. A child
    that kills all of its processes, or its group, kills the program: the verdict is its signal."""
    seen = attacker.python(SIGNALS)
    assert (seen.reason, seen.code) == ("exit", 7), seen
    answers, _, parent = json.loads(seen.stdout)
    assert len(answers) == 64 + 3 + 3 + 3 + 3 and parent == 1, answers
    assert answers[:70] == ["ok"] * 70, answers  # allowed, and without effect
    for code in (
        "if os.fork() == 0: os.kill(-1, 9)\nsignal.pause()",
        "if os.fork() == 0: os.kill(0, 9)\nsignal.pause()",
        "os.kill(0, 9)",
        "if os.fork() == 0: os.kill(os.getppid(), 9)\nsignal.pause()",
    ):
        seen = attacker.python(code)
        assert (seen.reason, seen.status["signal"]) == ("signal", 9), (code, seen.status)
    assert attacker.python("say(tried(os.kill, -1, 9))").said == "ESRCH"  # nobody but both of them


PRIORITIES = """
def set(kind, who):
    return tried(os.setpriority, kind, who, 19)
answers = [set(os.PRIO_PROCESS, 1), set(os.PRIO_PGRP, 0), set(os.PRIO_PGRP, 1),
           set(os.PRIO_USER, 0), set(os.PRIO_USER, 1000),
           call(302, 1, 7, bytes(16), 0), call(144, 1, 3, bytes(8)),
           call(142, 1, bytes(8)), call(251, 1, 1, 7)]
mine = [set(os.PRIO_PROCESS, 0), tried(os.sched_setaffinity, 0, {min(os.sched_getaffinity(0))})]
moved = tried(os.sched_setaffinity, 1, {min(os.sched_getaffinity(0))})
for _ in range(25):
    if os.fork() == 0:
        while True:
            pass
say([answers, mine, moved, time.monotonic()])
os._exit(3)
"""


def test_pid_1_keeps_its_priority_and_tells_of_the_end_at_once(attacker: Attacker) -> None:
    """FD-14. Its priority, its limits, its scheduling class: not the job's to change. Beside 25
    processes that spin on one processor with it, the end is told at once."""
    seen = attacker.python(PRIORITIES)
    over = time.monotonic()
    assert (seen.reason, seen.code) == ("exit", 3), seen
    answers, mine, _, ended = json.loads(seen.stdout)
    assert set(answers) <= {"ENOSYS", "EPERM", "EACCES"} and len(answers) == 9, answers
    assert mine == ["ok", "ok"], mine
    assert over - ended < 3, over - ended


PARENTS = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    int made = 0;
    for (int n = 0; n < 60; n++) {
        long pid = syscall(SYS_clone, CLONE_PARENT | (n % 3 ? 0 : SIGCHLD), 0, 0, 0, 0);
        if (pid == 0) { if (n % 4 == 1) _exit(41); setsid(); for (;;) pause(); }
        if (pid > 0) made++;
    }
    usleep(200000);
    printf("%d %d\n", made, (int)getppid());
    fflush(stdout);
    _exit(7);
}
"""


def test_children_given_to_pid_1_change_no_verdict(attacker: Attacker) -> None:
    """FD-16. Children that become pid 1's, with and without a signal at their end, end before the
    program, with another code: the verdict is the program's, and they count as its tasks."""
    seen = attacker.c(PARENTS)
    assert (seen.reason, seen.code) == ("exit", 7), seen
    made, parent = map(int, seen.text.split())
    assert 10 < made < 60 and parent == 1, seen.text  # 45 of them stay; the limit is 32
    assert "tasks" in seen.status["limits_hit"], seen.status


ORPHANS = """
answers = [call(157, 36, 1, 0, 0, 0), call(157, 1, 9, 0, 0, 0)]
for _ in range(5):
    if os.fork() == 0:
        call(157, 36, 1, 0, 0, 0)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(100)
        os._exit(0)
thread = threading.Thread(target=lambda: call(157, 1, 9, 0, 0, 0))
thread.start(), thread.join()
time.sleep(0.2)
say([answers, time.monotonic()])
os._exit(0)
"""


def test_orphans_that_it_has_adopted_die_with_it(attacker: Attacker) -> None:
    """FD-17. It adopts its orphans, and asks to be killed when a parent's thread ends; when it
    ends, the job is over at once and none of them is left (HI2)."""
    answers, ended = attacker.python(ORPHANS).said
    assert answers == ["ok", "ok"], answers
    assert time.monotonic() - ended < 3, time.monotonic() - ended


FULL = """
import fcntl, os, sys, time
for fd in (1, 2):
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    if sys.argv[1:] == ["narrow"]:
        fcntl.fcntl(fd, 1031, 4096)
said, say = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        block, told = b"x" * 4096, False
        while True:
            try:
                os.write(2, block)
            except BlockingIOError:
                if not told:
                    os.write(say, b"x")
                told = True
                fcntl.fcntl(2, fcntl.F_SETFL, os.O_NONBLOCK)
for _ in range(4):
    os.read(said, 1)
os._exit(0)
"""


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_a_full_pipe_that_does_not_block_is_no_fault_of_ours(width: str) -> None:
    """FD-18. The first step leaves writers behind that keep stderr full and without blocking, while
    we do not read at all; the second step's program is not there, and pid 1 has to say so: the job
    ends with 127, not with an error of ours, which would cost nothing."""
    first = ("python3", "-c", FULL, width)

    def stall(stream: str, data: bytes) -> None:
        if not stalled:
            stalled.append(stream)
            time.sleep(1.5)  # we are web's loop: it reads nothing meanwhile

    with box() as ours:
        for program in ("/job/not/there", "/etc/passwd"):
            stalled: list[str] = []
            doing = ours.arun(
                Command((first, (program,)), BASE_ENV), on_output=stall, wall_seconds=10, cap=1000
            )
            ran, seconds, _ = ours.wait(timed(doing))
            assert isinstance(ran, Ran), ran
            verdict = ran.result.verdict
            code = 127 if "not" in program else 126
            assert (verdict.reason, verdict.exit_code, verdict.step) == ("exit", code, 1), verdict
            assert stalled == ["stderr"] and seconds < 8, (stalled, seconds)


LISTENERS = """
import array
tops = ["/usr", "/run", "/var", "/etc", "/dev", "/tmp", "/bin/."]
paths = subprocess.run(["find", *tops, "-type", "s", "-print0"], stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL).stdout.split(b"\\0")[:-1]
answers = [tried(socket.socket(socket.AF_UNIX).connect, path) for path in paths]
found = len(answers)
abstract = tried(socket.socket(socket.AF_UNIX).connect, "\\0" + sys.argv[1])
seen = sys.argv[1] in Path("/proc/self/net/unix").read_text()
own = []
for name in ("/job/left.sock", "\\0left"):
    if os.fork() == 0:
        os.setsid()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen()
        while True:
            listener.accept()[0].recvmsg(1, 100)
    while True:
        client = socket.socket(socket.AF_UNIX)
        if tried(client.connect, name) == "ok":
            break
    client.sendmsg([b"x"], [(1, 1, array.array("i", [0, 1, 2]))])
    own.append(name.strip("\\0"))
say([answers, found, abstract, seen, own])
os._exit(0)
"""


def test_no_socket_of_the_machine_can_be_reached(attacker: Attacker) -> None:
    """FD-19. Everything that is a socket below /usr, /run, /var and so on, and an abstract name on
    which the machine listens: nobody answers. Its own log's end, given to its own listeners, does
    not outlive it, and no socket comes out."""
    name = f"listener-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        seen = attacker.python(LISTENERS, name)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    answers, _, abstract, is_seen, own = seen.said
    assert set(answers) <= {"ECONNREFUSED", "ENOENT", "EACCES"}, answers
    assert (abstract, is_seen) == ("ECONNREFUSED", False), seen.text
    assert own == ["/job/left.sock", "left"], own
    assert [output["path"] for output in seen.status["outputs"]] == [], seen.status["outputs"]


LEFT_BEHIND = (
    IN_FLIGHT
    + """
a, b = socket.socketpair()
name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name.bind("\\0left-behind")
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind(("127.0.0.1", 5555))
memory = [os.memfd_create("keep") for _ in range(3)]
for n in range(240):
    os.write(memory[n % 3], b"z" * (1 << 20))
net = os.open("/proc/self/ns/net", os.O_RDONLY)
root = os.open("/", os.O_PATH)
said, say = os.pipe()
if os.fork() == 0:
    send(a, a, b, name, port, *memory, net, root)
    send(b, a, b)
    os.write(say, b"x")
    time.sleep(100)
os.read(said, 1)
os._exit(0)
"""
)
NEXT = """
import os, socket
table = open("/proc/self/net/unix").read().splitlines()[1:]
name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name.bind("\\0left-behind")
port.bind(("127.0.0.1", 5555))
print(os.readlink("/proc/self/ns/net"), len(table))
"""


def test_what_a_job_left_in_flight_does_not_meet_the_next_one() -> None:
    """FD-20. A name, a port, 240 MB, the network namespace and the root in a ring of sockets; the
    next job, in the same network namespace: name and port are free, no socket is listed, and the
    memory comes back."""
    before = shared_memory()
    mounts = Path("/proc/self/mountinfo").read_text()
    with box() as ours:
        for _ in range(3):
            left = ours.python(LEFT_BEHIND)
            assert (left.reason, left.code) == ("exit", 0), (left.result, left.stderr)
            ran = ours.python(NEXT)
            assert (ran.reason, ran.code) == ("exit", 0), (ran.result, ran.stderr)
            namespace, listed = ran.text.split()
            slots = [link for link in descriptors(ours.process.pid).values() if "net:[" in link]
            assert namespace in slots and listed == "0", ran.text
        assert eventually(lambda: shared_memory() < before + 200 * MIB, 10), shared_memory()
    assert Path("/proc/self/mountinfo").read_text() == mounts


def shared_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


IOCTLS = """
def ioctl(fd, request):
    return call(16, fd, request, ctypes.create_string_buffer(64))
asked = {"FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOASYNC": 0x5452, "FIOSETOWN": 0x8901,
         "SIOCSPGRP": 0x8902, "FIOQSIZE": 0x5460, "TIOCSTI": 0x5412, "TIOCSTI+": (1 << 32) | 0x5412,
         "TIOCLINUX": 0x541C, "TIOCLINUX+": (3 << 32) | 0x541C, "FIONREAD+": (1 << 32) | 0x541B,
         "TIOCSETD": 0x5423, "TIOCCONS": 0x541D, "FIBMAP": 1, "FS_IOC_SETFLAGS": 0x40086602,
         "FICLONE": 0x40049409, "FITRIM": 0xC0185879, "BLKROSET": 0x125D}
say({name: [ioctl(fd, request) for fd in (0, 1, 2)] for name, request in asked.items()})
"""


def test_only_harmless_questions_can_be_asked_of_a_descriptor(attacker: Attacker) -> None:
    """FD-21. Requests that type into terminals, send signals, or change file systems: not there,
    with rubbish in the upper half of the number neither; FIONREAD is."""
    said = attacker.python(IOCTLS).said
    assert len(said) == 18, said
    for name, answers in said.items():
        allowed = name in ("FIONREAD", "FIONBIO", "FIONREAD+")
        expected = {"ok", "ENOTTY"} if allowed else {"ENOSYS", "ENOTTY", "EPERM"}
        assert len(answers) == 3 and set(answers) <= expected, (name, answers)
    assert said["FIONREAD"][1:] == ["ok", "ok"], said
    assert said["TIOCSTI"] == said["TIOCSTI+"] == ["ENOSYS"] * 3, said
