"""Watching a job while it runs, through the real server: every byte once and at once, whatever
happens to the connection.
"""

import asyncio
import hashlib
import json
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.journeys.server import Client, Server, eventually, memory_of
from tests.journeys.websocket import PING, PONG, WebSocket, content_of

V1 = "sandrun.v1"
# Prints when it is told to: by a file that somebody would have to write. So it simply waits.
SAYS_ONE = "import os, time\nos.write(1, b'one\\n')\ntime.sleep(60)\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(
        env={
            "SANDRUN_CONCURRENT_JOBS": 1000,
            "SANDRUN_JOBS_PER_HOUR": 100_000,
            "SANDRUN_CPU_SECONDS_PER_MINUTE": 100_000,
            "SANDRUN_STALL_SECONDS": 2,
        }
    )
    yield server
    assert server.end() == 0, server.banner


class Job:
    """A job of ours on the server."""

    def __init__(self, server: Server, code: str, **manifest: Any) -> None:
        self.client = Client(server.port, "127.0.7.1")
        answer = self.ask_submit(code, manifest)
        self.id, self.token = answer["job_id"], answer["owner_token"]

    def ask_submit(self, code: str, manifest: dict[str, Any]) -> dict[str, Any]:
        answer = asyncio.run(self.client.submit({"main.py": code.encode()}, **manifest))
        assert answer.status == 200, answer
        return dict(answer.json)

    def log(self, stream: str) -> bytes:
        path = f"/logs/{self.id}?stream={stream}"
        return asyncio.run(self.client.ask("GET", path)).body

    def state(self) -> str:
        return str(asyncio.run(self.client.status(self.id))["status"])

    def delete(self) -> int:
        bearer = {"Authorization": f"Bearer {self.token}"}
        return asyncio.run(self.client.ask("DELETE", f"/jobs/{self.id}", b"", bearer)).status

    def watch(self, server: Server, protocol: str | None = V1, query: str = "") -> WebSocket:
        return WebSocket(server.port, f"/stream/{self.id}{query}", protocol)


def curl(server: Server, *arguments: str) -> "subprocess.Popen[bytes]":
    words = [word.replace("HOST", f"http://127.0.0.1:{server.port}") for word in arguments]
    return subprocess.Popen(
        ["curl", "-sN", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


# --- at once -----------------------------------------------------------------------------------


def test_a_line_is_heard_while_the_job_still_runs(server: Server) -> None:
    job = Job(server, SAYS_ONE)
    with job.watch(server) as socket:
        heard = next(frame for frame in socket.frames() if frame["type"] == "stdout")
        assert heard["data"] == "one\n" and job.state() == "running"
    for words in ("", "&format=ndjson", "&format=sse", "&stream=stdout"):
        process = curl(server, f"HOST/logs/{job.id}?follow=1{words}")
        assert process.stdout
        line = next(line for line in process.stdout if b"one" in line)
        assert line and job.state() == "running"
        process.terminate()
        process.communicate()
    assert job.delete() == 200


def test_run_prints_as_it_goes_and_tells_the_exit_code_behind_it(server: Server) -> None:
    code = "import os, time; os.write(1, b'one\\n'); time.sleep(0.5); os.write(1, b'two'); exit(3)"
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        head = f"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(code)}\r\n"
        client.sendall(f"{head}Connection: close\r\n\r\n{code}".encode())
        said = b""
        while b"one\n" not in said and (piece := client.recv(65536)):
            said += piece
        assert b"two" not in said and b"chunked" in said
        job = re.search(rb"X-Sandrun-Job: (\S+)", said, re.IGNORECASE)
        assert job and b"\r\nTrailer: X-Sandrun-Status" in said
        while piece := client.recv(65536):
            said += piece
    assert said.endswith(
        b"0\r\nX-Sandrun-Status: failed\r\nX-Sandrun-Reason: exit\r\nX-Sandrun-Exit-Code: 3\r\n\r\n"
    )


def test_whoever_leaves_run_takes_the_job_along(server: Server) -> None:
    process = curl(server, "--data-binary", SAYS_ONE, "HOST/run", "-D", "-")
    assert process.stdout
    said = b""
    while b"one" not in said and (line := process.stdout.readline()):
        said += line
    found = re.search(rb"X-Sandrun-Job: (\S+)", said, re.IGNORECASE)
    assert found
    process.terminate()
    process.communicate()
    client = Client(server.port, "127.0.7.1")
    path = f"/status/{found[1].decode()}"
    assert eventually(lambda: asyncio.run(client.ask("GET", path)).status == 404, 10)


def test_run_tells_everything_as_events_for_whoever_asks(server: Server) -> None:
    process = curl(
        server, "-H", "Accept: application/x-ndjson", "--data-binary", "print(42)", "HOST/run"
    )
    out, _ = process.communicate(timeout=30)
    frames = [json.loads(line) for line in out.splitlines()]
    assert [one["data"] for one in frames if one["type"] == "stdout"] == ["42\n"]
    assert frames[-1]["type"] == "end"
    assert frames[-1]["result"]["execution_metadata"]["exit_code"] == 0


# --- every byte once ---------------------------------------------------------------------------

# Both streams, in pieces of all sizes, letters and bytes that are none.
CHATTER = """
import os, random, sys, time
rng = random.Random(5)
for number in range(400):
    stream = rng.choice([1, 1, 2])
    text = rng.choice([b"line %d\\n", "caf\\u00e9 \\U0001f600 %d\\n".encode(), b"\\xff\\x00%d "])
    os.write(stream, (text % number) * rng.choice([1, 1, 30, 900]))
    time.sleep(rng.choice([0, 0, 0.005, 0.02]))
"""


def collect(frames: Any, into: dict[str, bytes]) -> int:
    """What they print is added; the last seq."""
    seq = 0
    for one in frames:
        seq = one["seq"]
        if one["type"] in into:
            into[one["type"]] += content_of(one)
        assert one["type"] != "gap"
    return seq


def test_fifty_cuts_at_random_lose_and_repeat_nothing(server: Server) -> None:
    job, rng = Job(server, CHATTER), random.Random(7)
    printed, seq, cuts, done = {"stdout": b"", "stderr": b""}, 0, 0, False
    while not done:
        with job.watch(server, query=f"?since={seq}") as watching:
            left = rng.randrange(1, 8) if cuts < 50 else None
            for one in watching.frames():
                seq = one["seq"]
                if one["type"] in printed:
                    printed[one["type"]] += content_of(one)
                done = one["type"] == "end"
                if left is not None and (left := left - 1) == 0 and not done:
                    break  # without a word
        cuts += not done
        if cuts % 2:  # every other time by HTTP, as curl would
            path = f"HOST/logs/{job.id}?follow=1&format=ndjson&since={seq}"
            process = curl(server, path)
            assert process.stdout
            for _ in range(rng.randrange(1, 5)):
                if not (line := process.stdout.readline()):
                    break
                one = json.loads(line)
                seq = one["seq"]
                if one["type"] in printed:
                    printed[one["type"]] += content_of(one)
                done = done or one["type"] == "end"
            process.terminate()
            process.communicate()
    assert cuts >= 20
    assert printed == {stream: job.log(stream) for stream in printed}
    assert len(printed["stdout"]) > 100_000


def test_events_go_on_where_a_browser_says(server: Server) -> None:
    job = Job(server, "for n in range(5): print(n)")
    assert eventually(lambda: job.state() == "completed", 20)

    def events(*options: str) -> list[dict[str, str]]:
        path = f"HOST/logs/{job.id}?follow=1"
        out, _ = curl(server, "-H", "Accept: text/event-stream", *options, path).communicate()
        blocks = [block for block in out.decode().split("\n\n") if block.startswith("id:")]
        return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]

    first, last = events()
    assert (first["event"], last["event"]) == ("stdout", "end")
    assert json.loads(first["data"])["data"] == "0\n1\n2\n3\n4\n"
    assert [one["event"] for one in events("-H", f"Last-Event-ID: {first['id']}")] == ["end"]
    (rest, _) = events("-H", "Last-Event-ID: 4")
    assert json.loads(rest["data"])["data"] == "2\n3\n4\n"


def test_a_position_that_never_was_is_refused(server: Server) -> None:
    job = Job(server, "print(1)")
    assert eventually(lambda: job.state() == "completed", 20)
    for since in ("3", "-1", "x", "9" * 30):
        path = f"/logs/{job.id}?follow=1&since={since}"
        answer = asyncio.run(job.client.ask("GET", path))
        assert (answer.status, answer.json["reason"]) == (400, "invalid_request"), since
        with job.watch(server, query=f"?since={since}") as watching:
            (only,) = watching.frames()
            assert (only["type"], watching.closed) == ("error", 4400)


def test_forty_watchers_of_a_flood_get_every_byte_or_its_gap(server: Server) -> None:
    size = 15_000_000
    job = Job(server, "import os\nfor n in range(150): os.write(1, b'%099999d\\n' % n)")
    before = memory_of(server.pids()["web"]).rss

    async def watch() -> tuple[str, int]:
        from benchmarks.live import websocket

        digest, total = hashlib.sha256(), 0
        async for data in websocket(server.port, job.id):
            one = json.loads(data)
            if one["type"] == "stdout":
                digest.update(content_of(one))
                total += len(content_of(one))
            elif one["type"] == "gap":
                total += one["bytes"]
        return digest.hexdigest(), total

    async def crowd() -> list[tuple[str, int]]:
        return await asyncio.gather(*(watch() for _ in range(40)))

    results = asyncio.run(crowd())
    assert {total for _, total in results} == {size}
    grown = memory_of(server.pids()["web"]).rss - before
    assert grown < (10 << 20) + 40 * 65536 + (8 << 20), grown


# --- control, and the earlier clients ----------------------------------------------------------


def test_a_socket_cancels_for_the_owner_only(server: Server) -> None:
    job = Job(server, SAYS_ONE)
    with job.watch(server) as watching:
        frames = watching.frames()
        for order, reason in (
            ({"type": "cancel"}, "not_owner"),
            ({"type": "cancel", "owner_token": "x"}, "not_owner"),
            ({"type": "stop"}, "invalid_request"),
            ([], "invalid_request"),
        ):
            watching.send(json.dumps(order))
            assert next(one for one in frames if one["type"] == "error")["reason"] == reason
        assert job.state() == "running"
        watching.send(json.dumps({"type": "cancel", "owner_token": job.token}))
        last = list(frames)[-1]
        assert (last["type"], last["result"]["reason"]) == ("end", "cancelled")
        assert watching.closed == 1000


def test_a_deleted_job_is_gone_for_its_watchers(server: Server) -> None:
    job = Job(server, SAYS_ONE)
    with job.watch(server) as watching:
        frames = watching.frames()
        next(one for one in frames if one["type"] == "stdout")
        assert job.delete() == 200
        assert (list(frames)[-1]["type"], watching.closed) == ("gone", 4410)
    with job.watch(server) as watching:
        (only,) = watching.frames()
        assert (only["reason"], watching.closed) == ("unknown_job", 4404)


@pytest.mark.parametrize("path", ["/stream/{}", "/logs/{}/stream"])
def test_the_earlier_clients_read_the_earlier_words(server: Server, path: str) -> None:
    code = "import os, time; os.write(1, b'out\\n'); time.sleep(0.3); os.write(2, b'err\\n')"
    job = Job(server, code)
    with WebSocket(server.port, path.format(job.id)) as live:
        words = list(live.texts())
        assert live.closed == 1000
    assert words[0] in ("[STATUS] Job status: running\n", "[STATUS] Job status: queued\n")
    printed = [word for word in words if not word.startswith(("[STATUS]", "[DONE]"))]
    assert printed == ["out\n", "[STDERR]\nerr\n"]
    done = r"\[DONE\] Job completed \(exit=0, CPU=0\.\d{6}s, Mem=\d+MB\)\n"
    assert re.fullmatch(done, words[-1]), words
    with WebSocket(server.port, path.format(job.id)) as late:
        again = list(late.texts())
    assert again[0] == "[STATUS] Job status: completed\n"
    assert again[1:] == [*printed, words[-1]]
    with WebSocket(server.port, path.format("job-x")) as unknown:
        assert list(unknown.texts()) == ["[ERROR] Job not found: job-x\n"]


def test_metrics_come_twice_a_second_beside_their_limits(server: Server) -> None:
    code = "held = bytearray(b'x') * (64 << 20)\nimport time\ntime.sleep(2)"
    job = Job(server, code, memory_mb=256, timeout=30)
    with job.watch(server) as watching:
        metrics = [one for one in watching.frames() if one["type"] == "metrics"]
    assert 2 <= len(metrics) <= 5
    assert 64 << 20 < metrics[-1]["memory_bytes"] <= metrics[-1]["memory_peak_bytes"] < 256 << 20
    assert metrics[-1]["cpu_seconds"] > 0
    assert metrics[-1]["limits"] == {
        "cpu_seconds": None, "memory_bytes": 256 << 20, "wall_seconds": 30
    }  # fmt: skip
    walls = [one["wall_seconds"] for one in metrics]
    assert walls == sorted(walls)


def test_a_ping_is_answered_and_silence_is_no_fault(server: Server) -> None:
    job = Job(server, "import time; time.sleep(4); print(1)")
    with job.watch(server, None) as watching:
        watching.send(b"hello", PING)
        kinds = [watching.receive(), watching.receive()]
        assert (PONG, b"hello") in kinds
        assert "1\n" in list(watching.texts())


def test_the_end_of_the_server_ends_its_sockets() -> None:
    server = Server()
    try:
        job = Job(server, SAYS_ONE)
        watching = job.watch(server)
        frames = watching.frames()
        next(one for one in frames if one["type"] == "stdout")
        began = time.monotonic()
    finally:
        assert server.end() == 0
    assert time.monotonic() - began < 10
    with suppress(ConnectionError):
        assert [one["type"] for one in frames][-1:] in ([], ["end"], ["gone"])
    watching.socket.close()
