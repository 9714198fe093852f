"""How long it takes to run one small command: bare, in bubblewrap, and alone in our sandbox.

    sudo .venv/bin/python benchmarks/launch.py [--rounds N] [--seconds S] [--rr]

The candidates take turns within one run, since a machine drifts by tens of percent in minutes:
only the ratios of one run mean something. Ours is the launcher by itself, spoken to by the
leanest client there can be: every sandbox is cold, made from nothing and thrown away. bubblewrap
sets no resource limits and filters no system calls; ours does both. Ours ends with the launcher's
word that the sandbox is dead and its usage read; outputs are not collected.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from sandbox import cgroups, channel  # noqa: E402
from sandbox.model import Limits  # noqa: E402
from sandbox.runtimes import BASE_ENV  # noqa: E402

COMMANDS = (("true",), ("bash", "-c", ":"), ("python3", "-c", "pass"), ("node", "-e", "0"))
WARM_UP = 5
BUBBLEWRAP = (
    "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib "
    "--symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --die-with-parent"
).split()

Argv = tuple[str, ...]


def spawn(argv: Sequence[str]) -> int:
    """Start a command with a clean environment and nothing on its standard descriptors."""
    path = shutil.which(argv[0], path=BASE_ENV["PATH"])
    assert path is not None, f"{argv[0]} is not here"
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    return os.posix_spawn(path, argv, BASE_ENV, file_actions=quiet)


def bare(argv: Argv) -> None:
    """The floor: what the machine needs to start the program and see it end."""
    _, status = os.waitpid(spawn(argv), 0)
    assert status == 0, f"{argv} ended with {status}"


def bubblewrap(argv: Argv) -> None:
    """The peer."""
    bare((*BUBBLEWRAP, *argv))


class Ours:
    """A launcher and the leanest client: no event loop, no pipes read, no outputs."""

    def __init__(self) -> None:
        self._parents = cgroups.prepare(cgroups.name_of_this_process())
        self._launcher, theirs = channel.pair()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "sandbox.launcher",
             str(theirs.fileno()), json.dumps(self._parents)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        hello, _ = channel.receive(self._launcher)
        assert hello["op"] == "hello", hello
        self.walls = hello["walls"]
        self._nothing = channel.memfd("nothing", b"")
        self._last_id = 0

    def close(self) -> None:
        self._launcher.close()
        self._process.wait(10)
        cgroups.remove(self._parents)

    def launch(self) -> None:
        self._last_id += 1
        limits = Limits()._asdict()
        message = {"op": "launch", "id": self._last_id, "kind": "run", "limits": limits}
        channel.send(self._launcher, message)

    def order(self, fds: list[int], argv: Argv) -> int:
        """Give a launched sandbox its orders; its control socket."""
        control, *others = fds
        orders = {"form": "loose", "members": [], "steps": [argv], "env": BASE_ENV}
        orders["patterns"] = []
        memfd = channel.memfd("orders", json.dumps(orders).encode())
        with socket.socket(fileno=os.dup(control)) as end:
            channel.send(end, {"orders": True}, (memfd, self._nothing, self._nothing))
        for fd in (memfd, *others):
            os.close(fd)
        return control

    def hear(self) -> tuple[channel.Message, list[int]]:
        message, fds = channel.receive(self._launcher, 4)
        assert message["op"] != "failed", message
        return message, fds

    def finish(self, id: int, control: int) -> None:
        """The sandbox has ended: check that the program did what it was asked, let go."""
        channel.send(self._launcher, {"op": "release", "id": id})
        with socket.socket(fileno=control) as end:
            said: channel.Message = {}
            with suppress(channel.ProtocolError):
                while True:
                    said |= channel.receive(end)[0]
        assert said.get("exit") == 0, said

    def __call__(self, argv: Argv) -> None:
        self.launch()
        message, fds = self.hear()
        control = self.order(fds, argv)
        message, _ = self.hear()
        self.finish(message["id"], control)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def latencies(
    candidates: dict[str, Callable[[Argv], None]], argv: Argv, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each candidate, taking turns."""
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(WARM_UP + rounds):
        for name, run in candidates.items():
            started = time.perf_counter()
            run(argv)
            if turn >= WARM_UP:
                took[name].append((time.perf_counter() - started) * 1000)
    return took


def throughput_of_processes(argv: Argv, at_once: int, seconds: float) -> float:
    """Commands a second, with so many in flight."""
    started = time.perf_counter()
    flying, done = 0, 0
    while (running := time.perf_counter() - started < seconds) or flying:
        while running and flying < at_once:
            spawn(argv)
            flying += 1
        os.wait()
        flying, done = flying - 1, done + 1
    return done / (time.perf_counter() - started)


def throughput_of_ours(ours: Ours, argv: Argv, at_once: int, seconds: float) -> float:
    """Sandboxes a second, with so many in flight."""
    started = time.perf_counter()
    controls: dict[int, int] = {}
    done = 0
    for _ in range(at_once):
        ours.launch()
    flying = at_once
    while flying:
        message, fds = ours.hear()
        if message["op"] == "launched":
            controls[message["id"]] = ours.order(fds, argv)
            continue
        if time.perf_counter() - started < seconds:
            ours.launch()
        else:
            flying -= 1
        ours.finish(message["id"], controls.pop(message["id"]))
        done += 1
    return done / (time.perf_counter() - started)


@contextmanager
def real_time() -> Iterator[None]:
    """SCHED_RR for us and all that we start: no other work of the machine is in the way."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def machine(walls: dict[str, object]) -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = " ".join(f"{name} {version}" for name, version in walls["cgroup"].items())  # type: ignore[attr-defined]
    bwrap = subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"{os.cpu_count()} cores ({model}), Linux {os.uname().release}, cgroups: {versions}, "
        f"load {os.getloadavg()[0]:.1f}, {bwrap or 'no bubblewrap'}, "
        f"Python {sys.version.split()[0]}"
    )


def compare(ours: Ours, rounds: int, seconds: float) -> None:
    candidates: dict[str, Callable[[Argv], None]] = {"bare": bare}
    if shutil.which("bwrap", path=BASE_ENV["PATH"]):
        candidates["bubblewrap"] = bubblewrap
    candidates["ours, cold"] = ours
    print(f"\n{'milliseconds':22}{'median':>8}{'p10':>8}{'p95':>8}{'p95/p10':>9}"
          f"{'x bare':>8}{'x bubblewrap':>14}")  # fmt: skip
    for argv in COMMANDS:
        if shutil.which(argv[0], path=BASE_ENV["PATH"]) is None:
            print(f"{' '.join(argv)}: not on this machine")
            continue
        print(" ".join(argv))
        took = latencies(candidates, argv, rounds)
        medians = {name: statistics.median(values) for name, values in took.items()}
        for name, values in took.items():
            p10, p95 = percentile(values, 0.1), percentile(values, 0.95)
            peer = medians.get("bubblewrap")
            print(
                f"  {name:20}{medians[name]:8.2f}{p10:8.2f}{p95:8.2f}{p95 / p10:9.1f}"
                f"{medians[name] / medians['bare']:8.2f}"
                + (f"{medians[name] / peer:14.2f}" if peer else f"{'':>14}")
            )
    print(f"\n{'true, a second':22}{'1 at once':>10}{'4 at once':>10}")
    for name in candidates:
        rates = []
        for at_once in (1, 4):
            if name == "bare":
                rates.append(throughput_of_processes(("true",), at_once, seconds))
            elif name == "bubblewrap":
                rates.append(throughput_of_processes((*BUBBLEWRAP, "true"), at_once, seconds))
            else:
                rates.append(throughput_of_ours(ours, ("true",), at_once, seconds))
        print(f"  {name:20}" + "".join(f"{rate:10.0f}" for rate in rates))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=60, help="turns of each (default 60)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each throughput (default 3)")
    parser.add_argument("--rr", action="store_true", help="under SCHED_RR, where that is possible")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("Sandboxes are made as root; start it with sudo.", file=sys.stderr)
        return 2
    if arguments.rr:
        with real_time():
            if measured(arguments, note="under SCHED_RR"):
                return 0
        print("SCHED_RR is not possible here: a real-time task cannot be attached to a cgroup of "
              "the cpu controller, version 1. Going on at normal priority.")  # fmt: skip
    measured(arguments, note="at normal priority")
    return 0


def measured(arguments: argparse.Namespace, note: str) -> bool:
    """Print everything; False when a sandbox cannot be made at this priority."""
    ours = Ours()
    try:
        try:
            ours(("true",))
        except AssertionError as error:
            if os.sched_getscheduler(0) == os.SCHED_RR and "cgroup attach" in str(error):
                return False
            raise
        print(f"{machine(ours.walls)}; {arguments.rounds} rounds {note}")
        compare(ours, arguments.rounds, arguments.seconds)
    finally:
        ours.close()
    return True


if __name__ == "__main__":
    sys.exit(main())
