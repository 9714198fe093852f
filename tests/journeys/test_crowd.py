"""Many clients at once: whoever asks for much takes nothing from the others, and what the crowd
has used is given back. Each client has an address of its own in 127.0.0.0/8."""

import asyncio
import hashlib
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from tests.journeys.server import (
    Answer,
    Client,
    Memory,
    Server,
    Watch,
    cgroups_of,
    eventually,
    form,
    memory_of,
    parse,
    targz,
    watching,
)
from tests.sandbox.box import job_processes

T = TypeVar("T")

MB = 1_000_000
MIB = 1 << 20

CLOCK = {"run.sh": b"echo $EPOCHREALTIME"}  # when it was started, by the clock of the machine
SLEEPER = {"run.sh": b"echo up; sleep 50"}
BURNER = {"run.sh": b"while :; do :; done"}

HEALTH_SECONDS = 0.3


@contextmanager
def serving(*options: str, **settings: object) -> Iterator[Server]:
    server = Server(
        *options, env={f"SANDRUN_{name.upper()}": value for name, value in settings.items()}
    )
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


def addresses(count: int) -> list[str]:
    return [f"127.{20 + i // 250}.{i % 250}.{1 + i % 7}" for i in range(count)]


_ASK_FOR_HEALTH = """
import http.client, select, sys, time
while not select.select([sys.stdin], [], [], 0.01)[0]:
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    print(time.monotonic() - started, flush=True)
"""


@contextmanager
def healthy(server: Server) -> Iterator[list[float]]:
    """Ask for /health all the while; at the end, the seconds that each answer took. In a process
    of its own, since delays of this one are not the server's."""
    times: list[float] = []
    asking = subprocess.Popen(
        [sys.executable, "-c", _ASK_FOR_HEALTH, str(server.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert asking.stdout and asking.stdout.readline()
        yield times
    finally:
        said, _ = asking.communicate("enough\n", timeout=30)
        assert asking.returncode == 0, "/health failed"
        times += map(float, said.split())


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Begun(NamedTuple):
    """An accepted job and whose it is."""

    client: Client
    job: str
    owner_token: str

    async def cancel(self) -> dict[str, Any]:
        return await self.client.cancel(self.job, self.owner_token)

    async def started(self) -> float:
        """When a CLOCK began; it must have ended well."""
        status = await self.client.finish(self.job)
        assert (status["status"], status["reason"]) == ("completed", None), status
        return float(status["logs"]["stdout"])


async def begin(client: Client, files: Mapping[str, bytes], **manifest: Any) -> Begun:
    answer = await client.submit(files, **manifest)
    assert answer.status == 200, answer
    return Begun(client, answer.json["job_id"], answer.json["owner_token"])


@asynccontextmanager
async def every_slot_taken(server: Server, slots: int) -> AsyncIterator[None]:
    """Nothing starts inside of this block: strangers' jobs are running."""
    strangers = [Client(server.port, f"127.9.0.{i + 1}") for i in range(slots)]
    taken = [await begin(stranger, SLEEPER) for stranger in strangers]
    for one in taken:
        await until(lambda one=one: _is(one, "running"))
    try:
        yield
    finally:
        await asyncio.gather(*(one.cancel() for one in taken))


async def _is(begun: Begun, state: str) -> bool:
    return (await begun.client.status(begun.job))["status"] == state


async def few_at_once(questions: Iterable[Awaitable[T]]) -> list[T]:
    """Their answers; our curiosity is not to be the crowd."""
    places = asyncio.Semaphore(8)

    async def ask(question: Awaitable[T]) -> T:
        async with places:
            return await question

    return await asyncio.gather(*map(ask, questions))


async def position_of(begun: Begun) -> int:
    return int((await begun.client.status(begun.job))["queue_position"])


# --- the line --------------------------------------------------------------------------------


def test_300_jobs_of_100_clients_share_the_server_evenly_and_know_their_positions() -> None:
    slots, clients, each = 4, 100, 3
    jobs = clients * each
    inexact = slots + 0.05 * jobs  # of some that run at once, a later one may look at its clock
    # sooner; by how much is up to the machine. That the line itself is exact is the next test.

    async def crowd(server: Server) -> None:
        async with every_slot_taken(server, slots):
            submissions = [
                begin(client, CLOCK)
                for client in (Client(server.port, address) for address in addresses(clients))
                for _ in range(each)
            ]
            begun = await asyncio.gather(*submissions)
            positions = await few_at_once(position_of(one) for one in begun)
        sampling = asyncio.create_task(sample(begun))
        starts = await asyncio.gather(*(one.started() for one in begun))
        samples = await sampling

        assert sorted(positions) == list(range(1, jobs + 1))
        order = sorted(range(jobs), key=starts.__getitem__)
        for rank, i in enumerate(order, 1):
            assert abs(positions[i] - rank) <= inexact, (positions[i], rank)
        assert len(samples) > 20
        for begun_at, asked, answered, position in samples:
            between = [s for s in starts if asked < s <= starts[begun_at]]
            most, least = len(between), sum(s > answered for s in between)
            assert least - inexact <= position <= most + inexact, (least, position, most)

        for part in (1 / 3, 1 / 2, 2 / 3):
            over = order[: int(jobs * part)]
            fair = len(over) / clients
            shares = Counter(begun[i].client.address for i in over)
            for address in addresses(clients):
                assert abs(shares[address] - fair) <= max(1, 0.2 * fair), (part, shares)

    async def sample(begun: list[Begun]) -> list[tuple[int, float, float, int]]:
        """(which job, before, after, its position) until nobody waits any more."""
        found, waiting = [], list(range(len(begun)))
        while waiting:
            i = random.choice(waiting)
            asked = time.time()
            position = await position_of(begun[i])
            if position:
                found.append((i, asked, time.time(), position))
            else:
                waiting.remove(i)
        return found

    with serving(concurrent_jobs=each, slots=slots) as server:
        asyncio.run(crowd(server))
        assert eventually(lambda: not job_processes() and not cgroups_of(server.process.pid), 2)


@pytest.mark.parametrize("wait", [60, 0], ids=["and wait for the answer", "and ask later"])
def test_health_is_answered_quickly_while_100_clients_send_300_jobs(wait: int) -> None:
    async def crowd(server: Server) -> None:
        await asyncio.gather(
            *(one(Client(server.port, a), f"{a}/{n}") for a in addresses(100) for n in range(3))
        )

    async def one(client: Client, word: str) -> None:
        answer = await client.submit({"run.sh": b"echo $1"}, wait=wait, args=[word])
        ended = answer.json if wait else await client.finish(answer.json["job_id"])
        assert ended["status"] == "completed", answer
        assert ended["logs"]["stdout"] == f"{word}\n"

    with serving(concurrent_jobs=3) as server:
        with healthy(server) as times:
            asyncio.run(crowd(server))
        print(f"/health: {len(times)} times, {max(times):.3f} s at most")
        assert len(times) > 20
        assert max(times) < HEALTH_SECONDS, f"/health took {max(times):.3f} s"


def test_64_clients_wait_one_turn_beside_one_that_sends_500_jobs() -> None:
    """By the order of starts, which with one slot is exact."""

    async def crowd(server: Server) -> None:
        heavy = Client(server.port, "127.66.6.6")
        async with every_slot_taken(server, 1):
            flood = [await begin(heavy, CLOCK) for _ in range(500)]
            others = await asyncio.gather(
                *(begin(Client(server.port, address), CLOCK) for address in addresses(64))
            )
            waiting = [*flood, *others]
            positions = await few_at_once(position_of(one) for one in waiting)
            assert sorted(positions) == list(range(1, 565))
        starts = await asyncio.gather(*(other.started() for other in others))
        first, second = [await flood[n].started() for n in (0, 1)]
        assert first < min(starts) and max(starts) < second, "each one's first job comes first"

        # Whoever comes while the flood is being served waits for the job that runs, and for one
        # that is owed the same turn.
        late = [await arrive(server, f"127.77.0.{n}") for n in range(1, 9)]
        begun = [await one.started() for one in flood[: 30 + 64]]
        for asked, started in late:
            assert sum(asked < b < started for b in begun) <= 2

        placed = [*positions[: len(begun)], *positions[500:]]
        order = [place for _, place in sorted(zip([*begun, *starts], placed, strict=True))]
        assert order == sorted(order), "they start in the order of their positions"
        for one in reversed(flood):
            if (await one.cancel())["status"] == "completed":
                break

    async def arrive(server: Server, address: str) -> tuple[float, float]:
        asked = time.time()
        return asked, await (await begin(Client(server.port, address), CLOCK)).started()

    with serving("--no-quotas", slots=1) as server:
        asyncio.run(crowd(server))


# --- quotas ----------------------------------------------------------------------------------


def test_the_cpu_quota_ends_all_jobs_of_one_client_and_lets_it_in_again_when_it_said() -> None:
    async def crowd(server: Server) -> None:
        greedy, other = Client(server.port, "127.52.0.1"), Client(server.port, "127.52.0.2")
        bystander = await begin(other, SLEEPER)
        started = time.monotonic()
        burners = await asyncio.gather(*(begin(greedy, BURNER, timeout=60) for _ in range(2)))
        ended = await asyncio.gather(*(greedy.finish(one.job) for one in burners))
        took = time.monotonic() - started
        for status in ended:
            assert (status["status"], status["reason"]) == ("failed", "cpu_quota"), status
        used = sum(status["cpu_seconds"] for status in ended)
        refilled = took / 6
        assert 9.5 <= used <= 10 + refilled + 1.0, (used, took)

        answer = await greedy.submit(CLOCK)
        seconds = int(answer.headers["retry-after"])
        assert (answer.status, answer.json["reason"]) == (429, "cpu_quota"), answer
        assert 1 <= seconds == answer.json["retry_after"] <= 15
        told = time.monotonic()

        assert await _is(bystander, "running")
        assert (await other.submit(CLOCK, wait=20)).json["status"] == "completed"

        await asyncio.sleep(told + seconds - 1.5 - time.monotonic())
        assert (await greedy.submit(CLOCK)).status == 429, "not sooner"
        await asyncio.sleep(told + seconds - time.monotonic())
        assert (await greedy.submit(CLOCK, wait=20)).json["status"] == "completed"
        assert await _is(bystander, "running")

    with serving(concurrent_jobs=2, cpu_seconds_per_minute=10) as server:
        asyncio.run(crowd(server))


# --- memory ----------------------------------------------------------------------------------


def _upload_head(size: int, script: str, boundary: str = "b0undary") -> bytes:
    """The head of a request and of its parts: a script, and a file of `size` bytes to come."""
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="run.sh"\r\n\r\n'
        f"{script}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="data"\r\n\r\n'
    )
    length = len(parts) + size + len(_upload_tail(boundary))
    return (
        "POST /submit?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {length}\r\n\r\n{parts}"
    ).encode()


def _upload_tail(boundary: str = "b0undary") -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()


_ZEROS = memoryview(bytes(256 * 1024))


async def upload(
    port: int, address: str, size: int, too_much: Callable[[], bool] = lambda: False
) -> Answer:
    """POST a file of `size` zeros, and stop as soon as the answer is here. Once it is `too_much`
    nothing more is sent: a server without bounds would take all memory of the machine."""
    loop = asyncio.get_running_loop()
    # Not a stream: one whose writing fails, since the server has heard enough, forgets what came.
    with socket.socket() as client:
        client.setblocking(False)
        client.bind((address, 0))
        await loop.sock_connect(client, ("127.0.0.1", port))
        answering = asyncio.create_task(_received(client))
        try:
            with suppress(ConnectionError):  # the answer says why
                await loop.sock_sendall(client, _upload_head(size, "wc -c < data"))
                for start in range(0, size, len(_ZEROS)):
                    await loop.sock_sendall(client, _ZEROS[: size - start])
                    assert not too_much(), "the server takes more than its budget"
                    if answering.done():
                        break
                else:
                    await loop.sock_sendall(client, _upload_tail())
            return parse(await answering)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


async def _received(client: socket.socket) -> bytes:
    """All that comes until the other side ends."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(client, 65_536):
            received += piece
    return bytes(received)


@pytest.mark.parametrize("form_of_it", ["loose", "archive"])
def test_an_upload_of_64_mb_costs_80_mb_of_memory_at_most(form_of_it: str) -> None:
    data = os.urandom(64 * MB)
    files = {"run.sh": b"wc -c < data", "data": data}
    kind, body = form({"job.tar": targz(files, "w")} if form_of_it == "archive" else files, None)

    with serving() as server:
        web = server.pids()["web"]
        assert server.submit(CLOCK, {})[0] == 200  # what is imported at the first one
        before = memory_of(web)
        _forget_peak(web)
        with watching(web, 0.001) as watch:
            status, answer, _ = server.request(
                "POST", "/submit?wait=60", body, **{"Content-Type": kind}
            )
        rss = _peak(web) - before.rss  # the kernel's own count misses no peak
        assert status == 200 and b'"64000000\\n"' in answer, answer
        assert watch.looks > 20
        assert 60 * MB < watch.most.memfds - before.memfds, "it was looked at"
        grown = rss + watch.most.memfds - before.memfds
        print(f"{form_of_it}: RSS +{rss / MB:.1f} MB, memfds {watch.most.memfds / MB:.1f} MB")
        assert grown <= 80 * MB, f"{grown / MB:.0f} MB, {rss / MB:.0f} MB of it not in memfds"
        assert memory_of(web).memfds < MIB, "nothing is held after its end"


def _forget_peak(pid: int) -> None:
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def _peak(pid: int) -> int:
    """Bytes of the largest RSS since the peak was forgotten."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def flood_with_600_uploads_of_90_mb() -> None:
    """For RX-27 of the attacks: the budget holds, and no earlier job is hurt."""
    budget = 400 * MIB
    margin = 96 * MIB  # buffers of 600 connections, and what the interpreter takes for them
    most = 2 * budget
    ticker = b"for i in {1..40}; do echo $i; sleep 0.1; done; head -c 1000000 /dev/zero > out"

    async def crowd(server: Server, watch: Watch) -> Counter[int]:
        early = Client(server.port, "127.60.0.1")
        over = await begin(early, {"run.sh": b"head -c 5000000 /dev/urandom > out; sha256sum out"})
        told = (await early.finish(over.job))["output_files"]["out"]["sha256"]
        runs = await begin(early, {"run.sh": ticker})
        await until(lambda: _is(runs, "running"))

        storm = [
            asyncio.create_task(upload(server.port, address, 90 * MB, lambda: watch.total > most))
            for address in addresses(300)
            for _ in range(2)
        ]
        assert (await early.finish(runs.job))["status"] == "completed"
        answers = await asyncio.gather(*storm)
        for answer in answers:
            if answer.status == 200:
                assert answer.json["logs"]["stdout"] == "90000000\n", answer
            else:
                assert answer.status == 503 and int(answer.headers["retry-after"]) > 0, answer
        out = await early.ask("GET", f"/download/{over.job}/out")
        assert len(out.body) == 5_000_000 and hashed(out.body) == told
        out = await early.ask("GET", f"/download/{runs.job}/out")
        assert out.body == bytes(1_000_000)
        logs = (await early.ask("GET", f"/logs/{runs.job}")).json
        assert logs["stdout"].split() == [str(n) for n in range(1, 41)]
        return Counter(answer.status for answer in answers)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    try:
        with serving(held_bytes=budget) as server:
            web = server.pids()["web"]
            server.get("/health")  # until then it may still be opening what it opens once
            before = memory_of(web)
            with watching(web) as watch:
                statuses = asyncio.run(crowd(server, watch))
            print(f"{dict(statuses)}; {watch.most}; together {watch.total / MIB:.0f} MiB")
            assert statuses[503] > 300, statuses
            assert watch.most.memfds > budget // 2, "it was a storm"
            # Beside the bytes: what is left of their last pages, and a piece of those that move.
            assert watch.most.memfds <= budget + 16 * MIB
            assert watch.total <= before.rss + budget + margin, watch
            outputs = 6_000_000 + 2 * 4096
            assert eventually(lambda: memory_of(web).memfds <= outputs, 5), memory_of(web)
            # Two for the outputs; a connection that was refused lingers for a while.
            assert eventually(lambda: memory_of(web).descriptors <= before.descriptors + 2, 15), [
                os.readlink(fd) for fd in Path(f"/proc/{web}/fd").iterdir()
            ]
            answer = asyncio.run(upload(server.port, "127.61.0.1", 90 * MB))
            assert answer.status == 200, "there is room again"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_after_1000_jobs_memory_descriptors_and_cgroups_are_what_they_were() -> None:
    async def run(server: Server, count: int) -> None:
        """`count` jobs, eight at a time, the last of them forgotten."""
        last = ""

        async def one_after_another(client: Client) -> None:
            nonlocal last
            for _ in range(count // 8):
                answer = await client.submit(script, wait=60)
                assert answer.json["status"] == "completed", answer
                last = answer.json["job_id"]

        script = {"run.sh": b"echo $EPOCHREALTIME; echo $RANDOM > out"}
        clients = [Client(server.port, address) for address in addresses(8)]
        await asyncio.gather(*map(one_after_another, clients))
        await until(lambda: forgotten(clients[0], last))

    async def forgotten(client: Client, job: str) -> bool:
        return (await client.ask("GET", f"/status/{job}")).status == 404

    def held(server: Server) -> dict[str, Memory]:
        pids = server.pids()
        return {name: memory_of(pids[name]) for name in ("web", "launcher")}

    def as_before(server: Server, before: dict[str, Memory]) -> bool:
        after = held(server)
        return all(
            after[name].descriptors <= before[name].descriptors
            and after[name].memfd_count == 0
            and after[name].rss <= 1.05 * before[name].rss
            for name in after
        )

    with serving("--no-quotas", ttl_seconds=1) as server:
        asyncio.run(run(server, 400))
        before = held(server)
        asyncio.run(run(server, 1000))
        eventually(lambda: as_before(server, before), 3)
        after = held(server)
        print(f"before {before}\nafter {after}")
        assert as_before(server, before), (before, after)
        assert eventually(lambda: not cgroups_of(server.process.pid), 2)
        assert eventually(lambda: not job_processes(), 2)
