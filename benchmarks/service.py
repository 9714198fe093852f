"""How fast the whole service is, from socket to socket: jobs a second, and one job's way there and
back beside the bare interpreter.

    sudo .venv/bin/python benchmarks/service.py [--rounds N] [--seconds S]

A real server, started as the README says, with quotas off. Every job is a sandbox made from
nothing, runs to its end, and its logs and outputs are in the answer (POST /submit?wait=). The
client shares the machine's cores with the server. Bare and sandboxed take turns within one run:
only their ratio means something.
"""

import argparse
import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
WARM_UP = 5
GOALS = "goals: at least 60 jobs a second at 16 at once; at most 3.0 x bare"


@contextmanager
def server() -> Iterator[int]:
    """A server of this checkout; its port."""
    process = subprocess.Popen(
        [str(REPOSITORY / "script/server"), "--port", "0", "--no-quotas"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if ready := re.search(r"ready on http://.*:(\d+)", line):
                yield int(ready[1])
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.communicate()


def job(name: str, code: str) -> bytes:
    """A whole submission, for a connection that stays open."""
    body = json.dumps({"files": {name: code}}).encode()
    return (
        b"POST /submit?wait=30 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body


def bare() -> None:
    """The floor, and the one that is compared to."""
    path = shutil.which("python3", path=ENV["PATH"])
    assert path
    _, status = os.waitpid(os.posix_spawn(path, ["python3", "-c", "pass"], ENV), 0)
    assert status == 0


class Client:
    """One connection of the leanest kind."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, raw: bytes) -> dict[str, object]:
        self._connection.sendall(raw)
        response = http.client.HTTPResponse(self._connection)
        response.begin()
        status: dict[str, object] = json.loads(response.read())
        assert status.get("status") == "completed", status
        return status


def compare(port: int, rounds: int) -> None:
    client, raw = Client(port), job("main.py", "pass")
    took: dict[str, list[float]] = {"bare python3 -c pass": [], "submit and wait": []}
    for turn in range(WARM_UP + rounds):
        for name, run in zip(took, (bare, lambda: client.run(raw)), strict=True):
            started = time.perf_counter()
            run()
            if turn >= WARM_UP:
                took[name].append((time.perf_counter() - started) * 1000)
    print(f"{'milliseconds':24}{'median':>8}{'p10':>8}{'p95':>8}{'x bare':>8}")
    floor = statistics.median(next(iter(took.values())))
    for name, values in took.items():
        values.sort()
        median = statistics.median(values)
        p10, p95 = (values[int(share * (len(values) - 1))] for share in (0.1, 0.95))
        print(f"{name:24}{median:8.1f}{p10:8.1f}{p95:8.1f}{median / floor:8.2f}")


async def throughput(port: int, at_once: int, seconds: float) -> float:
    """Trivial Bash jobs a second, with so many in flight."""
    raw = job("run.sh", ":")
    done = 0
    started = time.perf_counter()

    async def one_after_another() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length, head
            body = await reader.readexactly(int(length[1]))
            assert b'"status":"completed"' in body, body
            done += 1
        writer.close()

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return done / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=100, help="turns of each (default 100)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each throughput (default 5)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("Sandboxes are made as root; start it with sudo.", file=sys.stderr)
        return 2
    with server() as port:
        print(
            f"{os.cpu_count()} cores, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}, "
            f"Python {sys.version.split()[0]}, {arguments.rounds} rounds; {GOALS}\n"
        )
        compare(port, arguments.rounds)
        print(f"\n{'bash, at once':24}{'a second':>8}")
        for at_once in (1, 4, 16, 64):
            rate = asyncio.run(throughput(port, at_once, arguments.seconds))
            print(f"{at_once:<24}{rate:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
