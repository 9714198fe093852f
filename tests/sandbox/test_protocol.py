"""What web can say to the launcher, spoken by hand: what is asked is clamped, what is nonsense
ends the connection and every sandbox, and the launcher goes by itself.
"""

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import cgroups, channel
from sandbox.launcher import PIPE_BYTES
from sandbox.model import MIB, Limits
from sandbox.runtimes import BASE_ENV
from tests.sandbox.box import (
    LAUNCHER,
    REPOSITORY,
    job_processes,
    launcher_descriptors,
    pids_in,
    wait_until,
)


class Wire:
    """A launcher, and our end of its socket."""

    def __init__(self, listens: bool = True) -> None:
        """Without `listens` our end is closed before the launcher is ready."""
        name = f"{cgroups.name_of_this_process()}-{time.monotonic_ns()}"
        self.parents = cgroups.prepare(name)
        self.web, theirs = channel.pair()
        self.web.settimeout(5)
        self.process = subprocess.Popen(
            [*LAUNCHER, str(theirs.fileno()), json.dumps(self.parents)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
                 "PYTHONPATH": str(REPOSITORY)},
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        self.held: list[int] = []
        if listens:
            assert self.hear()["op"] == "hello"
        else:
            self.web.close()

    def close(self) -> None:
        self.web.close()
        for fd in self.held:
            os.close(fd)
        try:
            self.process.wait(5)
        finally:
            self.process.kill()
            assert self.process.stderr is not None
            self.process.stderr.close()
            cgroups.remove(self.parents)

    def say(self, **message: Any) -> None:
        channel.send(self.web, message)

    def hear(self) -> channel.Message:
        message, fds = channel.receive(self.web, channel.MAX_DESCRIPTORS)
        self.held += fds
        return {**message, "fds": fds}

    def launch(self, id: int, kind: str = "run", **more: Any) -> socket.socket:
        """A sandbox's control socket."""
        self.say(op="launch", id=id, kind=kind, **more)
        answer = self.hear()
        assert answer["op"] == "launched" and answer["id"] == id, answer
        control = socket.socket(fileno=answer["fds"][0])
        self.held.remove(answer["fds"][0])
        control.settimeout(5)
        return control

    def waiting(self, id: int, kind: str = "run", **more: Any) -> None:
        """A sandbox that waits for its orders."""
        self.held.append(self.launch(id, kind, **more).detach())

    def run(self, control: socket.socket, *argv: str) -> None:
        orders = {"form": "loose", "members": [], "steps": [argv], "env": BASE_ENV}
        orders["patterns"] = []
        fds = channel.memfd("o", json.dumps(orders).encode()), channel.memfd("empty", b"")
        channel.send(control, {"orders": True}, (*fds, fds[1]))
        for fd in fds:
            os.close(fd)

    def sleeper(self, id: int) -> None:
        """A sandbox in which a program runs that does not end."""
        with self.launch(id) as control:
            self.run(control, "sleep", "600")
            while "started" not in channel.receive(control)[0]:
                pass
            self.held.append(control.detach())

    def limit(self, id: int, controller: str, v1: str, v2: str) -> str:
        """The text of a cgroup file of a sandbox."""
        for parent in self.parents:
            if controller in parent.controllers:
                file = v1 if parent.version == 1 else v2
                return Path(parent.path, str(id), file).read_text().strip()
        raise AssertionError(controller)

    def limits(self, id: int) -> tuple[int, int, float]:
        """Memory, tasks (ours included) and cpus as the kernel has them."""
        memory = int(self.limit(id, "memory", "memory.limit_in_bytes", "memory.max"))
        tasks = int(self.limit(id, "pids", "pids.max", "pids.max"))
        quota = self.limit(id, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
        return memory, tasks, int(quota) / 100_000

    def occupy(self, id: int) -> bytes:
        """A launch that will fail: a cgroup of its name is there already."""
        Path(self.parents[0].path, str(id)).mkdir(exist_ok=True)
        return packet(op="launch", id=id, kind="run")

    def gone(self, seconds: float = 1.0) -> bool:
        """Whether the launcher went by itself, in time, and took everything along."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        assert code == 0 and said == b"", said.decode()
        return wait_until(lambda: not job_processes() and not self.pids(), 1.0)

    def pids(self) -> list[int]:
        return [
            pid
            for parent in self.parents
            for folder in Path(parent.path).iterdir()
            for pid in pids_in(folder)
        ]


@pytest.fixture
def wire() -> Iterator[Wire]:
    before = sorted(os.listdir("/proc/self/fd"))
    wire = Wire()
    try:
        yield wire
    finally:
        wire.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


# --- clamps ----------------------------------------------------------------------------------

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.core
@pytest.mark.parametrize("much", [10**18, 1e300, float("inf"), 10**400])
def test_more_than_the_machine_has_is_clamped(wire: Wire, much: float) -> None:
    wire.waiting(1, limits=dict.fromkeys(Limits._fields, much))
    memory, tasks, cpus = wire.limits(1)
    assert memory <= MEMORY and tasks == 4097 and cpus == os.cpu_count()


@pytest.mark.parametrize("little", [0, -1, -1e300, float("-inf"), -(10**400), 1e-9])
def test_less_than_anything_is_clamped(wire: Wire, little: float) -> None:
    asked = dict.fromkeys(Limits._fields, little) | {"wall_seconds": 60}
    wire.waiting(1, limits=asked)
    assert wire.limits(1) == (4 * MIB, 2, 0.01)


def test_no_limits_are_the_defaults(wire: Wire) -> None:
    wire.waiting(1)
    assert wire.limits(1) == (512 * MIB, 33, 1.0)


def test_no_time_is_little_time_and_not_all_of_it(wire: Wire) -> None:
    wire.waiting(1, limits={"wall_seconds": -1})
    answer = wire.hear()
    assert (answer["op"], answer["cause"]) == ("ended", "timeout")


@pytest.mark.core
@pytest.mark.parametrize("kind", ["inspect", "collect"])
def test_our_own_tasks_have_limits_of_their_own(wire: Wire, kind: str) -> None:
    with wire.launch(1) as control:
        wire.run(control, "true")
        assert wire.hear()["op"] == "ended"
    asked = {"memory_bytes": 10**18, "tasks": 1000, "disk_bytes": 10 * MIB}
    wire.waiting(2, kind, limits=asked, of=1)
    memory, tasks, cpus = wire.limits(2)
    assert memory <= (64 + 10) * MIB and tasks == 5 and cpus == 1.0


def test_the_pipes_are_of_the_promised_size(wire: Wire) -> None:
    wire.waiting(1)
    assert [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in wire.held[:2]] == [PIPE_BYTES] * 2


# --- hand-over -------------------------------------------------------------------------------


@pytest.mark.core
def test_limits_at_hand_over_are_in_force_and_the_program_runs(wire: Wire) -> None:
    with wire.launch(1, limits={"memory_bytes": 32 * MIB, "tasks": 3, "cpus": 0.5}) as control:
        assert channel.receive(control)[0] == {"ready": True}
        assert wire.limits(1) == (32 * MIB, 4, 0.5)
        new = {"memory_bytes": 256 * MIB, "tasks": 9, "cpus": 1.5, "wall_seconds": 20}
        wire.say(op="limits", id=1, limits=new)
        assert wire.hear() == {"op": "limited", "id": 1, "fds": []}
        assert wire.limits(1) == (256 * MIB, 10, min(1.5, os.cpu_count() or 1))
        wire.run(control, "sh", "-c", "exit 7")
        assert channel.receive(control)[0] == {"started": True}
        assert channel.receive(control)[0] == {"exit": 7 << 8, "step": 0}
    assert wire.hear()["cause"] is None


@pytest.mark.core
def test_limits_can_also_become_less(wire: Wire) -> None:
    wire.waiting(1)
    wire.say(op="limits", id=1, limits={"memory_bytes": 24 * MIB, "tasks": 1, "cpus": 0.1})
    assert wire.hear()["op"] == "limited"
    assert wire.limits(1) == (24 * MIB, 2, 0.1)


def test_limits_at_hand_over_are_clamped_too(wire: Wire) -> None:
    wire.waiting(1)
    wire.say(op="limits", id=1, limits=dict.fromkeys(Limits._fields, float("inf")))
    assert wire.hear()["op"] == "limited"
    memory, tasks, cpus = wire.limits(1)
    assert memory <= MEMORY and tasks == 4097 and cpus == os.cpu_count()


@pytest.mark.core
def test_the_clocks_start_at_hand_over(wire: Wire) -> None:
    started = time.monotonic()
    with wire.launch(1) as control:
        for id in range(2, 6):  # the sandbox waits while others live and die
            with wire.launch(id) as other:
                wire.run(other, "true")
                assert wire.hear()["id"] == id
        handed_over = time.monotonic()
        wire.say(op="limits", id=1, limits={"wall_seconds": 0.3})
        assert wire.hear()["op"] == "limited"
        wire.run(control, "sleep", "600")
        answer = wire.hear()
        ended = time.monotonic()
    assert (answer["op"], answer["id"], answer["cause"]) == ("ended", 1, "timeout")
    wall = answer["usage"][2] / 1e6
    assert 0.3 <= wall <= ended - handed_over < ended - started


def test_a_deadline_that_was_close_is_forgotten_at_hand_over(wire: Wire) -> None:
    with wire.launch(1, limits={"wall_seconds": 0.5}) as control:
        wire.say(op="limits", id=1, limits={"wall_seconds": 20})
        assert wire.hear()["op"] == "limited"
        wire.run(control, "sleep", "1")
        answer = wire.hear()
    assert answer["cause"] is None and answer["usage"][2] >= 1_000_000


# --- what is late or unknown, and harmless ---------------------------------------------------


def test_words_about_what_has_ended_are_ignored(wire: Wire) -> None:
    wire.say(op="kill", id=99, cause="cancelled")
    wire.say(op="limits", id=99, limits={})
    wire.say(op="release", id=99)
    with wire.launch(1) as control:
        wire.run(control, "true")
        assert wire.hear()["op"] == "ended"
    for _ in range(2):
        wire.say(op="kill", id=1, cause="cancelled")
        wire.say(op="limits", id=1, limits={})
        wire.say(op="release", id=1)
    wire.waiting(1)  # nothing was answered, and the number is free again


def test_a_cause_is_cut_and_the_first_one_stands(wire: Wire) -> None:
    wire.sleeper(1)
    wire.say(op="kill", id=1, cause="x" * 10_000)
    wire.say(op="kill", id=1, cause="second")
    assert wire.hear()["cause"] == "x" * 32


def test_a_launch_that_fails_is_answered_and_leaves_nothing(wire: Wire) -> None:
    descriptors = launcher_descriptors(wire.process.pid)
    wire.web.send(wire.occupy(7))
    answer = wire.hear()
    assert (answer["op"], answer["id"], answer["step"]) == ("failed", 7, "cgroup")
    assert launcher_descriptors(wire.process.pid) == descriptors
    wire.waiting(1)


# --- what ends everything --------------------------------------------------------------------


def packet(**message: Any) -> bytes:
    return json.dumps(message).encode()


def launch(**message: Any) -> bytes:
    return packet(**{"op": "launch", "id": 5, "kind": "run", **message})


NONSENSE: dict[str, bytes] = {
    "garbage": b"\xff\x00garbage",
    "half of a message": b'{"op": "launch", "id": 5',
    "a list": b"[1]",
    "nested deeply": b"[" * 50_000,
    "too long": b'{"op": "kill", "id": 1}'.ljust(channel.MAX_BYTES + 1),
    "empty": b"",
    "no operation": packet(id=5),
    "an unknown operation": packet(op="mount", id=5),
    "an operation that is a list": packet(op=["launch"], id=5),
    "no id": packet(op="kill"),
    "an id that is a string": packet(op="kill", id="1"),
    "an id that is null": packet(op="release", id=None),
    "an id that is a fraction": packet(op="kill", id=1.0),
    "an id that is a path": launch(id="../../x"),
    "an id below all": launch(id=-1),
    "an id of three hundred digits": launch(id=10**300),
    "no kind": packet(op="launch", id=5),
    "an unknown kind": launch(kind="shell"),
    "a kind that is a list": launch(kind=["run"]),
    "a kind that is an object": launch(kind={}),
    "an id in use": launch(id=1),
    "an id that ended and is kept": launch(id=2),
    "collect of an unknown run": launch(kind="collect", of=77),
    "collect of a running run": launch(kind="collect", of=1),
    "collect of nothing": launch(kind="collect"),
    "collect of a list": launch(kind="collect", of=[2]),
    "limits that are a list": launch(limits=[]),
    "limits that are null": launch(limits=None),
    "unknown limits": launch(limits={"gpus": 1}),
    "a limit that is NaN": launch(limits={"cpus": float("nan")}),
    "a limit that is true": launch(limits={"tasks": True}),
    "a limit that is a string": launch(limits={"memory_bytes": "1000000"}),
    "a limit that is null": launch(limits={"wall_seconds": None}),
    "a limit that is a list": launch(limits={"wall_seconds": [1]}),
    "a limit of five thousand digits": b'{"op":"launch","id":5,"kind":"run","limits":{"tasks":'
    + b"9" * 5000 + b"}}",
    "hand-over with NaN": packet(op="limits", id=1, limits={"memory_bytes": float("nan")}),
    "hand-over with true": packet(op="limits", id=1, limits={"cpus": True}),
    "hand-over without limits": packet(op="limits", id=1),
    "hand-over of nobody with NaN": packet(op="limits", id=9, limits={"cpus": float("nan")}),
}  # fmt: skip


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_ends_the_launcher_and_all_sandboxes(wire: Wire, case: str) -> None:
    wire.sleeper(1)
    with wire.launch(2) as control:
        wire.run(control, "true")
        assert wire.hear()["op"] == "ended"
    wire.waiting(3, "inspect")
    wire.web.send(NONSENSE[case])
    assert wire.gone()


def test_a_descriptor_that_nobody_asked_for_ends_the_launcher(wire: Wire) -> None:
    wire.sleeper(1)
    channel.send(wire.web, {"op": "kill", "id": 99}, (0,))
    assert wire.gone()


@pytest.mark.core
def test_a_web_that_closes_its_end_takes_everything_along(wire: Wire) -> None:
    for id in range(1, 4):
        wire.sleeper(id)
    wire.web.close()
    assert wire.gone()


def test_a_web_that_is_gone_before_the_launcher_is_ready_is_no_fault() -> None:
    wire = Wire(listens=False)
    try:
        assert wire.process.stderr is not None
        assert (wire.process.wait(20), wire.process.stderr.read()) == (0, b"")
    finally:
        wire.close()


def test_a_web_that_never_reads_is_as_good_as_gone(wire: Wire) -> None:
    wire.sleeper(1)
    refused = wire.occupy(7)  # the cheapest answer
    wire.web.settimeout(20)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(200_000):
            wire.web.send(refused)
    assert wire.gone()
