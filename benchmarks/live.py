"""How live the output is, and what many watchers cost.

    sudo .venv/bin/python benchmarks/live.py [--watchers 200] [--megabytes 100]

First a job prints ten lines, one every 100 ms: how long each takes from the print to a WebSocket
client and to one that reads /logs?follow=1. Then one job prints so many megabytes while so many
watch it: whether each got every byte, what the server's memory grew by, and how long /health took.
At last jobs of deaf processes are cancelled: how long it takes until the answer says that they are
dead, and how long in a sandbox that allows more of them than the server does.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.journeys.server import Client, Server, memory_of, watching  # noqa: E402
from tests.sandbox.box import Box, job_processes  # noqa: E402

TEN_LINES = """
import time
for _ in range(10):
    print(time.time(), flush=True)
    time.sleep(0.1)
"""
FLOOD = """
import hashlib, sys
digest, line = hashlib.sha256(), b""
for n in range({megabytes}):
    block = b"".join(b"%015d\\n" % (n * 62500 + m) for m in range(62500))
    digest.update(block)
    sys.stdout.buffer.write(block)
print(digest.hexdigest(), file=sys.stderr)
"""
DEAF = """
import os, signal
for number in signal.valid_signals() - {{9, 19}}:
    signal.signal(number, signal.SIG_IGN)
if all(os.fork() for _ in range({processes} - 1)):
    print("all are there", flush=True)
while True:
    signal.pause()
"""
ROUNDS = 20
PLENTY = {
    "SANDRUN_LOG_BYTES": 100 << 20,
    "SANDRUN_CLIENT_HELD_BYTES": 1 << 30,
    "SANDRUN_CLIENT_CONNECTIONS": 2000,
    "SANDRUN_TTL_SECONDS": 3000,
    "SANDRUN_CPU_SECONDS_PER_MINUTE": 1000,
    "SANDRUN_JOBS_PER_HOUR": 1000,
}


async def websocket(port: int, job: str) -> AsyncIterator[bytes]:
    """The frames of sandrun.v1, in one loop: a library for it would be what is measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 17)
    writer.write(
        f"GET /stream/{job} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sandrun.v1\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    while True:
        kind, size = await reader.readexactly(2)
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        data = await reader.readexactly(size)
        if kind & 15 == 8:
            break
        if kind & 15 == 9:  # or the server takes us for gone
            writer.write(bytes([0x8A, 0x80 | size]) + bytes(4) + data)  # the mask of zeros
        if kind & 15 == 1:
            yield data
    writer.close()


async def followed(port: int, job: str) -> AsyncIterator[bytes]:
    """The lines of /logs/{job}?follow=1&format=ndjson, as `curl -N` prints them."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", f"http://127.0.0.1:{port}/logs/{job}?follow=1&format=ndjson",
        stdout=asyncio.subprocess.PIPE, limit=1 << 17,
    )  # fmt: skip
    assert process.stdout
    async for line in process.stdout:
        yield line
    await process.wait()


async def latency(port: int) -> None:
    client = Client(port, "127.0.1.1")
    for name, watch in (("WebSocket", websocket), ("curl -N", followed)):
        took = []
        answer = await client.submit({"main.py": TEN_LINES.encode()})
        async for data in watch(port, answer.json["job_id"]):
            frame = json.loads(data)
            if frame["type"] == "stdout":
                took += [time.time() - float(line) for line in frame["data"].split()]
        took = [1000 * seconds for seconds in took]
        assert len(took) == 10, took
        print(f"{name:10} {_figures(took)}")


async def cancels(port: int) -> None:
    client = Client(port, "127.0.1.3")
    took = []
    for _ in range(ROUNDS):
        answer = await client.submit({"main.py": DEAF.format(processes=30).encode()})
        job, token = answer.json["job_id"], answer.json["owner_token"]
        async for data in websocket(port, job):
            if json.loads(data)["type"] == "stdout":
                break
        began = time.monotonic()
        ended = await client.cancel(job, token)
        took.append(1000 * (time.monotonic() - began))
        assert ended["reason"] == "cancelled" and not job_processes(), ended
    print(f"cancel     {_figures(took)} for 30 processes, by HTTP")


def kills() -> None:
    took = []
    box = Box().start()

    async def one() -> float:
        stop, begun = asyncio.get_running_loop().create_future(), asyncio.Event()
        run = asyncio.ensure_future(
            box.apython(
                DEAF.format(processes=50), stop=stop, tasks=64, memory_bytes=1 << 30,
                on_output=lambda stream, data: begun.set(),
            )
        )  # fmt: skip
        await begun.wait()
        began = time.monotonic()
        stop.set_result("cancelled")
        assert (await run).reason == "cancelled"
        return 1000 * (time.monotonic() - began)

    try:
        took = [box.wait(one()) for _ in range(ROUNDS)]
    finally:
        box.close()
    print(f"kill       {_figures(took)} for 50 processes, in the sandbox")


def _figures(took: list[float]) -> str:
    return f"median {statistics.median(took):5.1f} ms, worst {max(took):5.1f} ms"


async def watch(port: int, job: str) -> tuple[str, int, int]:
    """sha256 of stdout, its bytes, and the bytes that were said to be lost."""
    digest, size, lost = hashlib.sha256(), 0, 0
    async for data in websocket(port, job):
        frame = json.loads(data)
        if frame["type"] == "stdout":
            content = frame["data"].encode()
            digest.update(content)
            size += len(content)
        elif frame["type"] == "gap":
            lost += frame["bytes"]
    return digest.hexdigest(), size, lost


def watch_in_a_process(port: int, job: str, watchers: int, done: int) -> None:
    async def all_of_them() -> list[tuple[str, int, int]]:
        return await asyncio.gather(*(watch(port, job) for _ in range(watchers)))

    os.write(done, json.dumps(asyncio.run(all_of_them())).encode())


async def crowd(server: Server, watchers: int, megabytes: int, cap: int) -> None:
    client = Client(server.port, "127.0.1.2")
    code = "import time; time.sleep(3)\n" + FLOOD.format(megabytes=megabytes)
    answer = await client.submit({"main.py": code.encode()})
    job = answer.json["job_id"]
    web = server.pids()["web"]
    before = memory_of(web).rss
    ends, pids = [], []
    for part in (watchers // 2, watchers - watchers // 2):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                watch_in_a_process(server.port, job, part, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        pids.append(pid)
        os.close(write)
        ends.append(read)
    health: list[float] = []
    began = time.monotonic()

    async def look() -> None:
        while True:
            asked = time.monotonic()
            await client.ask("GET", "/health")
            health.append(time.monotonic() - asked)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    with watching(web, 0.1) as seen:
        said = [await asyncio.to_thread(_read_all, end) for end in ends]
    took = time.monotonic() - began
    looking.cancel()
    for pid in pids:
        await asyncio.to_thread(os.waitpid, pid, 0)
    results = [tuple(one) for part in said for one in json.loads(part)]
    digest = (await client.ask("GET", f"/logs/{job}?stream=stderr")).body.decode().strip()
    whole = hashlib.sha256((await client.ask("GET", f"/logs/{job}?stream=stdout")).body)
    grown = seen.most.rss - before
    most = cap + watchers * 65536
    assert len(results) == watchers
    accounted = sum(one[1] + one[2] == megabytes * 1_000_000 for one in results)
    print(
        f"{watchers} watchers of {megabytes} MB: {took:.0f} s, "
        f"{sum(one[0] == digest for one in results)} got every byte, "
        f"{accounted} every byte or its gap\n"
        f"/logs is {'whole' if whole.hexdigest() == digest else 'cut'}\n"
        f"memory grew by {grown >> 20} MiB (log cap and 64 KiB a watcher: {most >> 20} MiB), "
        f"{(grown - min(cap, megabytes * 1_000_000)) // watchers >> 10} KiB a watcher\n"
        f"/health: median {1000 * statistics.median(health):.0f} ms, "
        f"worst {1000 * max(health):.0f} ms of {len(health)}"
    )


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=100)
    asked = parser.parse_args()
    for cap in (100 << 20, 10 << 20):
        server = Server(env={**PLENTY, "SANDRUN_LOG_BYTES": cap})
        try:
            print(f"log cap {cap >> 20} MiB")
            asyncio.run(latency(server.port))
            asyncio.run(crowd(server, asked.watchers, asked.megabytes, cap))
            asyncio.run(cancels(server.port))
        finally:
            server.end()
    kills()


if __name__ == "__main__":
    main()
