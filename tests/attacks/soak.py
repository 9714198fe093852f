"""`script/soak [MINUTES]`: attacks of every kind mixed at random, from hundreds of addresses, while
an honest client's jobs must go on being right; at the end the server is as small as before.

Nothing here says in which order: `--seed N` repeats one. Exit code 0 when everything held.
"""

import argparse
import asyncio
import os
import random
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.attacks.conftest import GENEROUS
from tests.attacks.invariants import (
    ALONE,
    GROWTH,
    HEALTH_SECONDS,
    KernelLog,
    Neighbour,
    machine,
    size,
)
from tests.journeys.server import Client, Server, cgroups_of, eventually, form, targz
from tests.sandbox.box import job_processes

ADDRESSES = 400
# Until all of them have come, everything was imported, and the allocator has seen its largest
# crowd: from then on what lives in web stays as it is (0.3 MB more of 15 in four minutes).
WARM_UP_MINUTES = 4.0
AT_ONCE = 10
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


class Attack(NamedTuple):
    """A job, and how it may end."""

    program: str
    reasons: tuple[str | None, ...]  # None: completed
    manifest: dict[str, Any]


def attack(program: str, *reasons: str | None, **manifest: Any) -> Attack:
    return Attack(textwrap.dedent(program), reasons or (None,), manifest)


PYTHON = {
    "stubborn fork bomb": attack(
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """, "timeout", timeout=1,
    ),
    "memory": attack("x = bytearray(b'x') * (400 << 20)", "memory", memory_mb=64),
    "memory of children": attack(
        """
        import os
        for _ in range(8):
            if os.fork() == 0:
                x = b'x' * (30 << 20)
                os._exit(0)
        for _ in range(8): os.wait()
        """, "memory", None, "exit", memory_mb=64,
    ),
    "inodes": attack(
        """
        try:
            for n in range(10**6): open(f'/tmp/{n}', 'w').close()
        except OSError: pass
        """
    ),
    "outputs": attack(
        """
        import os
        for n in range(800): open(f'{n}.out', 'w').write('x' * 1000)
        os.symlink('/etc/passwd', 'a'); os.mkfifo('b'); os.symlink('/', 'c')
        """, outputs=["**"],
    ),
    "daemon": attack(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for f in range(3): os.close(f)
                time.sleep(99)
            os._exit(0)
        """
    ),
    "deaf": attack(
        """
        import signal, time
        for s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)
        time.sleep(99)
        """, "timeout", timeout=1,
    ),
    "stopped": attack("import os; os.kill(os.getpid(), 19)", "timeout", timeout=1),
    "descriptors": attack(
        """
        import os
        for _ in range(20):
            if os.fork() == 0: break
        try:
            while True: os.pipe()
        except OSError: pass
        """
    ),
    "sockets in flight": attack(
        """
        import socket
        a, b = socket.socketpair()
        a.setblocking(False)
        try:
            while True:
                c, d = socket.socketpair()
                socket.send_fds(a, [b'x'], [c.fileno(), d.fileno()])
                c.close(); d.close()
        except OSError: pass
        """
    ),
    "flipping": attack(
        """
        import os
        open('real', 'w').write('x')
        os.symlink('/etc/passwd', 'link')
        if os.fork() == 0:
            while True:
                os.rename('real', 'x'); os.rename('link', 'real'); os.rename('x', 'link')
        """, outputs=["*"],
    ),
    "denied calls": attack(
        """
        import ctypes
        call = ctypes.CDLL(None).syscall
        for _ in range(20):
            for number in (101, 155, 165, 272, 298, 310, 321, 323, 425, 428, 435, 442, 999):
                assert call(number, -1, -1, -1, -1, -1, -1) == -1
        """
    ),
    "crash": attack("import ctypes; ctypes.string_at(8)", "signal"),
    "zombies": attack(
        """
        import os
        try:
            for _ in range(5000):
                if os.fork() == 0: os._exit(0)
        except OSError: pass
        """
    ),
    "spinning": attack("while True: pass", "cpu", cpu_seconds=0.3, timeout=10),
    "spinning processes": attack(
        "import os\nfor _ in range(4): os.fork()\nwhile True: pass", "timeout", timeout=1
    ),
    "timers": attack(
        """
        import signal, time
        signal.signal(14, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
        end = time.monotonic() + 1
        while time.monotonic() < end: pass
        """, None, "timeout", timeout=2,
    ),
    "honest": attack("print(sum(range(1000)))"),
}  # fmt: skip
SHELL = {
    "fork bomb": attack(
        "bomb() { bomb | bomb & }; bomb; sleep 9", "timeout", None, "exit", timeout=1
    ),
    "files and memory": attack(
        """
        for f in /tmp/a /dev/shm/b /job/c; do head -c 40000000 /dev/zero > $f; done
        tail -c 30000000 /tmp/a | sort
        """, "memory", None, "exit", memory_mb=64,
    ),
    "log flood": attack("head -c 60000000 /dev/zero & head -c 60000000 /dev/zero >&2; wait"),
    "lines": attack("yes '' | head -n 2000000; yes '' | head -n 2000000 >&2"),
    "honest in shell": attack("echo hello | tr a-z A-Z > out; cat out"),
}  # fmt: skip
JOBS = {**PYTHON, **SHELL}


class Soak:
    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.bombs = (
            targz({"main.py": b"1", "zeros": bytes(150 << 20)}),
            targz({f"{n}": b"" for n in range(20_000)}),
        )
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def client(self) -> Client:
        number = self.random.randrange(ADDRESSES)
        return Client(self.server.port, f"127.50.{number // 250}.{number % 250 + 1}")

    async def work(self, until: float) -> None:
        others = (self.bomb, self.leave, self.malformed, self.cancel, self.delete, self.crowd)
        while time.monotonic() < until:
            name = self.random.choice([*JOBS, *(other.__name__ for other in others)])
            if name in JOBS:
                do: Callable[[], Awaitable[None]] = lambda: self.job(name)  # noqa: B023, E731
            else:
                do = getattr(self, name)
            try:
                await asyncio.wait_for(do(), 120)
            except Exception as error:  # whatever it is: it is told, and the others go on
                self.faults.append(f"{name}: {error!r}"[:500])
            self.done[name] += 1

    async def job(self, name: str) -> None:
        """One of JOBS to its end; now and then it is left to be forgotten, else deleted."""
        client, chosen = self.client(), JOBS[name]
        answer = await self.start(client, chosen)
        if answer is None:
            return
        result = await self.end_of(client, answer["job_id"])
        if result["reason"] not in chosen.reasons:
            self.faults.append(f"{name}: {result['reason']}, {str(result)[:400]}")
        for path in list(result["output_files"])[:2]:
            await client.ask("GET", f"/download/{answer['job_id']}/{path}")
        if self.random.random() < 0.7:
            await self.forget(client, answer)

    async def start(self, client: Client, chosen: Attack) -> dict[str, Any] | None:
        manifest = {"ttl": self.random.randint(1, 5), "timeout": 20, **chosen.manifest}
        is_script = chosen in SHELL.values()
        files = {"run.sh" if is_script else "main.py": chosen.program.encode()}
        if self.random.random() < 0.3:
            files = {"job.tar.gz": targz(files)}
        interpreter = "sh" if is_script else "python3"
        answer = await client.submit(files, interpreter=interpreter, **manifest)
        if answer.status != 200:
            self.faults.append(f"refused: {answer.status} {answer.body[:300]!r}")
            return None
        return dict(answer.json)

    async def end_of(self, client: Client, job: str) -> dict[str, Any]:
        """/status of the job once it has ended, without its logs."""
        while True:  # with ?wait= the logs would come along
            status = await client.status(job)
            if status["status"] in ("completed", "failed"):
                return status
            await asyncio.sleep(0.1)

    async def forget(self, client: Client, answer: dict[str, Any]) -> None:
        bearer = {"Authorization": f"Bearer {answer['owner_token']}"}
        gone = await client.ask("DELETE", f"/jobs/{answer['job_id']}", b"", bearer)
        if gone.status not in (200, 404):  # it may have been forgotten already
            self.faults.append(f"not deleted: {gone.status} {gone.body[:300]!r}")

    async def bomb(self) -> None:
        """An archive with far more content, or far more members, than it looks."""
        await self.refused({"job.tar.gz": self.random.choice(self.bombs)})

    async def malformed(self) -> None:
        choice = self.random.choice(
            ["{", '{"timeout": -1}', "[" * 50_000, '{"interpreter": "x"}', "\xff"]
        )
        kind, body = form({"main.py": b"1"}, choice)
        answer = await self.client().ask("POST", "/submit", body, {"Content-Type": kind})
        if answer.status != 400:
            self.faults.append(f"malformed: {answer.status} {answer.body[:300]!r}")

    async def refused(self, files: dict[str, bytes]) -> None:
        answer = await self.client().submit(files)
        if answer.status not in (400, 413):
            self.faults.append(f"bomb: {answer.status} {answer.body[:300]!r}")

    async def leave(self) -> None:
        """Hang up in the middle of an upload."""
        client = self.client()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", client.port, local_addr=(client.address, 0)
        )
        head = "POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n"
        writer.write(head.encode() + bytes(self.random.randrange(4 << 20)))
        with suppress(OSError):
            await writer.drain()
        writer.transport.abort()

    async def cancel(self) -> None:
        client = self.client()
        answer = await self.start(client, attack("import time\ntime.sleep(60)", timeout=60))
        if answer:
            await asyncio.sleep(self.random.random() / 10)
            ended = await client.cancel(answer["job_id"], answer["owner_token"])
            if ended["reason"] != "cancelled":
                self.faults.append(f"cancel: {str(ended)[:300]}")

    async def delete(self) -> None:
        client = self.client()
        answer = await self.start(client, self.random.choice(list(JOBS.values())))
        if answer:
            await asyncio.sleep(self.random.random() / 5)
            await self.forget(client, answer)

    async def crowd(self) -> None:
        """Many questions about nothing, at once."""
        asks = (self.client().ask("GET", f"/status/job-{n:032x}") for n in range(20))
        for answer in await asyncio.gather(*asks):
            if answer.status != 404:
                self.faults.append(f"crowd: {answer.status}")


def namespaces(pids: dict[str, int]) -> dict[str, int]:
    """How many there are of each kind in the server's processes, and in what they hold open."""
    seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for pid in pids.values():
        for kind in KINDS:
            seen[kind].add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        for link in map(os.readlink, Path(f"/proc/{pid}/fd").iterdir()):
            kind = link.partition(":[")[0]
            if kind in KINDS:
                seen[kind].add(link)
    return {kind: len(links) for kind, links in seen.items()}


async def attack_for(soak: Soak, minutes: float) -> None:
    until = time.monotonic() + minutes * 60
    await asyncio.gather(*(soak.work(until) for _ in range(AT_ONCE)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/soak", allow_abbrev=False)
    parser.add_argument("minutes", nargs="?", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"{arguments.minutes:g} minutes, --seed {arguments.seed}", flush=True)
    server = Server(prefix=ALONE, env=GENEROUS)
    neighbour = Neighbour(server.port)
    log = KernelLog()
    faults = []
    try:
        soak = Soak(server, arguments.seed)
        asyncio.run(attack_for(soak, min(WARM_UP_MINUTES, arguments.minutes / 2)))
        time.sleep(8)
        pids, soak.done = server.pids(), Counter()
        before = (machine(server), size(pids), namespaces(pids))
        neighbour.begin()
        asyncio.run(attack_for(soak, arguments.minutes))
        seen = neighbour.end()
        faults += soak.faults + seen["faults"]
        settled = eventually(lambda: size(pids).is_within(before[1]), 60)
        after = (machine(server), size(pids), namespaces(pids))
        print("attacks:", ", ".join(f"{count} {name}" for name, count in sorted(soak.done.items())))
        print(f"{sum(soak.done.values())} attacks, {seen['jobs']} jobs of the honest neighbour")
        print(f"worst /health {seen['worst_health']:.3f} s")
        print(f"before {before[1]} {before[2]}\nafter  {after[1]} {after[2]}")
        if seen["worst_health"] >= HEALTH_SECONDS:
            faults.append("/health took a second or more")
        if not settled:
            faults.append(f"the server has grown by more than {GROWTH - 1:.0%}")
        if after[0] != before[0]:
            faults.append("the machine changed: mounts, files, interfaces, ipc or sysctls")
        if after[2] != before[2]:
            faults.append("namespaces are left")
        if job_processes() or cgroups_of(pids["keeper"]):
            faults.append(f"left: {job_processes()} {cgroups_of(pids['keeper'])}")
        system = server.get("/stats")["system"]
        if (system["queue_length"], system["active_jobs"]) != (0, 0):
            faults.append(f"jobs are left: {system}")
    finally:
        neighbour.close()
        log.close()
        code = server.end()
    if code:
        faults.append(f"the server ended with {code}: {server.banner}")
    for fault in faults[:50]:
        print("FAULT", fault)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
